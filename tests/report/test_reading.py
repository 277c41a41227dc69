"""A run's record as arrays: the rows' values, NaN for what they don't have."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from helpers.report_runs import ended_run, lost_row, make_run, trace_row

from asgd.errors import RunError
from asgd.report.reading import Trace, read_records
from asgd.run.records import JOBS_PER_INCARNATION


def test_the_columns_are_the_rows():
    rows = [
        trace_row(0, loss=None), trace_row(1, action="accumulate", steps=0, step_size=None), lost_row(2, reason="left"),
        trace_row(3, action="discard", reason="late", step_size=None, job=JOBS_PER_INCARNATION),
    ]  # fmt: skip
    trace = Trace.of(rows)
    assert len(trace) == 4 and trace.worker_R.tolist() == [0, 1, 0, 1]
    assert np.isnan(trace.loss_R).tolist() == [True, False, True, False]
    assert np.isnan(trace.step_size_R).tolist() == [False, True, True, True]
    assert trace.is_used_R.tolist() == [True, True, False, False]
    assert trace.is_accumulated_R.tolist() == [False, True, False, False]
    assert trace.has_arrived_R.tolist() == [True, True, False, True]
    assert trace.is_timed_R.tolist() == [True, True, False, True]
    assert trace.samples_seen_R.tolist() == [32, 64, 64, 96]
    assert trace.incarnation_R.tolist() == [0, 0, 0, 1]
    assert trace.reasons == {"left": 1, "late": 1}


def test_a_damaged_summary_is_an_error_and_a_missing_one_a_warning(tmp_path):
    path = make_run(tmp_path / "going", [trace_row(0)])
    [record] = read_records([path])
    assert record.summary is None and "has not ended" in record.warnings[0] and record.wall_s == 0.5
    (path / "summary.json").write_text("{")
    with pytest.raises(RunError, match="is damaged"):
        read_records([path])


def test_a_torn_last_line_is_told(tmp_path):
    path = ended_run(tmp_path / "run")
    with (path / "trace.jsonl").open("a") as file:
        file.write('{"arrival"')
    [record] = read_records([path])
    assert len(record.trace) == 40 and "torn" in record.notes[0]


def test_a_report_needs_no_torch(tmp_path):
    """It must not take seconds before the first picture, nor memory that a trainer beside it needs."""
    path = ended_run(tmp_path / "run")
    code = f"import sys, asgd; asgd.write_report({str(path)!r}, figures=False); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.stdout.strip() == "False", done.stderr
