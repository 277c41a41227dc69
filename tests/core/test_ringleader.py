"""Ringleader ASGD on scripted orders, against a reference that keeps every gradient, and with deaths in every phase."""

from __future__ import annotations

import pytest
from helpers.core_driver import Driver, make_state
from hypothesis import given, settings
from hypothesis import strategies as st

from asgd.core.events import Resume
from asgd.core.methods import make_method
from asgd.errors import ConfigError


def start(workers=3, gradient=lambda x, job: x, x=1.0, rule="constant"):
    driver = Driver(make_state("ringleader", rule, workers=workers, step_size=0.5), x=x, gradient=gradient)
    driver.join(*range(workers))
    return driver


def everybody_works(driver):
    return all(driver.state.num_jobs(worker) == 1 for worker in driver.state.workers)


def phase(driver):
    method = driver.state.method
    return (2 if method.updating else 1), method.waiting, set(method.table), set(method.later)


def test_two_rounds_by_hand():
    """Two workers, the gradient of worker w is constant: 4 for worker 0, 8 for worker 1, but job 2 gives 16."""
    given = {2: 16.0}
    driver = Driver(
        make_state("ringleader", workers=2, step_size=0.5),
        x=0.0,
        gradient=lambda x, job: given.get(job, 4.0 if driver.given[job][0] == 0 else 8.0),
    )
    driver.join(0, 1)
    driver.answers([0, 0])  # jobs 0 and 2: only collected
    assert driver.x == 0.0 and phase(driver) == (1, {1}, {0}, set())
    driver.answer(1)  # the last one: first step, with the means (4 + 16)/2 and 8
    assert driver.x == -0.5 * (10 + 8) / 2 == -4.5 and phase(driver) == (2, {0}, {0, 1}, set())
    driver.answers([1, 1])  # worker 1 is done: into the second table
    assert driver.x == -4.5 and phase(driver) == (2, {0}, {0, 1}, {1})
    driver.answer(0)  # its update: the means (4 + 16 + 4)/3 = 8 and 8; the round ends
    assert driver.x == pytest.approx(-4.5 - 0.5 * 8, rel=1e-15)
    assert phase(driver) == (1, {0}, {1}, set())
    driver.answer(0)  # worker 1 is in the table already, with two: first step of the second round
    assert driver.x == pytest.approx(-8.5 - 0.5 * (4 + 8) / 2, rel=1e-15)
    assert phase(driver) == (2, {1}, {0, 1}, set())
    assert driver.column("steps") == [0, 0, 1, 0, 0, 1, 1]
    assert driver.column("action") == ["accumulate"] * 7
    assert driver.column("step_size") == [None, None, 0.5, None, None, 0.5, 0.5]
    assert everybody_works(driver)


class Reference:
    """The algorithm with lists of (read version, gradient) instead of sums, for workers that stay."""

    def __init__(self, n, eta, x):
        self.n, self.eta, self.x, self.version, self.max_used_delay = n, eta, x, 0, 0
        self.now, self.next, self.todo, self.collecting = [[] for _ in range(n)], [[] for _ in range(n)], set(), True

    def arrived(self, worker, read_version, gradient):
        if not self.collecting and worker not in self.todo:
            self.next[worker].append((read_version, gradient))
            return
        self.now[worker].append((read_version, gradient))
        if self.collecting:
            if not all(self.now):
                return
            self.collecting, self.todo = False, set(range(self.n))
        used = [self.version - read for entry in self.now for read, _ in entry]
        self.max_used_delay = max(self.max_used_delay, *used)
        self.x -= self.eta * sum(sum(g for _, g in entry) / len(entry) for entry in self.now) / self.n
        self.version += 1
        self.todo.remove(worker)
        if not self.todo:
            self.now, self.next, self.collecting = self.next, [[] for _ in range(self.n)], True


@settings(deadline=None, max_examples=150)
@given(st.integers(1, 5).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.integers(0, n - 1), max_size=120))))
def test_any_order_is_the_reference_and_no_delay_exceeds_the_bound(case):
    n, order = case
    driver = start(n, gradient=lambda x, job: 0.3 * x + job % 7)
    reference = Reference(n, 0.5, 1.0)
    for worker in order:
        _, version, x = driver.given[driver.queue[worker][0]]
        gradient = driver.gradient(x, driver.queue[worker][0])
        driver.answer(worker)
        reference.arrived(worker, version, gradient)
        assert driver.state.version == reference.version
        assert driver.x == pytest.approx(reference.x, rel=1e-12, abs=1e-12)
        assert everybody_works(driver)
        assert driver.state.method.num_slots <= 2 * n
    assert reference.max_used_delay <= 2 * n - 2
    assert driver.column("action") == ["accumulate"] * len(order), "no gradient is dropped"


