"""TensorBoard's event files, read back with TensorBoard's own reader and compared with the record."""

from __future__ import annotations

import dataclasses
import math
import time
from types import SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from asgd.api import resume, simulate, train
from asgd.config import load_config
from asgd.core.trace import TraceRow
from asgd.errors import ConfigError
from asgd.run import board
from asgd.run.formats import MetricsRow
from asgd.run.ledger import USED
from asgd.run.records import RunDirectory

SCALARS = ("train_loss", "delay", "step_size", "concurrency", "updates_per_s")
CONFIG = {
    "seed": 2,
    "task": {"function": "quadratic", "options": {"dimension": 8}, "batch_size": 4},
    "method": {"step_size": 0.05},
    "cluster": {"num_workers": 4, "speeds": {"profile": "half_slower", "seconds": 1.0}},
    "budget": {"gradients": 700},
    "records": {"tensorboard": True},
}


def read(path):
    """All events of a run's board: tag -> events in order."""
    assert len(list((path / "tensorboard").iterdir())) == 1
    found = EventAccumulator(str(path / "tensorboard"), size_guidance={"scalars": 0, "histograms": 0})
    found.Reload()
    tags = found.Tags()
    scalars = {tag: found.Scalars(tag) for tag in tags["scalars"]}
    return scalars | {tag: found.Histograms(tag) for tag in tags["histograms"]}


def mean(numbers):
    return sum(numbers) / len(numbers)


def check_against(events, trace, metrics, began_s, every_s):
    """Each point is what the trace says of the arrivals since the point before."""
    steps = [event.step for event in events["delay"]]
    assert steps == sorted(set(steps))
    ends = {row.version + row.steps: row.arrival for row in trace if row.steps}
    after, before_s, before_version = 0, 0.0, 0
    for number, step in enumerate(steps):
        rows = trace[after : ends[step] + 1]
        last = rows[-1]
        used = [row.delay for row in rows if row.action in USED]
        expected = {
            "train_loss": mean([row.loss for row in rows if row.loss is not None]),
            "delay": mean(used),
            "step_size": mean([row.step_size for row in rows if row.steps]),
            "concurrency": last.concurrency,
            "updates_per_s": (step - before_version) / (last.time_s - before_s),
        }
        for tag, value in expected.items():
            event = events[tag][number]
            assert event.step == step
            assert event.value == pytest.approx(value, rel=1e-6)
            assert event.wall_time == pytest.approx(began_s + last.time_s, abs=1e-3)
        assert number == 0 or last.time_s - before_s >= every_s
        after, before_s, before_version = ends[step] + 1, last.time_s, step
    for tag in ("test_loss", "test_accuracy", "train_loss"):
        known = {row.version: getattr(row, tag) for row in metrics if getattr(row, tag) is not None}
        found = {event.step: event.value for event in events.get(f"evaluation/{tag}", [])}
        assert found == pytest.approx(known, rel=1e-6)


@pytest.fixture
def at_zero(monkeypatch):
    """The time of day stands still, so that wall times can be compared."""
    monkeypatch.setattr(board, "time", SimpleNamespace(time=lambda: 1e6))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["asynchronous", "ringmaster", "minibatch"])
def test_a_simulation_shows_what_its_record_says(tmp_path, at_zero, method):
    options = {"R": 3} if method == "ringmaster" else {}
    config = CONFIG | {"method": {"name": method, "step_size": 0.05, "options": options}}
    run = simulate(config, run_dir=tmp_path / "run")
    events = read(run.path)
    assert len(run.metrics) > 5 and set(events) >= {*SCALARS, "evaluation/test_loss", "delays", "step_sizes"}
    check_against(events, run.trace, run.metrics, 1e6, 0.0)
    histogram, tenth = events["delays"][0], events["delay"][9]
    assert histogram.step == tenth.step
    rows = [row for row in run.trace if row.version < tenth.step and row.action in USED]
    assert histogram.histogram_value.num == len(rows)
    assert histogram.histogram_value.sum == sum(row.delay for row in rows)
    for limit, count in zip(histogram.histogram_value.bucket_limit, histogram.histogram_value.bucket, strict=True):
        assert count == sum(math.isclose(row.delay + 0.5, limit) for row in rows)


@pytest.mark.cluster
def test_a_real_run_and_its_continuation_show_what_the_record_says(tmp_path):
    speeds = {"profile": "half_slower", "seconds": 0.02}
    config = CONFIG | {"cluster": {"num_workers": 4, "speeds": speeds}, "budget": {"time_s": 3.5}}
    began_s = time.time()
    train(config, run_dir=tmp_path / "run")
    assert 3 <= len(read(tmp_path / "run")["delay"]) <= 4
    for overrides in ([], ["records.tensorboard=false"], ["records.tensorboard=true"]):
        run = resume(tmp_path / "run", overrides=["budget.time_s=7.0", *overrides])
        events = read(run.path)
        first = events["delay"][0]
        zero_s = first.wall_time - next(row.time_s for row in run.trace if row.version + row.steps == first.step)
        assert began_s - 7.0 < zero_s < time.time()
        check_against(events, run.trace, run.metrics, zero_s, 1.0)
    assert 6 <= len(events["delay"]) <= 7, "the whole run, also what had been without a board"


