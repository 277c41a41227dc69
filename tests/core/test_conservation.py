"""The conservation law and exactly-once under random joins, deaths, discards, duplicates and speeds, for every
method.
"""

from __future__ import annotations

import pytest
from helpers.core_driver import Driver, make_state
from hypothesis import given, settings
from hypothesis import strategies as st

from asgd.core.events import Arrival
from asgd.core.methods import METHODS

STEPS = st.lists(
    st.tuples(st.sampled_from(["answer"] * 8 + ["not finite", "leave", "join", "twice"]), st.integers(0, 7)),
    max_size=120,
)


def drive(method, rule, jobs_per_worker, steps):
    """Follow the script, skipping what is impossible; the driver validates the books after every event."""
    driver = Driver(make_state(method, rule, workers=2, jobs_per_worker=jobs_per_worker), gradient=lambda x, job: 0.0)
    driver.join(0, 1)
    answered = []
    for what, worker in steps:
        if what == "join" and worker not in driver.state.workers:
            driver.join(worker)
        elif what == "leave":
            driver.leave(worker)
        elif what == "twice" and answered:
            before = driver.state.to_dict()
            driver.handle(answered[worker % len(answered)])
            assert driver.state.to_dict() == before | {"refused": before["refused"] + 1}
        elif what in ("answer", "not finite") and driver.queue.get(worker) and worker in driver.state.workers:
            job = driver.answer(worker, finite=what == "answer")
            answered.append(Arrival(worker, job, driver.given[job][1], 1.0, 1, 1.0, driver.now_s))
    return driver


@pytest.mark.parametrize("method", METHODS)
@settings(deadline=None, max_examples=90)
@given(rule=st.sampled_from(["scale", "drop", "wu_adaptive_2"]), steps=STEPS, jobs_per_worker=st.integers(1, 3))
def test_books_hold_from_the_trace_alone(method, rule, steps, jobs_per_worker):
    jobs_per_worker = min(jobs_per_worker, METHODS[method].max_jobs_per_worker or jobs_per_worker)
    driver = drive(method, rule, jobs_per_worker, steps)
    rows, ledger = driver.rows, driver.state.ledger
    # Left and right of the law, recomputed from the rows and the versions at which this test saw jobs being given.
    outstanding = set(driver.given) - {row.job for row in rows}
    left = sum(row.delay for row in rows) + sum(ledger.version - driver.given[job][1] for job in outstanding)
    assert left == sum(row.concurrency - 1 for row in rows if row.steps)
    assert len({row.job for row in rows}) == len(rows), "every job ends once"
    version = 0
    for number, row in enumerate(rows):
        assert (row.arrival, row.version, row.delay) == (number, version, version - driver.given[row.job][1])
        version += row.steps
    assert version == ledger.version


@given(order=st.lists(st.integers(0, 4), max_size=200), workers=st.integers(1, 5))
@settings(deadline=None, max_examples=60)
def test_constant_concurrency_whatever_the_speeds(order, workers):
    """applied + in flight = T (C - 1)."""
    driver = Driver(make_state(workers=workers))
    driver.join(*range(workers))
    driver.answers(worker % workers for worker in order)
    total = sum(driver.column("delay")) + sum(driver.state.ledger.in_flight_delays())
    assert total == len(order) * (workers - 1)
    if order:
        assert driver.state.ledger.average_delay() == total / (len(order) + workers - 1)


def test_a_live_worker_is_never_left_without_work():
    """After any event of a begun asynchronous run every member has all of its jobs."""
    driver = Driver(make_state(workers=3, rule="drop", jobs_per_worker=2))
    driver.join(0, 1, 2)
    for step in range(300):
        worker = (step * step + step // 7) % 3
        if step % 37 == 36:
            driver.leave(worker)
            driver.join(worker)
        else:
            driver.answer(worker, finite=step % 11 != 0)
        assert all(driver.state.num_jobs(member) == 2 for member in driver.state.workers)
