"""Scripted arrival orders with delays written out by hand; the server's refusals, budgets and ends; states that come
back.
"""

from __future__ import annotations

import json
import math

import pytest
from helpers.core_driver import Driver, make_state

from asgd.core.actions import Assign, Refuse
from asgd.core.budget import Budget
from asgd.core.events import Arrival, Begin, Join, Leave, Resume, Stop, Tick
from asgd.core.judge import NOT_FINITE
from asgd.core.schedules import Schedule


def start(workers=3, **options):
    driver = Driver(make_state(workers=workers, **options))
    driver.join(*range(workers))
    return driver


def test_delays_of_a_scripted_order():
    """Algorithm 1 by hand, three workers: who arrives, what it had read, how stale that is."""
    driver = start(3)
    driver.answers([0, 0, 1, 0, 2, 1])
    #        arrival order       0  0  1  0  2  1
    assert driver.column("read_version") == [0, 1, 0, 2, 0, 3]
    assert driver.column("version") == [0, 1, 2, 3, 4, 5]
    assert driver.column("delay") == [0, 0, 2, 1, 4, 2]
    assert driver.column("concurrency") == [3] * 6
    # In flight at the end: worker 0 (given at 4), worker 2 (at 5), worker 1 (at 6): ages 2, 1, 0.
    assert sorted(driver.state.ledger.in_flight_delays()) == [0, 1, 2]
    # Conservation: 9 + 3 = 6 updates * (3 - 1).
    assert sum(driver.column("delay")) + 3 == 6 * 2
    # Definition 4: (9 + 3) / (T + |C_T| - 1) = 12 / (6 + 2).
    assert driver.state.ledger.average_delay() == 12 / 8
    assert driver.state.ledger.max_delay() == 4
    per_worker = driver.state.ledger.per_worker
    assert {w: (s.used, s.delay_sum, s.max_delay) for w, s in per_worker.items()} == {
        0: (3, 1, 1),
        1: (2, 4, 2),
        2: (1, 4, 4),
    }


def test_equal_speeds_give_delay_n_minus_one():
    driver = start(4)
    driver.answers([0, 1, 2, 3] * 5)
    assert driver.column("delay") == [0, 1, 2, 3] + [3] * 16


def test_two_jobs_per_worker_double_the_concurrency():
    driver = start(2, jobs_per_worker=2)
    assert [worker for worker, _, _ in driver.given.values()] == [0, 1, 0, 1], (
        "first jobs of all before anybody's second"
    )
    driver.answers([0, 1] * 6)
    assert driver.column("concurrency") == [4] * 12
    assert driver.column("delay") == [0, 1, 2, 3] + [3] * 8, "mean delay n k - 1"


def test_a_discarded_gradient_moves_nothing():
    driver = start(2, rule="drop", rule_options={"k": 1})
    driver.answers([0, 0, 0, 1, 0])
    assert driver.column("delay") == [0, 0, 0, 3, 0]
    assert driver.column("action") == ["apply", "apply", "apply", "discard", "apply"]
    assert driver.column("steps") == [1, 1, 1, 0, 1]
    assert driver.column("version") == [0, 1, 2, 3, 3]
    assert driver.rows[3].step_size is None
    assert driver.rows[3].reason == "dropped by the step-size rule: delay 3, tau_C 2"


def test_the_rule_sees_the_largest_concurrency_so_far():
    driver = start(2, rule="scale", step_size=1.0)
    driver.answers([0] * 6 + [1])
    assert driver.rows[-1].delay == 6
    assert driver.rows[-1].step_size == pytest.approx(2 / 6)


def test_lost_jobs_age_and_are_recorded():
    driver = start(3)
    driver.answers([0, 0])
    driver.leave(2, "killed")
    driver.answers([1, 0])
    row = driver.rows[2]
    assert (row.action, row.reason, row.worker, row.delay, row.concurrency, row.steps) == ("lost", "killed", 2, 2, 3, 0)
    assert row.loss is None and row.samples == 0
    assert driver.column("concurrency") == [3, 3, 3, 2, 2]
    # used 0+0+2+1, in flight 1+0, removed 2 = updates (3-1)+(3-1)+(2-1)+(2-1)
    ledger = driver.state.ledger
    assert (ledger.used_delay_sum, ledger.in_flight_age_sum, ledger.removed_age_sum, ledger.aging_sum) == (3, 1, 2, 6)


def test_a_worker_that_comes_back_gets_a_new_job_and_its_old_one_is_refused():
    driver = start(2)
    old = driver.queue[1][0]
    driver.leave(1)
    driver.join(1)
    driver.answer(0)
    [new] = driver.queue[1]
    assert new > old
    late = Arrival(1, old, 0, 1.0, 1, 1.0, driver.tick())
    assert driver.state.handle(late) == [Refuse(1, old, f"job {old} is not outstanding")]
    driver.answer(1)
    assert driver.column("job").count(old) == 1, "lost once, never applied"