def test_the_bound_on_the_delay_is_attained():
    """Three workers: a gradient read after the first update of a round, used in the last one of the next: 2n - 2."""
    driver, reference = start(3, gradient=lambda x, job: 1.0), Reference(3, 0.5, 1.0)
    for worker in [1, 2, 0, 1, 2, 1, 2, 0, 1, 2]:
        reference.arrived(worker, driver.given[driver.queue[worker][0]][1], 1.0)
        driver.answer(worker)
    assert reference.max_used_delay == 4 and driver.state.version == reference.version == 6


def test_every_worker_weighs_the_same_however_often_it_answers():
    """At the optimum of the mean of f_w(x) = (x - w)^2/2 the fast worker pulls no harder: x tends to 1, not to 0."""
    driver = Driver(
        make_state("ringleader", workers=3, step_size=0.05), x=5.0, gradient=lambda x, job: x - driver.given[job][0]
    )
    driver.join(0, 1, 2)
    driver.answers([0, 0, 0, 0, 1, 0, 0, 2, 0, 1] * 200)
    assert driver.x == pytest.approx(1.0, abs=1e-6)


def test_one_worker_is_plain_sgd():
    driver, plain = start(1), Driver(make_state(step_size=0.5))
    plain.join(0)
    driver.answers([0] * 50)
    plain.answers([0] * 50)
    assert driver.x == plain.x and driver.state.version == 50


def test_the_step_size_rule_has_no_effect():
    driver, plain = start(3, rule="adadelay"), start(3)  # which shortens steps also at delay 0
    for each in (driver, plain):
        each.answers([0, 1] * 20 + [2, 0, 1] * 5 + [0, 0, 2, 1] * 5)
    assert driver.x == plain.x and max(driver.column("delay")) == 2


def test_slots_are_emptied_after_a_round_and_used_again():
    driver = constant({0: 2.0, 1: 4.0})
    driver.answers([0, 1, 1, 0])
    assert len(driver.slots) == 1, "only the second table's"
    for _ in range(20):
        driver.answer(1)
        driver.leave(1)  # with what it has just given
        driver.join(1)
    assert driver.state.method.num_slots <= 4 and len(driver.slots) <= 4


def constant(worker_gradients):
    """A driver whose workers send constants, from x = 0 with step size 1."""
    driver = Driver(
        make_state("ringleader", workers=len(worker_gradients), step_size=1.0),
        x=0.0,
        gradient=lambda x, job: worker_gradients.get(driver.given[job][0], 64.0),
    )
    driver.join(*range(len(worker_gradients)))
    return driver


def test_death_while_collecting_of_the_one_waited_for():
    driver = constant({0: 2.0, 1: 4.0, 2: 100.0})
    driver.answers([0, 1])
    driver.leave(2)
    assert driver.x == 0.0 and phase(driver) == (1, set(), {0, 1}, set())
    driver.answer(1)  # the next arrival, whoever's, makes the first step
    assert driver.x == -3.0 and phase(driver)[:2] == (2, {0})


def test_death_while_collecting_of_one_in_the_table():
    driver = constant({0: 2.0, 1: 4.0, 2: 100.0})
    driver.answers([2, 0])
    driver.leave(2)
    assert phase(driver) == (1, {1}, {0}, set())
    driver.answer(1)
    assert driver.x == -3.0, "what it gave left with it"


def test_death_while_updating_of_the_one_waited_for():
    driver = constant({0: 2.0, 1: 4.0, 2: 100.0})
    driver.answers([0, 2, 1, 0])
    driver.answer(1)
    assert phase(driver) == (2, {2}, {0, 1, 2}, {1})
    before = driver.x
    driver.leave(2)
    assert driver.x == before and phase(driver) == (1, {0}, {1}, set())
    driver.answer(0)
    assert driver.x == before - 3.0


def test_death_while_updating_of_one_in_both_tables():
    driver = constant({0: 2.0, 1: 4.0, 2: 100.0})
    driver.answers([0, 1, 2, 2])
    assert phase(driver) == (2, {0, 1}, {0, 1, 2}, {2})
    before = driver.x
    driver.leave(2)
    assert phase(driver) == (2, {0, 1}, {0, 1}, set())
    driver.answers([0, 1])
    assert driver.x == before - 6.0 and phase(driver) == (1, {0, 1}, set(), set())


def test_a_number_that_comes_back_starts_anew():
    """The slot of the old one still holds its vector: it must not be added to."""
    driver = constant({0: 2.0, 1: 4.0})
    driver.answer(1)
    driver.leave(1)
    driver.join(1)
    assert phase(driver) == (1, {0, 1}, set(), set())
    driver.answers([1, 0])
    assert driver.x == -3.0


