"""The figures of delays say what the trace does, and their marks what the summary does."""

from __future__ import annotations

import pytest
from helpers.report_runs import ended_run, lost_row, make_run, summary_of, trace_row

from asgd.report.delays import MOST_BINS, MOST_DOTS, delay_exhibits, histogram
from asgd.report.reading import read_records
from asgd.run.records import RunDirectory


def discard(arrival, delay):
    return trace_row(arrival, delay=delay, action="discard", steps=0, step_size=None, reason="late")


def run_of(path, rows, **changes):
    return read_records([make_run(path, rows, [], summary_of(rows, **changes))])[0]


@pytest.mark.parametrize("largest", [0, 1, 7, MOST_BINS - 1, MOST_BINS, 1000])
def test_a_histogram_counts_every_gradient_once(largest, tmp_path):
    rows = [trace_row(i, delay=i * largest // 49) for i in range(50)]
    rows += [discard(50, largest), discard(51, 0), lost_row(52, delay=largest)]
    record = run_of(tmp_path / "run", rows)
    bins = histogram(record)
    assert sum(bins.used) == 50 and sum(bins.discarded) == 2
    assert len(bins.edges) == len(bins.used) + 1 <= MOST_BINS + 1
    for low, high, used in zip(bins.edges, bins.edges[1:], bins.used, strict=False):
        assert used == sum(low <= row.delay < high for row in rows if row.action == "apply")


def test_the_marks_are_the_summarys(tmp_path):
    path = ended_run(tmp_path / "run")
    [record] = read_records([path])
    with RunDirectory.open(path) as directory:
        summary = directory.read_summary()
    plot = delay_exhibits([record])[0].picture
    places = [mark.place for mark in plot.marks]
    assert places == [summary.concurrency, summary.delay.average, summary.delay.max]
    assert [mark.label for mark in plot.marks] == ["concurrency τ_C = 2", "average 1.50", "largest 1"]


def test_the_stack_of_a_histogram_is_used_then_discarded(tmp_path):
    record = run_of(tmp_path / "run", [trace_row(0, delay=0), trace_row(1, delay=2), discard(2, 2)])
    used, discarded = delay_exhibits([record])[0].picture.lines
    assert used.y == [1, 0, 1] and discarded.low == used.y and discarded.y == [1, 0, 2]


def test_histograms_of_several_runs_are_shares_over_the_same_bins(tmp_path):
    paths = [ended_run(tmp_path / "one", 10), ended_run(tmp_path / "two", 40)]
    plot = delay_exhibits(read_records(paths))[0].picture
    first, second = plot.lines
    assert first.x == second.x
    assert sum(first.y) == pytest.approx(100.0) == sum(second.y)


def test_few_delays_are_dots_and_many_a_band(tmp_path):
    few = run_of(tmp_path / "few", [trace_row(0), discard(1, 3), lost_row(2)])
    _, over_time, steps = delay_exhibits([few])
    assert {(line.label, line.style): len(line.x) for line in over_time.picture.lines} == {
        ("used", "dots"): 1, ("discarded or cancelled", "dots"): 1, ("mean", "line"): 2,
    }  # fmt: skip
    assert steps.picture.lines[0].y == [0.1]
    many = run_of(tmp_path / "many", [trace_row(i, delay=i % 5) for i in range(MOST_DOTS + 1)])
    _, over_time, _ = delay_exhibits([many])
    band, mean = over_time.picture.lines
    assert band.style == "band" and min(band.low) == 0 and max(band.high) == 4 and mean.style == "line"
    assert "Each point of the line is the mean of up to" in over_time.caption
