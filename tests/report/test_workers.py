"""Shares and effective step sizes of the workers: of the summary, and without one of the trace."""

from __future__ import annotations

import pytest
from helpers.report_runs import ended_run, make_run, summary_of, trace_row

from asgd.report.reading import read_records
from asgd.report.workers import effective_steps, shares, weights, worker_exhibits


def rows_of_unequal_workers():
    """Worker 0 has three gradients with steps of 0.2, worker 1 one with 0.1."""
    return [trace_row(i, worker=i // 3, step_size=0.2 - 0.1 * (i // 3)) for i in range(4)]


@pytest.mark.parametrize("ended", [True, False])
def test_shares_weights_and_effective_steps(ended, tmp_path):
    rows = rows_of_unequal_workers()
    [record] = read_records([make_run(tmp_path / "run", rows, [], summary_of(rows) if ended else None)])
    assert shares(record) == {0: 0.75, 1: 0.25}
    assert weights(record) == {0: pytest.approx(6 / 7), 1: pytest.approx(1 / 7)}
    # Relative to the mean step of 0.7 / 4 = 0.175.
    assert effective_steps(record) == {0: pytest.approx(0.2 / 0.175), 1: pytest.approx(0.1 / 0.175)}
    share, effective = worker_exhibits([record])
    assert [line.label for line in share.picture.lines] == ["of the gradients used", "of the steps (weight)"]
    assert share.picture.lines[0].y == [75.0, 25.0] and share.picture.marks[0].place == 50.0
    assert "That mean is 0.175." in effective.caption


def test_many_workers_are_dots_and_few_bars(tmp_path):
    for count, style in ((32, "bars"), (33, "dots")):
        rows = [trace_row(i, worker=i) for i in range(count)]
        record = read_records([make_run(tmp_path / str(count), rows, [], summary_of(rows))])[0]
        assert {line.style for line in worker_exhibits([record])[0].picture.lines} == {style}


def test_bars_of_runs_with_other_workers_stand_at_the_same_names(tmp_path):
    rows = [trace_row(i, worker=2) for i in range(3)]
    paths = [ended_run(tmp_path / "two"), make_run(tmp_path / "third", rows, [], summary_of(rows))]
    two, third = worker_exhibits(read_records(paths))[0].picture.lines
    assert two.x == third.x == ["0", "1", "2"] and third.y == [0.0, 0.0, 100.0]


def test_different_data_are_warned_of(tmp_path):
    different = ["task.partition=dirichlet", "task.partition_options.alpha=0.1"]
    records = [read_records([ended_run(tmp_path / name, overrides=o)])[0] for name, o in (("a", []), ("b", different))]
    assert "unequal shares bias nothing" in worker_exhibits(records[:1])[0].caption
    assert "the result is biased" in worker_exhibits(records[1:])[0].caption
    assert records[0].warnings == [] and "biased toward the data of fast workers" in records[1].warnings[0]
