"""Simulated runs: the files of a real run, and agreement with real processes to the bit when fed their times."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from asgd.api import simulate, train
from asgd.core.methods import METHODS
from asgd.errors import ConfigError
from asgd.run.checkpoints import newest_good
from asgd.run.ledger import check_trace
from asgd.run.signals import StopRequests

CONFIG = {
    "seed": 5,
    "task": {"function": "quadratic", "options": {"dimension": 20, "sigma2": 0.1}, "batch_size": 4},
    "method": {"step_size": 0.1},
    "optimizer": {"momentum": 0.3},
    "schedule": {"name": "cosine", "over": "versions"},
    "cluster": {"num_workers": 4, "speeds": {"profile": "half_slower", "seconds": 0.01}},
    "budget": {"versions": 150},
}


def test_writes_the_same_directory_as_a_real_run(tmp_path):
    run = simulate(CONFIG, run_dir=tmp_path / "run")
    summary = run.summary
    assert summary.finished and summary.versions == 150
    assert check_trace(run.trace, summary.outstanding) == []
    assert [row.version for row in run.metrics][-1] == 150
    assert run.metrics[-1].results["suboptimality"] < run.metrics[0].results["suboptimality"]
    assert summary.wall_s == pytest.approx(150 / (2 / 0.01 + 2 / 0.04), rel=0.05)
    assert run.model() is not None


@pytest.mark.parametrize("method", [{}, {"name": "ringmaster", "options": {"R": 2, "cancel": True}}])
def test_in_mode_exact_a_checkpoint_has_what_the_outstanding_jobs_were_given_and_no_more(tmp_path, method):
    config = CONFIG | {"method": CONFIG["method"] | method, "recovery": {"mode": "exact"}}
    run = simulate(config, run_dir=tmp_path / "run")
    checkpoint, _ = newest_good(run.path / "checkpoints")
    outstanding = [job[0] for job in checkpoint.state["core"]["ledger"]["outstanding"]]
    assert [job for job, _ in checkpoint.state["reads"]] == outstanding and len(outstanding) == 3


def test_the_same_twice(tmp_path):
    runs = [simulate(CONFIG, run_dir=tmp_path / name) for name in ("a", "b")]
    assert runs[0].summary.parameters_sha256 == runs[1].summary.parameters_sha256
    assert runs[0].trace == runs[1].trace


def stopped(path, **arguments):
    """A simulation that is asked to stop while version 45 is evaluated."""
    stops = StopRequests()

    def ask(fraction, now_s):
        if fraction >= 0.3:
            stops.ask("interrupted by SIGINT")

    return simulate(CONFIG, run_dir=path, progress=ask, stops=stops, **arguments)


def test_asked_to_stop_it_ends_at_the_next_event_with_all_its_files(tmp_path):
    run, whole = stopped(tmp_path / "run"), simulate(CONFIG, run_dir=tmp_path / "whole")
    summary = run.summary
    assert (summary.stopped_because, summary.finished, summary.versions) == ("interrupted by SIGINT", False, 46)
    assert run.trace == whole.trace[:46] and summary.wall_s == run.trace[-1].time_s
    assert check_trace(run.trace, summary.outstanding) == []
    assert [row.version for row in run.metrics] == [0, 15, 30, 45, 46]
    assert [path.stem for path in (tmp_path / "run" / "checkpoints").glob("*.safetensors")] and run.model() is not None


def test_a_stop_before_the_first_event_and_one_that_comes_too_late(tmp_path):
    stops = StopRequests()
    stops.ask("interrupted by SIGTERM")
    summary = simulate(CONFIG, run_dir=tmp_path / "early", stops=stops).summary
    assert (summary.stopped_because, summary.versions, summary.outstanding) == ("interrupted by SIGTERM", 0, [])
    late = StopRequests()
    summary = simulate(
        CONFIG,
        run_dir=tmp_path / "late",
        stops=late,
        progress=lambda fraction, now_s: fraction == 1 and late.ask("late"),
    ).summary
    assert summary.finished and late.asked


def test_a_stopped_run_is_driven_again_and_may_be_stopped_for_the_same_reason(tmp_path):
    first = stopped(tmp_path / "first")
    again = simulate(CONFIG, run_dir=tmp_path / "again", times=tmp_path / "first")
    assert again.summary.parameters_sha256 == first.summary.parameters_sha256
    stops = StopRequests()
    earlier = simulate(
        CONFIG,
        run_dir=tmp_path / "earlier",
        times=tmp_path / "first",
        stops=stops,
        progress=lambda fraction, now_s: fraction >= 0.1 and stops.ask("interrupted by SIGINT"),
    )
    assert earlier.trace == first.trace[:16] and earlier.summary.stopped_because == "interrupted by SIGINT"


def test_real_speeds_cannot_be_simulated(tmp_path):
    with pytest.raises(ConfigError, match="a simulation needs emulated speeds"):
        simulate(CONFIG, ["cluster.speeds.profile=real"], run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", ["asynchronous", "ringleader"])
def test_the_summary_holds_each_workers_part(tmp_path, method):
    run = simulate(CONFIG, [f"method.name={method}", "task.partition=by_size"], run_dir=tmp_path / "run")
    workers = run.summary.workers
    assert list(workers) == [0, 1, 2, 3]
    for worker, part in workers.items():
        rows = [row for row in run.trace if row.worker == worker]
        assert part.used == sum(row.action in ("apply", "accumulate") for row in rows)
        assert (part.discarded, part.lost) == (0, 0)
        assert part.share == part.used / run.summary.used
    assert sum(part.share for part in workers.values()) == pytest.approx(1.0)
    assert sum(part.weight for part in workers.values()) == pytest.approx(1.0)
    if method == "asynchronous":  # every gradient is a step of its own
        total = sum(row.step_size for row in run.trace)
        for worker, part in workers.items():
            of_worker = sum(row.step_size for row in run.trace if row.worker == worker)
            assert part.weight == pytest.approx(of_worker / total)
        assert workers[0].weight > 4 * workers[3].weight
    else:  # each step weighs all workers alike, however many gradients they gave
        assert [part.weight for part in workers.values()] == pytest.approx([0.25] * 4)
        assert workers[0].used > 3 * workers[3].used


# Ends other than by versions, for a schedule that must know its length.
ENDS = {
    name: ["budget.versions=0", f"budget.{name}={limit}", "schedule.total=150"]
    for name, limit in (("time_s", 0.5), ("samples", 600), ("gradients", 150))
}

# Every method, with options under which it does all that it can; small, because each starts a cluster.
REAL = [
    ["method.name=asynchronous", "method.jobs_per_worker=2"],
    ["method.name=minibatch", *ENDS["time_s"]],
    ["method.name=random_assignment", "method.options={concurrency = 6}", "budget.versions=80"],
    ["method.name=ringmaster", "method.options={R = 3, cancel = true}", *ENDS["gradients"]],
    ["method.name=clipped", "method.options={clip = 0.2}", *ENDS["time_s"]],
    ["method.name=throttle"],
    ["method.name=m_synchronous", "method.options={m = 2}", "budget.versions=60"],
    ["method.name=bounded_staleness", "method.options={s = 1}", "budget.versions=80"],
    ["method.name=rennala", "method.options={batch = 3}", "budget.versions=40"],
    ["method.name=malenia", "budget.versions=20"],
    ["method.name=fedbuff", "method.options={buffer = 3}", "budget.versions=50"],
    ["method.name=fedasync", "method.local_steps=3", "method.local_step_size=0.1"],
    ["method.name=rescaled", *ENDS["samples"]],
    ["method.name=ringleader", "budget.versions=60"],
    ["method.name=picky", "method.options={threshold = 0.3}"],
    ["method.name=dc_asgd"],
    ["method.name=gap_aware", "method.jobs_per_worker=2"],
    ["method.name=asynchronous", "method.rule=wu_adaptive_1", "method.step_size=0.4"],
    ["method.name=asynchronous", "method.rule=wu_adaptive_2", "method.step_size=0.4"],
]


def test_every_method_is_compared_with_real_processes():
    assert {overrides[0].removeprefix("method.name=") for overrides in REAL} == set(METHODS)


@pytest.mark.cluster
@pytest.mark.parametrize("overrides", REAL, ids=lambda overrides: " ".join(overrides).replace("method.", ""))
def test_fed_with_a_real_runs_times_it_decides_and_computes_the_same(tmp_path, overrides):
    overrides = [*overrides, "evaluation.evaluate=never"]  # one process less to start and to wait for
    real = train(CONFIG, overrides, run_dir=tmp_path / "real")
    assert check_trace(real.trace, real.summary.outstanding) == []
    virtual = simulate(CONFIG, overrides, run_dir=tmp_path / "virtual", times=tmp_path / "real")
    for ours, theirs in zip(virtual.trace, real.trace, strict=True):
        # When a job lay at its worker and was begun are that worker's own times, which a driver of arrivals hasn't.
        assert ours == replace(theirs, queue_s=ours.queue_s, started_s=ours.started_s)
    assert virtual.summary.workers == real.summary.workers
    assert virtual.summary.parameters_sha256 == real.summary.parameters_sha256


@pytest.mark.cluster
def test_jobs_of_one_version_get_the_buffers_of_the_moment_as_on_real_processes(tmp_path):
    """A gradient that is only accumulated moves the batch-norm statistics and not the version."""
    config = CONFIG | {
        "task": {"function": "shapes", "options": {"norm": "batch", "num_train": 500}, "batch_size": 8},
        "method": {"name": "rennala", "step_size": 0.05, "options": {"batch": 5}},
        "budget": {"versions": 8},
        "evaluation": {"evaluate": "never"},
    }
    real = train(config, run_dir=tmp_path / "real")
    virtual = simulate(config, run_dir=tmp_path / "virtual", times=tmp_path / "real")
    expected = real.model().state_dict()
    for name, tensor in virtual.model().state_dict().items():
        assert torch.equal(tensor, expected[name]), name
