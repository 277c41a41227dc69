"""The event queue: who finishes when, against schedules worked out by hand; queues, cancelling, limits of time."""

from __future__ import annotations

from math import inf

import pytest
from helpers.core_driver import make_state

from asgd.core.budget import Budget
from asgd.core.events import Stop
from asgd.core.methods import METHODS
from asgd.errors import RunError
from asgd.sim.virtual import VirtualCluster


def run(durations, budget, method="asynchronous", **options):
    state = make_state(method, workers=len(durations), budget=budget, **options)
    rows = []
    cluster = VirtualCluster(state, len(durations), lambda w, job, now: now + durations[w], on_row=rows.append)
    end_s = cluster.run()
    state.validate()
    return rows, end_s, state


def test_two_speeds_by_hand():
    rows, end_s, _ = run([1.0, 2.5], Budget(versions=7))
    assert [(row.time_s, row.worker) for row in rows] == [
        (1.0, 0), (2.0, 0), (2.5, 1), (3.0, 0), (4.0, 0), (5.0, 1), (5.0, 0),
    ]  # fmt: skip
    assert [row.delay for row in rows] == [0, 0, 2, 1, 0, 2, 1]
    assert end_s == 5.0


def test_minibatch_takes_the_slowest_workers_time():
    rows, end_s, state = run([1.0, 2.0, 4.0], Budget(versions=5), "minibatch")
    assert end_s == 20.0 and state.version == 5
    assert [row.time_s for row in rows if row.steps] == [4.0, 8.0, 12.0, 16.0, 20.0]


def test_throughput_of_asynchronous_sgd_is_the_sum_of_the_speeds():
    rows, _, _ = run([1.0, 1.0, 4.0, 4.0], Budget(time_s=1000.0))
    assert len(rows) == pytest.approx(1000 * (1 + 1 + 0.25 + 0.25), abs=4)


def test_time_ends_between_arrivals():
    rows, end_s, state = run([1.0, 3.0], Budget(time_s=2.5))
    assert [row.time_s for row in rows] == [1.0, 2.0] and end_s == 2.5
    assert state.finished.reason == "budget used up: time_s = 2.5"


def test_two_jobs_per_worker_are_worked_off_one_after_the_other():
    rows, _, _ = run([1.0, 1.0], Budget(versions=6), jobs_per_worker=2)
    assert [row.time_s for row in rows] == [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]
    assert [row.delay for row in rows] == [0, 1, 2, 3, 3, 3]


@pytest.mark.parametrize("method", METHODS)
def test_where_a_jobs_time_went_adds_up_exactly(method):
    """Times that are sums of powers of two: no rounding, so equality is meant."""
    jobs = 1 if METHODS[method].max_jobs_per_worker == 1 else 2
    rows, _, _ = run([1.0, 2.5, 0.75], Budget(gradients=60), method, jobs_per_worker=jobs)
    ended_s, given = {}, {}
    for row in rows:
        given.setdefault(row.worker, []).append(row.assigned_s)
        if row.started_s is None:
            assert row.reason == "cancelled" and row.queue_s == 0.0
            continue
        assert row.started_s - row.queue_s == row.assigned_s, "its way to the worker takes no time"
        assert row.started_s + row.compute_s + row.wait_s == row.time_s, "nor does the way back"
        assert row.compute_s == [1.0, 2.5, 0.75][row.worker]
        assert row.queue_s >= 0.0
        assert row.started_s >= ended_s.get(row.worker, 0.0), "one job at a time"
        ended_s[row.worker] = row.time_s
    assert all(times == sorted(times) for times in given.values()), "first in, first out"
    queued = [row for row in rows if row.queue_s > 0.0]
    assert bool(queued) == (jobs == 2 or method == "random_assignment")


def test_the_second_of_two_jobs_waits_for_the_first():
    rows, _, _ = run([1.0], Budget(versions=4), jobs_per_worker=2)
    assert [(row.assigned_s, row.queue_s, row.started_s) for row in rows] == [
        (0.0, 0.0, 0.0),
        (0.0, 1.0, 1.0),
        (1.0, 1.0, 2.0),
        (2.0, 1.0, 3.0),
    ]


def test_jobs_that_never_end_run_into_the_limit_or_a_stop():
    def end_s(budget, stop=None):
        state = make_state(workers=2, budget=budget)
        cluster = VirtualCluster(state, 2, lambda w, job, now: now + 1.0 if job < 4 else inf, stop=stop)
        return cluster.run(), state.finished.reason, state.version

    assert end_s(Budget(time_s=9.0)) == (9.0, "budget used up: time_s = 9.0", 4)
    assert end_s(Budget(versions=9), Stop("interrupted", 2.5)) == (2.5, "interrupted", 4)
    assert end_s(Budget(time_s=9.0), Stop("interrupted", 1.5)) == (2.0, "interrupted", 4)
    assert end_s(Budget(time_s=9.0), Stop("the end", 9.5)) == (9.0, "budget used up: time_s = 9.0", 4)
    assert end_s(Budget(versions=3), Stop("interrupted", 2.5)) == (2.0, "budget used up: versions = 3", 3)


def test_nobody_left_with_work_is_an_error():
    state = make_state(workers=1, budget=Budget(versions=5))
    with pytest.raises(RunError, match="left all 1 workers without work"):
        VirtualCluster(state, 1, lambda worker, job, now: float("inf")).run()