@pytest.mark.parametrize(
    ("worker", "job", "version", "sentence"),
    [
        (0, 99, 0, "job 99 is not outstanding"),
        (1, 0, 0, "job 0 belongs to worker 0"),
        (0, 0, 1, "job 0 was given at version 0, not 1"),
    ],
)
def test_refused_without_effect(worker, job, version, sentence):
    driver = start(2)
    assert driver.state.handle(Arrival(worker, job, version, 1.0, 1, 1.0, 9.0)) == [Refuse(worker, job, sentence)]
    assert (driver.state.refused, driver.state.rows, driver.state.version, driver.state.concurrency) == (1, 0, 0, 2)


def test_the_same_gradient_twice_is_applied_once():
    driver = start(1)
    job = driver.answer(0)
    twice = Arrival(0, job, 0, 1.0, 1, 1.0, driver.tick())
    assert driver.state.handle(twice) == [Refuse(0, job, f"job {job} is not outstanding")]
    assert driver.state.version == 1


def test_not_finite_is_discarded_and_the_worker_goes_on():
    driver = start(2)
    driver.answer(0, finite=False)
    driver.answer(0, loss=math.nan)
    driver.answer(0)
    assert driver.column("action") == ["discard", "discard", "apply"]
    assert driver.column("reason") == [NOT_FINITE, NOT_FINITE, None]
    assert driver.rows[1].loss is None


def test_a_diverged_run_ends():
    driver = start(2)
    while driver.finished is None:
        driver.answer(0, finite=False)
        driver.answer(1, finite=False)
    assert driver.finished.failed
    assert driver.finished.reason == "diverged: the last 20 gradients were not finite"


def test_a_single_broken_worker_does_not_end_the_run():
    driver = start(2)
    for _ in range(100):
        driver.answers([1])
        for _ in range(30):  # it is the fast one, too
            driver.answer(0, finite=False)
    assert driver.finished is None


def test_the_books_hold_after_the_end_and_a_leave():
    driver = start(2, budget=Budget(versions=1))
    driver.answer(0)
    driver.leave(1)
    assert driver.state.concurrency == 1, "its job stays in flight"


def test_minibatch_schedule_over_samples_starts_at_zero():
    schedule = Schedule(1.0, "step", milestones=(24,), gamma=0.5)
    driver = start(4, method="minibatch", schedule=schedule, schedule_over="samples")
    for _ in range(2):
        for worker in range(4):
            driver.answer(worker, samples=8)
    assert [row.step_size for row in driver.rows if row.steps] == [1.0, 0.5], "0 and 32 samples before the update"


def test_buffers_are_the_mean_of_a_minibatch_and_move_by_one_of_tau_c_otherwise():
    one_of_3 = [1 / 3] * 6
    for method, weights, order in (
        ("minibatch", [1, 1 / 2, 1 / 3, 1], [0, 1, 2, 0]),
        ("asynchronous", one_of_3, [0, 1, 2, 0, 1, 2]),
        # Worker 0's second gradient joins its first in the table, 2's makes a step; so do those of 0 and 1 after it.
        ("ringleader", one_of_3, [0, 0, 1, 2, 0, 1]),
    ):
        driver, seen = start(3, method=method), []
        handle = driver.state.handle
        driver.state.handle = lambda event, handle=handle, seen=seen: [
            seen.append(action.buffer_weight) or action if hasattr(action, "buffer_weight") else action
            for action in handle(event)
        ]
        driver.answers(order)
        assert seen == weights, method


@pytest.mark.parametrize(
    ("budget", "arrivals", "name"),
    [(Budget(versions=5), 5, "versions"), (Budget(samples=17), 5, "samples"), (Budget(gradients=7), 7, "gradients")],
)
def test_budget_ends_exactly_there_and_gives_no_more_work(budget, arrivals, name):
    driver = start(2, budget=budget)
    for _ in range(arrivals):
        assert driver.finished is None
        driver.answer(0, samples=4)
    assert driver.finished.reason.startswith(f"budget used up: {name}") and not driver.finished.failed
    assert driver.state.concurrency == 1, "only the other worker's job is in flight"
    assert driver.state.handle(Join(7, 99.0)) == []
    job = driver.queue[1][0]
    assert driver.state.handle(Arrival(1, job, 0, 1.0, 1, 1.0, 99.0)) == []
    assert driver.state.refused == 0 and driver.state.concurrency == 1, "it stays in flight"


