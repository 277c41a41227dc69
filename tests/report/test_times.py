"""Where time went: the parts drawn add up to the whole, and to no more."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from helpers.report_runs import ended_run, make_run, summary_of, trace_row

from asgd.report.plots import draw
from asgd.report.reading import read_records
from asgd.report.times import JobTimes, server_parts, time_exhibits


def test_the_ways_of_a_job_are_what_its_queue_and_its_computation_leave(tmp_path):
    [record] = read_records([ended_run(tmp_path / "run")])
    times = JobTimes.of(record, record.trace.is_timed_R)
    assert np.allclose(times.down_s, 0.04) and np.allclose(times.up_s, 0.05)


@pytest.mark.parametrize(
    ("apply_s", "ahead_s", "apply_ms", "down_ms", "up_ms"),
    [
        (0.0, 0.0, 0.0, 40.0, 50.0),  # as in virtual time
        (0.01, 0.0, 10.0, 30.0, 50.0),
        (0.2, 0.0, 40.0, 0.0, 50.0),  # a mean over gradients of which most caused a larger step than these jobs'
        (0.01, -0.06, 0.0, 0.0, 90.0),  # the worker's clock is behind: the ways are -20 and 110
        (0.01, 0.07, 10.0, 80.0, 0.0),  # ahead: they are 110 and -20
    ],
)
def test_a_bar_is_as_long_as_the_mean_from_giving_a_job_to_its_gradient(
    tmp_path, apply_s, ahead_s, apply_ms, down_ms, up_ms
):
    rows = [trace_row(i, started_s=0.25 * i + 0.05 + ahead_s) for i in range(8)]
    summary = summary_of(rows)
    server = msgspec.structs.replace(summary.server, apply_s=8 * apply_s)
    [record] = read_records([make_run(tmp_path / "run", rows, [], msgspec.structs.replace(summary, server=server))])
    picture = time_exhibits([record])[1].picture
    parts = dict(picture.parts)
    for worker in (0, 1):
        cycle_s = np.mean([row.time_s - row.assigned_s for row in rows if row.worker == worker])
        assert sum(values[worker] for values in parts.values()) == pytest.approx(1e3 * cycle_s)
        drawn = [parts[name][worker] for name in ("apply", "transfer to the worker", "transfer to the server")]
        assert drawn == pytest.approx([apply_ms, down_ms, up_ms], abs=1e-6)


def test_each_worker_has_a_bar_of_the_means_of_its_jobs(tmp_path):
    rows = [trace_row(i, compute_s=0.2 + 0.1 * (i % 2), wait_s=0.0) for i in range(8)]
    [record] = read_records([make_run(tmp_path / "run", rows, [], summary_of(rows))])
    picture = time_exhibits([record])[1].picture
    assert picture.rows == ["worker 0", "worker 1"]
    parts = dict(picture.parts)
    assert parts["computing"] == pytest.approx([200.0, 300.0]) and picture.x_label == "mean per job (ms)"
    assert parts["apply"] == pytest.approx([1e3 * record.summary.server.apply_s / 8] * 2)
    svg = draw(picture, tmp_path)[1].read_text()
    assert "<!-- computing -->" in svg and "<!-- waiting (emulated) -->" not in svg


def test_the_servers_parts_add_up_to_the_training_time(tmp_path):
    [record] = read_records([ended_run(tmp_path / "run")])
    parts = server_parts(record)
    assert sum(parts.values()) == pytest.approx(record.wall_s) and parts["other"] == pytest.approx(0.1 * record.wall_s)
    exhibit = time_exhibits([record])[0]
    assert "idle 50.0%" in exhibit.caption
    assert sum(values[0] for _, values in exhibit.picture.parts) == pytest.approx(100.0)


def test_of_several_runs_each_has_a_bar(tmp_path):
    records = read_records([ended_run(tmp_path / name) for name in ("one", "two")])
    for exhibit in time_exhibits(records):
        assert exhibit.picture.rows == ["one", "two"]
