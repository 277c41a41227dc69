"""Malenia SGD on scripted orders, by hand and against exact fractions."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest
from helpers.core_driver import Driver, make_state
from hypothesis import given, settings
from hypothesis import strategies as st

from asgd.core.events import Resume
from asgd.core.methods import make_method
from asgd.errors import ConfigError


def start(workers, batch, gradient, **options):
    """The gradient is a function of the worker and of how many jobs were given before; x^0 = 0, step size 1."""
    state = make_state("malenia", workers=workers, step_size=1.0, method_options={"batch": batch}, **options)
    driver = Driver(state, x=0.0, gradient=lambda x, job: gradient(driver.given[job][0], job))
    driver.join(*range(workers))
    return driver


def own(worker, job):
    return [1.0, 8.0, 64.0, 512.0][worker]


def test_every_worker_weighs_the_same_by_hand():
    gradients = [1.0, 8.0, 3.0, 5.0, 2.0, 4.0]  # by job
    driver = start(2, 0, lambda worker, job: gradients[job])  # jobs 0, 1
    driver.answers([0, 0, 0])  # jobs 0, 2, 3: 1, 3 and 5, all at version 0
    assert driver.state.version == 0
    driver.answer(1)  # job 1: 8; x = -((1 + 3 + 5)/3 + 8)/2
    assert driver.x == -5.5
    assert driver.column("action") == ["accumulate"] * 4 and driver.column("steps") == [0, 0, 0, 1]
    driver.answer(0)  # job 4 was given at version 0
    assert (driver.rows[-1].action, driver.rows[-1].reason) == ("discard", "stale: delay 1")
    assert driver.x == -5.5


def test_the_round_ends_at_the_harmonic_mean():
    """n = 2, S = 3: the harmonic mean of B must be at least 3/2. (1, 1): 1; (2, 1): 4/3; (3, 1): 3/2."""
    driver = start(2, 3, own)
    driver.answers([0, 1, 0])
    assert driver.state.version == 0
    driver.answer(0)
    assert driver.state.version == 1
    assert driver.x == pytest.approx(-(1.0 + 8.0) / 2)
    # (4, 0) never is enough; (4, 1): 8/5.
    driver.answers([1, 0, 0, 0, 0, 0])
    assert driver.state.version == 1
    driver.answer(1)
    assert driver.state.version == 2


@settings(deadline=None, max_examples=200)
@given(
    order=st.lists(st.integers(0, 3), max_size=150), batch=st.integers(0, 30), workers=st.integers(1, 4),
    jobs_per_worker=st.integers(1, 2),
)  # fmt: skip
def test_against_exact_fractions(order, batch, workers, jobs_per_worker):
    gradient = lambda worker, job: float((7 * job + worker) % 11)  # noqa: E731
    driver = start(workers, batch, gradient, jobs_per_worker=jobs_per_worker)
    x, version, sums = Fraction(0), 0, {}
    for worker in (worker % workers for worker in order):
        job = driver.queue[worker][0]
        fresh = driver.given[job][1] == version
        driver.answer(worker)
        if fresh:
            sums.setdefault(worker, []).append(Fraction(gradient(worker, job)))
        if len(sums) == workers:
            harmonic = 1 / (sum(Fraction(1, len(values)) for values in sums.values()) / workers)
            if harmonic >= Fraction(batch or workers, workers):
                x -= sum(sum(values) / len(values) for values in sums.values()) / workers
                version, sums = version + 1, {}
        assert driver.state.version == version
    assert driver.x == pytest.approx(float(x), rel=1e-9, abs=1e-9)


def test_equality_is_met_in_spite_of_rounding():
    """B = (6, 6, 6), n = 3, S = 18: the sum of 1/B comes out as 1/2 and 1e-16 more."""
    driver = start(3, 18, own)
    driver.answers([0] * 6 + [1] * 6 + [2] * 5)
    assert driver.state.version == 0
    driver.answer(2)
    assert driver.state.version == 1


def test_unbiased_whatever_the_speeds():
    """Each worker's gradient is its own constant: every step is their plain mean."""
    driver = start(4, 0, own)
    for _ in range(2):
        driver.answers([0, 1, 0, 0, 2, 1, 0, 3])
        driver.answers([0, 1, 2])  # stale
    assert driver.state.version == 2
    assert driver.x == pytest.approx(-2 * (1.0 + 8.0 + 64.0 + 512.0) / 4)


def test_slots_are_used_again():
    driver = start(3, 0, own)
    used = set()
    for first, second, third in ([2, 1, 0], [0, 2, 1], [1, 0, 2]):
        for worker in (first, second, first, third):
            driver.answer(worker)
            used |= set(driver.slots)
        assert not driver.slots
        driver.answers([first, second])  # stale
    assert used == {0, 1}  # the third is added and stepped with in the same event
    assert driver.x == pytest.approx(-3 * 73 / 3)


def test_one_that_left_is_not_waited_for():
    driver = start(3, 0, own)
    driver.answers([0, 1])
    driver.leave(2)
    row = driver.rows[-1]
    assert (row.action, row.steps, driver.x) == ("lost", 1, -4.5)
    driver.leave(0)
    driver.answer(1)  # stale
    driver.answer(1)
    assert driver.x == -4.5 - 8.0