def test_time_ends_by_a_tick():
    driver = start(1, budget=Budget(time_s=10.0))
    driver.handle(Tick(9.9))
    assert driver.finished is None
    driver.handle(Tick(10.0))
    assert driver.finished.reason == "budget used up: time_s = 10.0"


def test_what_arrives_after_the_time_ends_the_run_unused():
    driver = start(2, budget=Budget(time_s=4.0))  # the driver's clock goes on by 1 at each event
    driver.answer(0)
    driver.answer(1)
    assert driver.finished is not None and driver.state.version == 2, "what arrives at the limit is used"
    driver = start(2, budget=Budget(versions=4, time_s=3.5))
    driver.answer(0)
    driver.answer(1)
    assert driver.finished.reason == "budget used up: time_s = 3.5" and driver.finished.complete
    assert driver.column("time_s") == [3.0] and driver.state.gradients == driver.state.version == 1
    assert driver.state.concurrency == 2 and driver.state.ledger.in_flight_delays() == [1, 0], "its job stays in flight"


def test_stop():
    driver = start(1)
    driver.stop()
    driver.handle(Stop("again", 99.0))
    assert driver.finished.reason == "stopped"


def test_begins_when_the_expected_workers_are_there():
    state = make_state(workers=2)
    assert state.handle(Join(0, 0.0)) == []
    assert state.handle(Join(1, 0.0)) == [Assign(0, 0, 0), Assign(1, 1, 0)]


def test_the_order_of_joining_does_not_matter():
    """It is chance on real processes, and a run must be repeatable from its trace."""
    drivers = []
    for order in ((0, 1, 2), (2, 0, 1)):
        drivers.append(Driver(make_state(workers=3)))
        drivers[-1].join(*order)
    assert drivers[0].queue == drivers[1].queue == {0: [0], 1: [1], 2: [2]}


def test_begins_with_fewer_when_told_and_a_late_one_joins_at_the_current_version():
    driver = Driver(make_state(workers=2))
    driver.join(5)
    driver.handle(Begin(1.0))
    driver.answers([5, 5])
    driver.join(3)
    driver.answer(3)
    assert driver.rows[-1].read_version == 2
    assert driver.state.handle(Begin(9.0)) == []


def test_begin_without_anybody_waits():
    state = make_state(workers=2)
    assert state.handle(Begin(1.0)) == []
    state.handle(Join(0, 2.0))
    assert not state.begun


def test_who_comes_back_with_a_job_in_flight_after_the_end_is_left_alone():
    """The run may end within the event in which a worker left: its other jobs stay in flight."""
    driver = start(2, budget=Budget(time_s=5.0))
    driver.state.handle(Stop("over", 1.0))
    driver.state.handle(Leave(1, "reconnected", 2.0))
    assert driver.state.num_jobs(1) == 1 and driver.state.handle(Join(1, 3.0)) == []
    driver.state.validate()


def test_joining_twice_is_a_mistake_of_the_driver():
    driver = start(1)
    with pytest.raises(ValueError, match="worker 0 has joined already"):
        driver.join(0)


def test_leaving_unknown_is_nothing():
    assert start(1).state.handle(Leave(9, "who?", 1.0)) == []


@pytest.mark.parametrize("method", ["asynchronous", "minibatch"])
def test_restore_goes_on_with_the_same_books_and_new_job_numbers(method):
    driver = start(3, method=method)
    driver.answers([0, 1])
    saved = json.loads(json.dumps(driver.state.to_dict()))
    again = Driver(make_state(method, workers=2), x=driver.x)
    again.slots = driver.slots
    again.state.restore(saved, first_job=1000)
    again.handle(Resume(50.0))
    lost = [row for row in again.rows if row.action == "lost"]
    assert len(lost) == driver.state.concurrency
    assert {row.reason for row in lost} == {"the server was restarted"}
    assert again.rows[0].arrival == len(driver.rows)
    again.join(0, 1)
    assert all(job >= 1000 for job in again.given)
    again.answers([0, 1, 0, 1] if method == "asynchronous" else [0, 1])
    assert again.state.version > driver.state.version


def test_schedule_counts_samples_before_the_update():
    schedule = Schedule(1.0, "step", milestones=(8,), gamma=0.5)
    driver = start(1, schedule=schedule, schedule_over="samples")
    for _ in range(4):
        driver.answer(0, samples=4)
    assert driver.column("step_size") == [1.0, 1.0, 0.5, 0.5]


def test_schedule_counts_versions():
    driver = start(1, schedule=Schedule(1.0, "step", milestones=(2,), gamma=0.5))
    driver.answers([0] * 4)
    assert driver.column("step_size") == [1.0, 1.0, 0.5, 0.5]
