"""Runs in a chosen order: what the chooser sees, queues, cancelled jobs, and that the law holds for any order."""

from __future__ import annotations

import pytest
from helpers.core_driver import make_state
from hypothesis import given
from hypothesis import strategies as st

from asgd.core.budget import Budget
from asgd.run.ledger import check_trace
from asgd.sim.ordered import run_order


def run(state, workers, choose):
    rows = []
    run_order(state, workers, choose, on_row=rows.append)
    state.validate()
    return rows


def scripted(order):
    arrivals = iter(order)
    return lambda jobs, version: next(arrivals)


def test_delays_of_an_order_by_hand():
    state = make_state(workers=3, budget=Budget(versions=6))
    rows = run(state, 3, scripted([0, 0, 2, 1, 0, 2]))
    assert [row.worker for row in rows] == [0, 0, 2, 1, 0, 2]
    assert [row.delay for row in rows] == [0, 0, 2, 3, 2, 2]
    assert [row.time_s for row in rows] == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


def test_the_chooser_sees_every_job_with_its_version():
    seen = []

    def choose(jobs, version):
        seen.append((version, {worker: list(queue) for worker, queue in jobs.items()}))
        return 1

    run(make_state(workers=2, budget=Budget(versions=2)), 2, choose)
    assert seen == [(0, {0: [(0, 0)], 1: [(1, 0)]}), (1, {0: [(0, 0)], 1: [(2, 1)]})]


def test_a_workers_oldest_job_arrives_first():
    state = make_state(workers=1, budget=Budget(versions=4), jobs_per_worker=2)
    rows = run(state, 1, scripted([0] * 4))
    assert [row.job for row in rows] == [0, 1, 2, 3] and [row.delay for row in rows] == [0, 1, 1, 1]


def test_a_worker_that_waits_is_not_offered():
    offered = []

    def choose(jobs, version):
        offered.append(sorted(jobs))
        return max(jobs)

    run(make_state("minibatch", workers=3, budget=Budget(versions=2)), 3, choose)
    assert offered == [[0, 1, 2], [0, 1], [0]] * 2


def test_a_worker_without_a_job_cannot_be_chosen():
    with pytest.raises(KeyError):
        run(make_state("minibatch", workers=2, budget=Budget(versions=2)), 2, scripted([0, 0]))


def test_a_cancelled_job_never_arrives():
    state = make_state("ringmaster", workers=2, budget=Budget(versions=9), method_options={"R": 3, "cancel": True})
    rows = run(state, 2, lambda jobs, version: 0)
    cancelled = [row for row in rows if row.reason == "cancelled"]
    assert [(row.worker, row.delay) for row in cancelled] == [(1, 3), (1, 3)]
    assert check_trace(rows, state.ledger.in_flight_delays()) == []


@given(
    st.sampled_from(["asynchronous", "random_assignment", "minibatch", "ringmaster", "rennala"]),
    st.integers(1, 5),
    st.randoms(use_true_random=False),
)
def test_the_books_balance_in_any_order(method, workers, random):
    options = {"R": 2, "cancel": True} if method == "ringmaster" else {}
    state = make_state(method, workers=workers, budget=Budget(gradients=40), method_options=options)
    rows = run(state, workers, lambda jobs, version: random.choice(sorted(jobs)))
    assert state.gradients == 40 and check_trace(rows, state.ledger.in_flight_delays()) == []


def test_a_worker_whose_jobs_were_cancelled_is_not_offered():
    """A cancelled queued job leaves nothing behind, also where its worker gets no other one."""
    offered = []

    def choose(jobs, version):
        offered.append({worker: len(queue) for worker, queue in jobs.items()})
        return min(jobs)

    state = make_state("throttle", workers=3, budget=Budget(versions=20))
    state.method.arrived = cancel_all_others(state.method.arrived)
    run_order(state, 3, choose)
    assert offered == [{0: 1, 1: 1, 2: 1}] + [{0: 1}] * 19


def cancel_all_others(arrived):
    """Of a method: everybody else's job is cancelled, and only who answered gets another."""

    def decide(view, answer):
        cancel = [job.job for job in view.outstanding]
        return arrived(view, answer)._replace(cancel=cancel, assign=(answer.worker,))

    return decide