def test_what_it_gave_before_it_left_counts_but_not_in_the_condition():
    """S = 8 with one gradient of worker 0, which has left: worker 1 alone must reach 8 (n = 1)."""
    driver = start(2, 8, own)
    driver.answer(0)
    driver.leave(0)
    driver.answers([1] * 7)
    assert driver.state.version == 0
    driver.answer(1)
    assert driver.state.version == 1 and driver.x == -(1.0 + 8.0) / 2


def test_a_death_can_meet_the_condition():
    """n = 3, S = 9: harmonic mean 3. B = (3, 3, 1) isn't enough; n = 2 needs 4.5 then, S = 6 needs 3."""
    driver = start(3, 6, own)
    driver.answers([0, 0, 0, 1, 1, 1, 2])  # harmonic mean 3/(5/3) = 1.8 < 2
    assert driver.state.version == 0
    driver.leave(2)  # 3 >= 6/2
    assert driver.state.version == 1
    assert driver.x == pytest.approx(-(1.0 + 8.0 + 64.0) / 3)


def test_leaving_with_two_jobs_and_coming_back():
    driver = start(2, 5, own, jobs_per_worker=2)  # n = 2: the sum of 1/B at most 4/5
    driver.answers([0, 0])
    driver.leave(0)  # two losses
    driver.answers([1, 1])
    assert driver.state.version == 0  # n = 1 needs B = 5
    driver.join(0)
    assert driver.state.num_jobs(0) == 2
    driver.answer(1)
    assert driver.state.version == 0  # 1/2 + 1/3
    driver.answer(1)
    assert driver.state.version == 1 and driver.x == -4.5  # 1/2 + 1/4


def test_everybody_leaves_and_one_comes():
    driver = start(2, 0, own)
    driver.answer(0)
    driver.leave(0)
    driver.leave(1)
    assert driver.state.version == 0
    driver.join(2)
    driver.answer(2)
    assert driver.x == -(1.0 + 64.0) / 2
    driver.answer(2)
    assert driver.state.version == 2


def test_newcomer_is_waited_for_at_once():
    driver = start(2, 0, own)
    driver.answer(0)
    driver.join(2)
    driver.answer(1)
    assert driver.state.version == 0
    driver.answer(2)
    assert driver.x == pytest.approx(-73 / 3)


def test_not_finite_excuses_from_the_round():
    driver = start(2, 0, own)
    driver.answer(0)
    driver.answer(1, finite=False)
    assert (driver.rows[-1].action, driver.rows[-1].steps, driver.x) == ("discard", 1, -1.0)
    assert driver.state.num_jobs(1) == 1
    driver.answer(0)  # stale
    driver.answer(0, finite=False)
    driver.answer(1, finite=False)  # nobody is left to wait for: the round begins anew
    assert driver.state.version == 1
    driver.answer(0)
    assert driver.state.version == 1
    driver.answer(1)
    assert driver.x == -1.0 - 4.5


def test_a_finite_gradient_after_one_that_was_not_counts():
    driver = start(3, 0, own)
    driver.answer(1, finite=False)
    driver.answers([1, 0, 2])
    assert driver.x == pytest.approx(-73 / 3)


@pytest.mark.parametrize("value", [-1, 1.5, True, "3"])
def test_refuses(value):
    with pytest.raises(ConfigError) as error:
        make_method("malenia", {"batch": value})
    assert f"method.options.batch = {value!r}: allowed is a whole number >= 0" in str(error.value)


def test_a_restart_in_the_middle_of_a_round_goes_on_with_it():
    driver = start(3, 0, own)
    driver.answers([1, 0, 1])
    state = make_state("malenia", workers=3, step_size=1.0, method_options={"batch": 0})
    state.restore(json.loads(json.dumps(driver.state.to_dict())), first_job=100)
    assert state.method == driver.state.method and state.method.slots == {1: 0, 0: 1}
    driver.state, driver.queue = state, {}
    # The jobs in flight are lost in the order given: 2's first, so that 0 and 1 are all that could be waited for.
    driver.handle(Resume(driver.tick()))
    assert driver.state.version == 0 and state.method.gone == {1: None, 0: None}
    driver.join(0, 1, 2)
    driver.answer(2)
    assert driver.state.version == 1 and driver.x == pytest.approx(-(1.0 + 8.0 + 64.0) / 3)


def test_a_restart_keeps_what_was_given_so_far():
    driver = start(2, 0, own)
    driver.answer(0)
    driver.join(2)
    driver.leave(1)  # worker 2 is waited for, and its job is the newest
    state = make_state("malenia", workers=2, step_size=1.0)
    state.restore(json.loads(json.dumps(driver.state.to_dict())), first_job=100)
    driver.state, driver.queue = state, {}
    driver.handle(Resume(driver.tick()))
    assert state.version == 0 and state.method.gone == {0: None}
    driver.join(0, 2)
    driver.answer(2)  # worker 0 gave its gradient before the restart
    assert driver.x == -(1.0 + 64.0) / 2


def test_state_knows_who_has_left():
    driver = start(2, 8, own)
    driver.answers([0, 1])
    driver.leave(0)
    method = make_method("malenia", {"batch": 8})
    method.restore(json.loads(json.dumps(driver.state.method.state())))
    assert method == driver.state.method and method.gone == {0: None}
