"""When jobs were given, begun and answered: the core writes down what it knows and what it is told."""

from __future__ import annotations

import json

import pytest
from helpers.core_driver import Driver, make_state

from asgd.core.events import Arrival, Begin, Join, Resume
from asgd.core.methods import METHODS


def test_a_row_says_when_its_job_was_given_begun_and_done():
    driver = Driver(make_state(workers=1))
    driver.handle(Join(0, 2.0))
    for job, now_s in ((0, 5.0), (1, 9.0)):
        driver.handle(Arrival(0, job, job, 1.0, 1, 0.5, now_s, wait_s=0.25, queue_s=0.125, started_s=now_s - 1.0), 1.0)
    times = [(row.assigned_s, row.queue_s, row.started_s, row.compute_s, row.wait_s, row.time_s) for row in driver.rows]
    assert times == [(2.0, 0.125, 4.0, 0.5, 0.25, 5.0), (5.0, 0.125, 8.0, 0.5, 0.25, 9.0)]


def test_jobs_are_given_when_the_run_begins_not_when_their_workers_joined():
    driver = Driver(make_state(workers=9))
    driver.join(0, 1)
    driver.handle(Begin(7.0))
    driver.handle(Join(2, 8.0))
    assert {job.worker: job.assigned_s for job in driver.state.outstanding} == {0: 7.0, 1: 7.0, 2: 8.0}


@pytest.mark.parametrize("method", METHODS)
def test_every_job_is_given_at_an_event_and_a_job_that_never_arrived_was_never_begun(method):
    driver = Driver(make_state(method, workers=4), gradient=lambda x, job: 0.01 * x)
    driver.join(0, 1, 2, 3)
    for number in range(40):
        busy = [worker for worker, jobs in driver.queue.items() if jobs]
        driver.answer(busy[number % len(busy)])
    driver.leave(0)
    happened_s = set(range(int(driver.now_s) + 1))
    assert all(row.assigned_s in happened_s and row.assigned_s < row.time_s for row in driver.rows)
    assert all(job.assigned_s in happened_s for job in driver.state.outstanding)
    given_s = [row.assigned_s for row in sorted(driver.rows, key=lambda row: row.job)]
    assert given_s == sorted(given_s)
    absent = [row for row in driver.rows if row.action == "lost" or row.reason == "cancelled"]
    assert all(row.started_s is None and row.queue_s == 0.0 for row in absent)


def test_a_restart_knows_when_the_lost_jobs_were_given_unless_its_checkpoint_is_an_old_one():
    driver = Driver(make_state(workers=2))
    driver.join(0, 1)
    plain = json.loads(json.dumps(driver.state.to_dict()))
    old = json.loads(json.dumps(plain))
    old["ledger"]["outstanding"] = [job[:3] for job in old["ledger"]["outstanding"]]
    for saved, given_s in ((plain, [2.0, 2.0]), (old, [None, None])):
        again = Driver(make_state(workers=2))
        again.state.restore(saved, first_job=1000)
        again.handle(Resume(9.0))
        assert [row.action for row in again.rows] == ["lost", "lost"]
        assert again.column("assigned_s") == given_s
