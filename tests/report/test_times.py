"""Where time went: the parts add up to the whole."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.report_runs import ended_run, make_run, summary_of, trace_row

from asgd.report.plots import draw
from asgd.report.reading import read_records
from asgd.report.times import JobTimes, server_parts, time_exhibits


def test_the_parts_of_a_job_add_up_to_its_time(tmp_path):
    [record] = read_records([ended_run(tmp_path / "run")])
    rows_R = record.trace.is_timed_R
    times = JobTimes.of(record, rows_R)
    assert np.allclose(sum(times), record.trace.time_s_R[rows_R] - record.trace.assigned_s_R[rows_R])
    assert np.allclose(times.down_s, 0.04) and np.allclose(times.up_s, 0.05)


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
