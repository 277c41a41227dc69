"""Runs that end, are saved and go on with other workers, and workers that die all at once: nothing hangs, no step is
made with part of a round.
"""

from __future__ import annotations

import json
import random

import pytest
from helpers.core_driver import Driver, make_state

from asgd.core.actions import Assign
from asgd.core.budget import Budget
from asgd.core.events import Join, Leave, Resume
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
        for arrival in range(1, 151):
            answer_somebody(again, chance)
            if arrival % 50 == 0:
                assert again.state.version > before, "it steps no more"
                before = again.state.version
        assert {again.given[row.job][0] for row in again.rows[-100:]} == set(workers), "everybody has work"


def test_rescaled_forgets_the_time_of_a_worker_that_does_not_come_back():
    driver = start("rescaled", 2, budget=Budget(gradients=3))
    driver.answers([0, 1, 1])
    again = restart(driver, "rescaled", [0])
    again.answers([0, 0])
    assert list(again.state.method.counts) == [0]
    assert again.state.method.sum_of_means == again.state.method.ticks[0] // 2


# Those that step with what several answers gave, and how many of four workers' first answers make no step yet.
ROUNDS = [
    ("minibatch", {}, 3),
    ("m_synchronous", {}, 3),
    ("m_synchronous", {"m": 3}, 2),
    ("m_synchronous", {"m": 3, "cancel": False}, 2),
    ("malenia", {}, 3),
    ("malenia", {"batch": 9}, 3),
    ("rennala", {}, 3),
    ("fedbuff", {"buffer": 4}, 3),
]


@pytest.mark.parametrize(("method", "options", "num_in"), ROUNDS, ids=str)
@pytest.mark.parametrize("how", ["restart", "deaths"])
def test_a_round_is_not_closed_while_nobody_is_there(method, options, num_in, how):
    """Jobs are lost one by one then: a step would be made with part of the round, and Malenia's would be biased."""
    driver = start(method, 4, method_options=options)
    driver.gradient = lambda x, job: 1.0
    driver.answers(range(num_in))
    if how == "restart":
        again = restart(driver, method, [0, 1, 2, 3], method_options=options)
        lost = again.rows
    else:
        again, before = driver, len(driver.rows)
        for worker in range(4):  # who has answered is the first to go
            driver.leave(worker)
        lost = list(driver.rows[before:])
        driver.join(0, 1, 2, 3)
    assert again.state.version == 0 and again.x == 1.0
    assert {row.action for row in lost} == {"lost"} and not any(row.steps for row in lost)
    chance = random.Random(0)
    while again.state.version == 0:
        answer_somebody(again, chance)
    assert again.x == pytest.approx(0.9), "a mean of all gradients of the round, which are all 1"
    num_used = sum(row.action == "accumulate" for row in again.rows) + (num_in if how == "restart" else 0)
    assert again.state.ledger.num_used == num_used > num_in
    assert sum(stats.weight for stats in again.state.ledger.per_worker.values()) == pytest.approx(0.1)
    for _ in range(200):
        answer_somebody(again, chance)
    assert again.state.version > 10
    assert {again.given[row.job][0] for row in again.rows[-100:]} == {0, 1, 2, 3}


@pytest.mark.parametrize(("method", "options"), RESTARTED, ids=str)
@pytest.mark.parametrize("arrivals", [0, 1, 2, 3, 5, 8, 9])
def test_all_die_at_once_and_come_back(method, options, arrivals):
    driver = start(method, 4, method_options=options)
    chance = random.Random(arrivals)
    for _ in range(arrivals):
        answer_somebody(driver, chance)
    for workers in ([0, 1, 2, 3], [2], [2, 1, 7]):
        for worker in list(driver.state.workers):
            driver.leave(worker)
        driver.join(*workers)
        before = driver.state.version
        for _ in range(100):
            answer_somebody(driver, chance)
        assert driver.state.version > before
        assert {driver.given[row.job][0] for row in driver.rows[-50:]} == set(workers)


def test_a_restart_does_not_forget_whose_gradients_were_not_finite():
    """Worker 0 is broken before the restart: the run ends when 1 is too, as without one."""
    driver = start("asynchronous", 2)
    driver.answer(1)
    for _ in range(19):
        driver.answer(0, finite=False)
    again = restart(driver, "asynchronous", [0, 1])
    again.answer(1, finite=False)
    assert again.finished.reason == "diverged: the last 20 gradients were not finite"


class Diary(Driver):
    """A driver that writes down every event, what the core answered and the state after it, as JSON."""

    def __init__(self, state, **options):
        super().__init__(state, **options)
        self.events, self.answers_given, self.saved = [], [], [json.dumps(state.to_dict())]
        handle = state.handle

        def noted(event):
            actions = handle(event)
            self.events.append(event)
            self.answers_given.append(actions)
            self.saved.append(json.dumps(state.to_dict()))
            return actions

        state.handle = noted


@pytest.mark.parametrize(("method", "options"), RESTARTED, ids=str)
@pytest.mark.parametrize("rule", ["scale", "wu_adaptive_2"])
def test_a_state_that_is_kept_goes_on_as_if_nothing_had_happened(method, options, rule):
    """Wherever a run is broken off, also before it has begun, while workers wait, and after its end."""
    settings = {"workers": 3, "method_options": options, "rule": rule, "budget": Budget(gradients=60)}
    diary = Diary(make_state(method, **settings), gradient=lambda x, job: 0.01 * x)
    diary.join(0, 1, 2)
    chance = random.Random(5)
    while diary.finished is None:
        if len(diary.events) % 9 == 8:
            if chance.random() < 0.5 and len(diary.state.workers) > 1:
                diary.leave(chance.choice(list(diary.state.workers)))
            diary.join(*{0, 1, 2, 3}.difference(diary.state.workers))
        answer_somebody(diary, chance)
    diary.leave(chance.choice(sorted(diary.state.workers)))
    for begin in range(0, len(diary.saved), 5):
        again = make_state(method, **settings)
        again.restore(json.loads(diary.saved[begin]), first_job=0, keep=True)
        for number in range(begin, len(diary.events)):
            assert again.handle(diary.events[number]) == diary.answers_given[number]
            assert json.dumps(again.to_dict()) == diary.saved[number + 1]
            again.validate()
        assert again.finished == diary.finished


def test_a_state_that_is_kept_numbers_new_jobs_from_where_it_is_told():
    driver = start("asynchronous", 2)
    again = make_state("asynchronous", workers=2)
    again.restore(driver.state.to_dict(), first_job=1000, keep=True)
    assert [job.job for job in again.outstanding] == [0, 1] and list(again.workers) == [0, 1]
    assert again.handle(Leave(0, "died", 1.0))[0].row.action == "lost"
    assert again.handle(Join(0, 2.0)) == [Assign(0, 1000, 0)]