def test_everybody_leaves_and_somebody_comes():
    for answers in ([], [0], [0, 1], [0, 1, 1], [0, 1, 1, 0]):
        driver = constant({0: 2.0, 1: 4.0})
        driver.answers(answers)
        before = driver.x
        driver.leave(0)
        driver.leave(1)
        assert phase(driver)[1:] == (set(), set(), set()) and not driver.state.method.updating
        driver.join(7)
        driver.answer(7)
        assert driver.x == before - 64.0 and everybody_works(driver)


def test_newcomer_while_collecting_is_waited_for():
    driver = constant({0: 2.0, 1: 4.0})
    driver.answer(0)
    driver.join(2)
    driver.answer(1)
    assert driver.x == 0.0 and phase(driver) == (1, {2}, {0, 1}, set())
    driver.answer(2)
    assert driver.x == pytest.approx(-(2.0 + 4.0 + 64.0) / 3, rel=1e-14)


def test_newcomer_while_updating_belongs_to_the_next_round():
    driver = constant({0: 2.0, 1: 4.0})
    driver.answers([0, 1])
    driver.join(2)
    driver.answer(2)
    assert driver.x == -3.0 and phase(driver) == (2, {0}, {0, 1}, {2})
    driver.answer(0)
    assert driver.x == -6.0 and phase(driver) == (1, {0, 1}, {2}, set())


def test_nobody_waits_for_a_worker_whose_gradients_are_not_finite():
    driver = constant({0: 2.0, 1: 4.0, 2: 100.0})
    driver.answer(2, finite=False)
    driver.answers([0, 1])
    assert driver.x == -3.0 and phase(driver) == (2, {0}, {0, 1}, set())
    driver.answer(0, finite=False)  # the round ends without its update
    assert driver.x == -3.0 and phase(driver) == (1, {0, 1, 2}, set(), set())
    for worker in (0, 1, 2):
        driver.answer(worker, finite=False)
    assert phase(driver) == (1, {0, 1, 2}, set(), set()), "all of them again"
    driver.answers([0, 1, 2])
    assert driver.x == pytest.approx(-3.0 - 106.0 / 3, rel=1e-14) and everybody_works(driver)
    assert driver.column("action").count("discard") == 5


STEPS = st.lists(
    st.tuples(st.sampled_from(["answer"] * 8 + ["not finite", "leave", "join"]), st.integers(0, 4)), max_size=150
)


@settings(deadline=None, max_examples=150)
@given(steps=STEPS)
def test_never_stuck_whatever_happens(steps):
    """After any history, everybody has work, and two answers from each make a step; slots don't leak."""
    driver = start(2, gradient=lambda x, job: 1.0)
    for what, worker in steps:
        if what == "join" and worker not in driver.state.workers:
            driver.join(worker)
        elif what == "leave":
            driver.leave(worker)
        elif what in ("answer", "not finite") and worker in driver.state.workers:
            driver.answer(worker, finite=what == "answer")
        assert everybody_works(driver)
        assert driver.state.method.num_slots <= 10
        restored = make_method("ringleader")
        restored.restore(driver.state.method.state())
        assert restored == driver.state.method
        assert list(restored.table) == list(driver.state.method.table), "the order of the sum is part of the result"
    if driver.state.workers:
        version, x = driver.state.version, driver.x
        driver.answers([*driver.state.workers] * 2)
        assert driver.state.version > version
        # All gradients are 1: whoever is in the table, each step is eta.
        assert x - driver.x == pytest.approx(0.5 * (driver.state.version - version))


@pytest.mark.parametrize("answers", [[0], [0, 1, 2], [0, 1, 2, 2], [0, 1, 2, 2, 1]])
def test_a_restarted_server_begins_a_round(answers):
    driver = start(3)
    driver.answers(answers)
    plain = driver.state.to_dict()
    again = Driver(make_state("ringleader", workers=2, step_size=0.5), x=driver.x)
    again.state.restore(plain, first_job=100)
    again.handle(Resume(50.0))
    again.join(0, 2)
    version, x = again.state.version, again.x
    again.answers([0, 2])
    assert again.state.version == version + 1 and again.x == x - 0.5 * x


def test_refuses_options_and_several_jobs():
    with pytest.raises(ConfigError, match="has no such option; allowed: none"):
        make_method("ringleader", {"updating": True})
    with pytest.raises(ConfigError, match="gives a worker at most 1"):
        make_method("ringleader", jobs_per_worker=2)
