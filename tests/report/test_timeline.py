"""The timeline: which window and which workers it shows, and that its blocks are where the trace says."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.report_runs import lost_row, make_run, summary_of, trace_row

from asgd.report.plots import draw
from asgd.report.reading import read_records
from asgd.report.timeline import MOST_RUNS, timeline_exhibits
from asgd.report.times import evenly


def jobs(workers, each, seconds=1.0):
    """Every worker computes `each` jobs one after the other; rows in the order of arrival."""
    ends = sorted((seconds * (job + 1) + 1e-3 * worker, worker) for worker in range(workers) for job in range(each))
    return [
        trace_row(i, worker=worker, time_s=end, assigned_s=end - seconds, queue_s=0.0, started_s=end - 0.9 * seconds,
                  compute_s=0.5 * seconds, wait_s=0.3 * seconds)
        for i, (end, worker) in enumerate(ends)
    ]  # fmt: skip


def exhibit_of(path, rows):
    [exhibit] = timeline_exhibits(read_records([make_run(path, rows, [], summary_of(rows))]))
    return exhibit


@pytest.mark.parametrize(("workers", "lanes"), [(1, 1), (4, 4), (64, 64), (200, 64)])
def test_single_jobs_can_be_seen_whatever_the_number_of_workers(workers, lanes, tmp_path):
    exhibit = exhibit_of(tmp_path / "run", jobs(workers, 100))
    picture = exhibit.picture
    assert len(picture.lanes) == lanes and picture.lanes[0] == 0 and picture.lanes[-1] == workers - 1
    low, high = picture.window
    assert 12 <= high - low <= 15.1 and 0 <= low < high <= 100.3
    assert 12 * lanes <= len(picture.lane_J) <= 18 * lanes
    assert f"From {low:.1f} s to {high:.1f} s of 100" in exhibit.caption
    assert f"{len(picture.lane_J):,} of {100 * workers:,} jobs" in exhibit.caption
    assert ("evenly spaced" in exhibit.caption) == (workers > 64)


def test_blocks_lie_where_the_trace_says(tmp_path):
    rows = [*jobs(2, 3), lost_row(6, time_s=3.5, worker=1)]
    picture = exhibit_of(tmp_path / "run", rows).picture
    assert picture.window == (0.0, 3.5) and picture.lost == [(1, 3.5)]
    given = [(row.worker, row.assigned_s, row.started_s, row.time_s, row.delay) for row in rows[:-1]]
    drawn = zip(*(array.tolist() for array in (picture.lane_J, picture.given_s_J, picture.started_s_J,
                  picture.arrived_s_J, picture.delay_J)), strict=True)  # fmt: skip
    assert list(drawn) == given
    assert np.allclose(picture.computed_s_J - picture.started_s_J, 0.5)
    assert np.allclose(picture.waited_s_J - picture.computed_s_J, 0.3)


def test_all_that_can_happen_is_in_the_legend(tmp_path):
    rows = jobs(2, 3)
    rows[2].queue_s = 0.05
    rows[3] = trace_row(3, worker=1, time_s=rows[3].time_s, started_s=1.2, assigned_s=1.0, action="discard", steps=0,
                        step_size=None)  # fmt: skip
    svg = draw(exhibit_of(tmp_path / "run", [*rows, lost_row(6, time_s=3.5)]).picture, tmp_path)[1].read_text()
    for label in ("computing (colour: delay)", "waiting (emulated)", "to the worker", "to the server",
                  "a job is queued", "discarded", "lost", "worker 0", "worker 1", "delay (updates)"):  # fmt: skip
        assert f"<!-- {label} -->" in svg


def test_of_many_runs_the_first_have_a_timeline_and_the_others_are_named(tmp_path):
    rows = jobs(1, 2)
    records = read_records([make_run(tmp_path / f"run{i}", rows, [], summary_of(rows)) for i in range(MOST_RUNS + 2)])
    exhibits = timeline_exhibits(records)
    assert [each.picture.name for each in exhibits[:-1]] == [f"timeline_{i + 1}" for i in range(MOST_RUNS)]
    assert exhibits[-1].picture is None and "run6, run7" in exhibits[-1].caption


def test_evenly_spaced_workers():
    assert evenly(np.arange(5), 5) == [0, 1, 2, 3, 4]
    chosen = evenly(np.arange(100), 10)
    assert chosen == [0, 11, 22, 33, 44, 55, 66, 77, 88, 99]