def test_nothing_is_written_unasked(tmp_path):
    run = simulate(CONFIG | {"records": {"tensorboard": False}}, run_dir=tmp_path / "run")
    assert not (run.path / "tensorboard").exists()


def test_the_numbers_are_the_same_with_and_without(tmp_path):
    runs = [
        simulate(CONFIG | {"records": {"tensorboard": asked}}, run_dir=tmp_path / str(asked)) for asked in (True, False)
    ]
    assert runs[0].trace == runs[1].trace
    assert runs[0].summary.parameters_sha256 == runs[1].summary.parameters_sha256


def row(arrival, **changes):
    made = TraceRow(
        arrival=arrival,
        time_s=0.1 * (arrival + 1),
        worker=0,
        job=arrival,
        read_version=arrival,
        version=arrival,
        delay=0,
        concurrency=1,
        action="apply",
        steps=1,
        step_size=0.1,
        reason=None,
        loss=1.0,
        samples=1,
        compute_s=0.1,
        wait_s=0.0,
    )
    return dataclasses.replace(made, **changes)


def directory(tmp_path):
    RunDirectory.create(tmp_path / "run", "").close()
    return RunDirectory.open(tmp_path / "run", mode="write")


ASKED = load_config({"budget": {"versions": 1}, "records": {"tensorboard": True}})


def test_a_real_run_has_a_point_per_second_at_most(tmp_path, at_zero):
    with directory(tmp_path) as run:
        board.follow_on_board(ASKED, run, 0.0)
        trace = [row(arrival) for arrival in range(100)]
        for each in trace:
            run.append_trace(each)
    events = read(run.path)
    assert len(events["delay"]) == 10
    check_against(events, trace, [], 1e6, 1.0 - 1e-9)


def test_points_grow_with_the_logarithm_of_the_arrivals(tmp_path):
    with directory(tmp_path) as run:
        board.follow_on_board(ASKED, run, 0.0, every_s=0.0)
        for arrival in range(4000):
            run.append_trace(row(arrival))
    assert 600 < len(read(run.path)["delay"]) <= 200 * (1 + math.log(4000 / 200)) + 1


def test_a_run_that_goes_on_shows_nothing_of_what_was_undone(tmp_path, at_zero):
    """Also not to readers that don't know of `purge_step`, such as the server of TensorBoard's page."""
    with directory(tmp_path) as run:
        board.follow_on_board(ASKED, run, 0.0, every_s=0.0)
        for arrival in range(150):
            run.append_trace(row(arrival))
        for version in (0, 90, 120):
            run.append_metrics(MetricsRow(time_s=0.1 * version, version=version, samples_seen=0, test_loss=5.0))
    with RunDirectory.open(run.path, mode="write") as again:
        assert (again.truncate_trace(100), again.truncate_metrics(100)) == (50, 1)
        board.follow_on_board(ASKED, again, 10.0, every_s=0.0)
        for arrival in range(100, 130):
            again.append_trace(row(arrival, loss=2.0, time_s=1.0 + 0.1 * arrival))
        again.append_metrics(MetricsRow(time_s=13.0, version=125, samples_seen=0, test_loss=3.0))
    events = read(run.path)
    assert [event.step for event in events["train_loss"]] == list(range(1, 131))
    assert [event.value for event in events["train_loss"]] == [1.0] * 100 + [2.0] * 30
    assert [(event.step, event.value) for event in events["evaluation/test_loss"]] == [(0, 5.0), (90, 5.0), (125, 3.0)]
    assert events["delay"][0].wall_time == pytest.approx(1e6 - 10.0 + 0.1)


def test_rows_without_an_update_or_a_loss_and_evaluations_out_of_order(tmp_path):
    with directory(tmp_path) as run:
        board.follow_on_board(ASKED, run, 0.0, every_s=0.0)
        run.append_trace(row(0, action="discard", steps=0, step_size=None, loss=7.0))
        run.append_trace(row(1, loss=None, version=0))
        run.append_trace(row(2, action="lost", steps=0, step_size=None, loss=None, samples=0, delay=9))
        run.append_trace(row(3, version=1, delay=3))
        for version in (3, 2, 5):
            results = {"loss": 1.0, "error": float(version), "odd": math.inf}
            run.append_metrics(MetricsRow(time_s=1.0, version=version, samples_seen=0, test_loss=1.0, results=results))
    events = read(run.path)
    assert [(event.step, event.value) for event in events["train_loss"]] == [(1, 7.0), (2, 1.0)]
    assert [(event.step, event.value) for event in events["delay"]] == [(1, 0.0), (2, 3.0)]
    assert [(event.step, event.value) for event in events["evaluation/error"]] == [(3, 3.0), (5, 5.0)]
    assert "evaluation/odd" not in events and "evaluation/loss" not in events


def test_a_missing_package_is_told_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(board, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"records\.tensorboard = true: the package tensorboard is not installed"):
        simulate(CONFIG, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    simulate(CONFIG | {"records": {"tensorboard": False}}, run_dir=tmp_path / "run")


def test_a_new_run_in_its_place_removes_the_board(tmp_path):
    simulate(CONFIG, run_dir=tmp_path / "run")
    RunDirectory.create(tmp_path / "run", "", overwrite=True).close()
    assert not (tmp_path / "run" / "tensorboard").exists()
