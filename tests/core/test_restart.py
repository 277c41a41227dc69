"""Runs that end, are saved and go on with other workers, and workers that die all at once: nothing hangs, no step is
made with part of a round.
"""

from __future__ import annotations

import json
import random

import pytest
from helpers.core_driver import Driver, make_state

from asgd.core.budget import Budget
from asgd.core.events import Resume
from asgd.core.methods import METHODS

RESTARTED = [
    *((name, {}) for name in METHODS),
    ("bounded_staleness", {"s": 0}),
    ("m_synchronous", {"m": 2}),
    ("m_synchronous", {"m": 3, "cancel": False}),
    ("malenia", {"batch": 9}),
    ("random_assignment", {"concurrency": 6, "order": "shuffled"}),
    ("rennala", {"batch": 5}),
    ("ringmaster", {"R": 2, "cancel": True}),
    ("throttle", {"q": float("inf")}),
]


def start(method, workers, **options):
    driver = Driver(make_state(method, workers=workers, **options), gradient=lambda x, job: 0.01 * x)
    driver.join(*range(workers))
    return driver


def restart(driver, method, workers, **options):
    """A new server with the state of `driver` as a checkpoint holds it, and these workers."""
    again = Driver(make_state(method, workers=len(workers), **options), driver.x, driver.gradient)
    again.slots, again.now_s = dict(driver.slots), driver.now_s
    again.state.restore(json.loads(json.dumps(driver.state.to_dict())), first_job=1000)
    again.handle(Resume(again.tick()))
    again.join(*workers)
    return again


def answer_somebody(driver, chance):
    """One of those that have work answers; returns who."""
    busy = [worker for worker, jobs in driver.queue.items() if jobs and worker in driver.state.workers]
    assert busy, "nobody has work"
    worker = chance.choice(busy)
    driver.answer(worker)
    return worker


@pytest.mark.parametrize(("method", "options"), RESTARTED, ids=str)
@pytest.mark.parametrize("gradients", [4, 5, 6, 7, 10])
def test_a_run_that_its_budget_ended_goes_on_without_the_worker_that_was_last(method, options, gradients):
    """The end takes the job of that worker and gives it no other, so no job of it is lost at the restart."""
    driver = start(method, 4, method_options=options, budget=Budget(gradients=gradients))
    chance, last = random.Random(gradients), None
    while driver.finished is None:
        last = answer_somebody(driver, chance)
    others = [worker for worker in range(4) if worker != last]
    for workers in (others, others[:1], [last], [8, 9]):
        again = restart(driver, method, workers, method_options=options)
        before = 0
        for arrival in range(1, 501):
            answer_somebody(again, chance)
            if arrival % 100 == 0:
                assert again.state.version > before, "it steps no more"
                before = again.state.version
        assert {again.given[row.job][0] for row in again.rows[-200:]} == set(workers), "everybody has work"


def test_rescaled_forgets_the_time_of_a_worker_that_does_not_come_back():
    driver = start("rescaled", 2, budget=Budget(gradients=3))
    driver.answers([0, 1, 1])
    again = restart(driver, "rescaled", [0])
    again.answers([0, 0])
    assert list(again.state.method.counts) == [0]
    assert again.state.method.sum_of_means == again.state.method.ticks[0] // 2
