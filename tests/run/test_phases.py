"""Where each job's time and the server's time went, in real runs: jobs that queue, ways, and the server's own split."""

from __future__ import annotations

from itertools import pairwise
from statistics import median

import msgspec
import pytest

from asgd.api import resume, simulate, train
from asgd.run.formats import ServerTimes
from asgd.run.ledger import check_trace

pytestmark = pytest.mark.cluster

CONFIG = {
    "seed": 1,
    "task": {"function": "quadratic", "options": {"dimension": 64}, "batch_size": 4},
    "method": {"step_size": 0.01, "jobs_per_worker": 2},
    "cluster": {"num_workers": 2, "speeds": {"profile": "half_slower", "seconds": 0.02, "factor": 3.0}},
    "budget": {"gradients": 80},
    "evaluation": {"evaluate": "after"},
}


def times_of(summary):
    return {name: getattr(summary.server, name) for name in ServerTimes.__struct_fields__}


def check_times(summary):
    """Six phases of at least nothing, which add up to no more than the training took."""
    times = times_of(summary)
    assert all(seconds >= 0.0 for seconds in times.values())
    assert sum(times.values()) <= summary.wall_s
    assert summary.server.busy_fraction == pytest.approx(1.0 - times["idle_s"] / summary.wall_s)


def test_where_the_time_of_two_jobs_per_worker_goes(tmp_path):
    run = train(CONFIG, run_dir=tmp_path / "run")
    assert check_trace(run.trace, run.summary.outstanding) == []
    for row in run.trace:
        down_s = row.started_s - row.queue_s - row.assigned_s
        up_s = row.time_s - row.started_s - row.compute_s - row.wait_s
        assert min(down_s, row.queue_s, up_s) >= -1e-3
    for worker, seconds in ((0, 0.02), (1, 0.06)):
        rows = [row for row in run.trace if row.worker == worker]
        assert rows[0].assigned_s == rows[1].assigned_s == 0.0, "the run begins when its first jobs are given"
        queued_s = [row.queue_s for row in rows[1:]]
        assert queued_s[0] > 0.0, "it was given with the first"
        assert median(queued_s) > 0.5 * seconds, "there is one ahead"
        for answered, after in zip(rows, rows[2:], strict=False):
            assert after.assigned_s == answered.time_s, "before anything is done about the arrival that it answers"
        assert min(row.compute_s + row.wait_s for row in rows) > 0.9 * seconds
        for before, after in pairwise(rows):
            assert after.started_s >= before.started_s + before.compute_s + before.wait_s - 1e-6
    check_times(run.summary)
    times = times_of(run.summary)
    assert all(times.values()), "each phase happened"
    assert times["idle_s"] > 0.5 * run.summary.wall_s, "20 ms a job: the server waits"


def test_a_resumed_run_goes_on_counting(tmp_path):
    first = train(CONFIG, run_dir=tmp_path / "run").summary
    second = resume(tmp_path / "run", overrides=["budget.gradients=160"])
    check_times(second.summary)
    before, after = times_of(first), times_of(second.summary)
    assert all(after[name] > before[name] for name in before)
    lost = [row for row in second.trace if row.action == "lost"]
    assert lost and all(row.started_s is None and 0.0 <= row.assigned_s <= row.time_s for row in lost)
    later = [row for row in second.trace if row.arrival > lost[-1].arrival]
    assert all(row.started_s >= row.assigned_s - 1e-3 >= first.wall_s - 1e-3 for row in later)


def test_in_virtual_time_nothing_is_said_of_the_server(tmp_path):
    run = simulate(CONFIG, run_dir=tmp_path / "run")
    assert times_of(run.summary) == dict.fromkeys(ServerTimes.__struct_fields__, 0.0)
    assert msgspec.to_builtins(run.summary)["server"]["busy_fraction"] == 0.0
    assert any(row.queue_s > 0.0 for row in run.trace)
