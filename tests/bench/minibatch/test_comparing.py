"""The numbers of the tables, from rows written by hand: intervals, censoring, equal budgets, predictions."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from helpers.benchmark import Runner, Simulator, plan_of, record_of
from rich.console import Console

from asgd.bench.minibatch import comparing
from asgd.bench.minibatch.figures import figures
from asgd.bench.minibatch.results import Look, RealRun
from asgd.bench.minibatch.study import Study
from asgd.bench.minibatch.table import conclude, tables
from asgd.report.plots import draw
from asgd.run.signals import StopRequests
from asgd.sim.tuning import STEP_SIZE, Goal

GOAL = Goal(metric="test_accuracy", score="time", target=0.5)


def run_of(*looks, contender="minibatch", seed=100, **other):
    return RealRun(
        setting="equal", contender=contender, values={STEP_SIZE: 1.0}, seed=seed, purpose="measure", budget_s=10.0,
        wall_s=10.0, looks=[Look(*look) for look in looks], **other,
    )  # fmt: skip


def test_the_first_look_at_the_target_counts_whatever_comes_later():
    run = run_of((0.0, 0, 0.1), (1.0, 10, 0.4), (2.0, 20, 0.5), (3.0, 30, 0.2), (4.0, 40, 0.9))
    assert run.reached(GOAL) == Look(2.0, 20, 0.5)
    assert run.final == 0.9 and run.after(39) == 0.2 and run.after(40) == 0.9


def test_a_look_that_is_not_finite_reaches_nothing():
    assert run_of((0.0, 0, 0.1), (1.0, 10, None)).reached(GOAL) is None
    assert run_of((0.0, 0, 0.1), (9.5, 10, None)).last_part is None
    assert run_of((0.0, 0, 0.1), (9.0, 10, 0.3), (9.5, 10, 0.5)).last_part == pytest.approx(0.4)
    assert run_of((0.0, 0, 0.1), (5.0, 10, 0.3)).last_part == 0.3  # its model stayed as it was


def test_ratios_are_paired_and_the_inverse_ratio_has_the_inverse_interval():
    a, b = [2.0, 30.0, 4.4], [1.0, 10.0, 2.0]
    there, back = comparing.ratio(a, b), comparing.ratio(b, a)
    assert there.value == pytest.approx((2.0 * 3.0 * 2.2) ** (1 / 3)) and there.low < there.value < there.high
    assert (1 / back.high, 1 / back.low) == pytest.approx((there.low, there.high))
    # t(0.975, 2) = 4.302653: by hand.
    logs = [math.log(2.0), math.log(3.0), math.log(2.2)]
    centre = sum(logs) / 3
    error = (sum((x - centre) ** 2 for x in logs) / 2 / 3) ** 0.5
    assert math.log(there.high) == pytest.approx(centre + 4.302653 * error, rel=1e-6)
    assert comparing.ratio([6.0], [2.0]) == comparing.Interval(pytest.approx(3.0), None, None)


def test_a_baseline_that_misses_the_target_gives_a_lower_bound():
    ours = [run_of((0.0, 0, 0.1), (2.0, 9, 0.6), seed=seed) for seed in (1, 2)]
    theirs = [run_of((0.0, 0, 0.1), (8.0, 9, 0.6), seed=1), run_of((0.0, 0, 0.1), (8.0, 9, 0.4), seed=2)]
    found, is_bound = comparing.time_ratio(ours, theirs, GOAL)
    assert is_bound and found.value == pytest.approx((4.0 * 5.0) ** 0.5) and found.low is None
    assert comparing.time_ratio(theirs, ours, GOAL) == (None, False)  # it missed the target itself
    found, is_bound = comparing.time_ratio(ours, [theirs[0]] * 2, GOAL)
    assert not is_bound and found.value == pytest.approx(4.0)


def whole(folder, runner=None, **benchmark):
    plan = plan_of(**benchmark)
    record = record_of(plan)
    Study(
        plan, record, folder, Path(), jobs=1, stops=StopRequests(), runner=runner or Runner(), simulator=Simulator()
    ).run()
    return plan, record


def test_the_rows_of_a_benchmark(tmp_path):
    plan, record = whole(tmp_path, methods=["asynchronous:scale", "ringmaster", "minibatch"])
    asynchronous, ringmaster, minibatch = conclude(plan, record)
    # By the speeds: two workers take 0.1 s and two 0.4 s, so 25/s and 10/s.
    assert asynchronous.predicted_gradients_per_s == pytest.approx(25.0)
    assert minibatch.predicted_gradients_per_s == pytest.approx(10.0)
    assert ringmaster.predicted_gradients_per_s == pytest.approx(25.0, rel=0.02)
    assert asynchronous.throughput_ratio.value == pytest.approx(2.5)
    assert asynchronous.agreement.value == pytest.approx(1.0)
    assert asynchronous.time_s.value == pytest.approx(1.01) and minibatch.time_s.value == pytest.approx(3.01)
    assert asynchronous.time_ratio.value == pytest.approx(3.01 / 1.01, rel=1e-3)
    assert asynchronous.time_ratio.low < asynchronous.time_ratio.value < asynchronous.time_ratio.high
    # Equal gradients: mini-batch got through 80 of 2 samples; the others had 0.5 with fewer, and 0.7 with more.
    assert asynchronous.equal_gradients == 80
    assert asynchronous.at_equal_gradients.value == 0.5 and minibatch.at_equal_gradients.value == pytest.approx(0.7)
    assert record.rows[0]["contender"] == "asynchronous:scale"
    # The stand-in for ringmaster runs at the pace of mini-batch.
    others = [warning for warning in record.warnings if "s apart" not in warning]
    assert len(others) == 1 and others[0].startswith("ringmaster, scale: 40% of the gradients per second")


def test_runs_that_miss_the_target_are_counted(tmp_path):
    missing = [("minibatch", 101), ("asynchronous:scale", 102)]
    plan, record = whole(tmp_path, Runner(missing=missing))
    asynchronous, minibatch = conclude(plan, record)
    assert (asynchronous.reached, asynchronous.time_s, asynchronous.time_ratio) == (2, None, None)
    assert (minibatch.reached, minibatch.samples) == (2, None)
    assert printed(plan, (asynchronous, minibatch)).count("not reached (1 of 3)") == 4


def printed(plan, rows):
    console = Console(width=200)
    with console.capture() as capture:
        for table in tables(plan, rows):
            console.print(table)
    return capture.get()


def test_what_is_to_be_doubted_is_said(tmp_path):
    plan, record = whole(tmp_path, Runner(best=4.0), seeds=2)  # for real, larger steps are better than in virtual time
    record.runs = [
        run if run.purpose != "measure" else slowed(run, gradients=run.gradients // 2, lost=1) for run in record.runs
    ]
    conclude(plan, record)
    text = "\n".join(record.warnings)
    assert "50% of the gradients per second that the speeds allow" in text
    assert "1 jobs lost" in text and "2 measured seeds" in text


def slowed(run, **changed):
    fields = {name: getattr(run, name) for name in run.__struct_fields__}
    return RealRun(**{**fields, **changed})


def test_a_step_size_at_the_edge_is_marked(tmp_path):
    plan, record = whole(tmp_path, Runner(best=0.25), lowest=0.25, widen=0)
    rows = conclude(plan, record)
    assert [row.at_edge for row in rows] == ["smallest", "smallest"]
    assert "is the smallest of the grid" in record.warnings[0] and "0.25 (smallest of the grid)" in printed(plan, rows)


def test_the_protocol_says_what_was_done(tmp_path):
    plan, record = whole(tmp_path, ddp=True)
    conclude(plan, record)
    text = "\n".join(record.protocol)
    for part in ("4 step sizes 2^(k/1) from 0.25 to 2", "seeds 0 to 1", "fresh seeds 100 to 102", "PyTorch DDP", "8 s"):
        assert part in text


@pytest.mark.slow
def test_figures_are_drawn(tmp_path):
    plan, record = whole(tmp_path, profiles=["equal", "half_slower"])
    rows = conclude(plan, record)
    names = [plot.name for plot in figures(plan, record, rows)]
    assert names[-1] == "speedup_asynchronous_scale" and len(names) == 5
    single, record = whole(tmp_path)
    plots = figures(single, record, conclude(single, record))
    assert [plot.name for plot in plots] == ["test_accuracy_over_seconds", "test_accuracy_over_samples", "throughput"]
    for plot in plots:
        for path in draw(plot, tmp_path):
            assert path.stat().st_size > 1000
