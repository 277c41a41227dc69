"""The numbers side by side, and the level that all runs reach."""

from __future__ import annotations

import pytest
from helpers.report_runs import ended_run, lost_row, make_run, metrics_row, summary_of, trace_row

from asgd.report.comparison import compare, table
from asgd.report.reading import read_records


def test_the_numbers_are_the_traces_and_the_summarys(tmp_path):
    rows = [trace_row(i) for i in range(4)]
    rows += [trace_row(4, action="discard", steps=0, step_size=None, reason="late")]
    rows += [trace_row(5, action="discard", steps=0, step_size=None, reason="cancelled", samples=0), lost_row(6)]
    metrics = [metrics_row(0), metrics_row(2, test_accuracy=0.8), metrics_row(4, test_accuracy=0.7, test_loss=None)]
    path = make_run(tmp_path / "run", rows, metrics, summary_of(rows))
    [run] = compare(read_records([path])).runs
    assert (run.versions, run.gradients, run.samples, run.lost) == (4, 5, 160, 1)
    assert run.discarded_share == pytest.approx(2 / 6)
    assert run.gradients_per_s == pytest.approx(5 / 2.0) and run.samples_per_s == pytest.approx(80.0)
    assert (run.delay_average, run.delay_max, run.concurrency) == (1.5, 1, 2)
    assert (run.final_accuracy, run.best_accuracy, run.final_loss) == (0.7, 0.8, pytest.approx(2 / 3))
    assert run.ended and not run.virtual and run.busy_fraction == 0.1


def test_the_level_is_the_best_that_all_evaluated_runs_reach(tmp_path):
    fast = [metrics_row(i, test_accuracy=0.25 * i, test_loss=2.0 - 0.5 * i) for i in range(4)]
    slow = [metrics_row(i, test_accuracy=(0.0, 0.2, 0.3, 0.5)[i], test_loss=2.0 - 0.25 * i) for i in range(4)]
    rows = [trace_row(i) for i in range(4)]
    paths = [
        make_run(tmp_path / name, rows, metrics, summary_of(rows))
        for name, metrics in (("fast", fast), ("slow", slow), ("never", []))
    ]
    compared = compare(read_records(paths))
    assert (compared.accuracy.value, compared.loss.value) == (0.5, 1.25)
    first, second, third = compared.runs
    assert first.to_accuracy == (0.5, 64, 2) and second.to_accuracy == (0.75, 96, 3) and third.to_accuracy is None
    assert first.to_loss == (0.5, 64, 2) and second.to_loss == (0.75, 96, 3)
    texts = dict(table(compared))
    assert texts["time to test accuracy 50%"] == ["0.5 s", "0.75 s", "–"]
    assert texts["samples to test accuracy 50%"] == ["64", "96", "–"]


def test_a_run_that_goes_on_is_compared_by_its_trace(tmp_path):
    paths = [ended_run(tmp_path / "one"), make_run(tmp_path / "two", [trace_row(i) for i in range(3)])]
    run = compare(read_records(paths)).runs[1]
    assert not run.ended and (run.versions, run.wall_s, run.busy_fraction) == (3, 1.0, None)
    assert run.delay_average == pytest.approx(2 / 3)


def test_rows_that_nobody_has_are_left_out(tmp_path):
    compared = compare(read_records([make_run(tmp_path / "run")]))
    assert not {"gradients/s", "last test accuracy", "server busy"} & {what for what, _ in table(compared)}
