"""Which gradients are refused for their norm, and which workers for their gradients; with every method."""

from __future__ import annotations

import json
from statistics import median

import pytest
from helpers.core_driver import Driver, make_state
from hypothesis import given
from hypothesis import strategies as st

from asgd.core.guard import LEAST, WINDOW, NormGuard, Offenders
from asgd.core.methods import METHODS

NORMS = st.floats(0, 1e6) | st.sampled_from([0.0, 1.0, 1e300, 5e-324])


@given(st.lists(NORMS, max_size=3 * WINDOW), st.floats(1.01, 100))
def test_the_guard_is_the_formula(norms, factor):
    guard = NormGuard(factor)
    for place, norm in enumerate(norms):
        window = sorted(norms[max(0, place - WINDOW) : place])
        expected = len(window) >= LEAST and norm > factor * window[len(window) // 2]
        assert (guard.refuses(norm) is not None) == expected


def test_the_median_is_a_median():
    assert WINDOW % 2 == LEAST % 2 == 1  # so that a full window has a middle
    assert sorted(range(WINDOW))[WINDOW // 2] == median(range(WINDOW))


@given(st.lists(NORMS, max_size=150), st.lists(NORMS, max_size=50))
def test_a_restored_guard_goes_on_as_if_nothing_had_happened(before, after):
    guard, other = NormGuard(2.0), NormGuard(2.0)
    for norm in before:
        guard.refuses(norm)
    other.restore(json.loads(json.dumps(guard.to_dict())))
    assert [guard.refuses(norm) for norm in after] == [other.refuses(norm) for norm in after]


def test_without_a_factor_nothing_is_refused_or_remembered():
    guard = NormGuard()
    assert [guard.refuses(10.0**power) for power in range(300)] == [None] * 300
    assert guard.to_dict() == {"last": []}


def test_norms_that_are_none_or_not_finite_are_not_the_guards_business():
    guard = NormGuard(2.0)
    for norm in [1.0] * LEAST:
        guard.refuses(norm)
    assert [guard.refuses(norm) for norm in (None, float("inf"), float("nan"))] == [None] * 3
    assert len(guard.to_dict()["last"]) == LEAST


def test_where_gradients_really_grow_the_guard_follows():
    guard = NormGuard(10.0)
    refused = [guard.refuses(norm) is not None for norm in [1.0] * WINDOW + [1000.0] * WINDOW]
    assert sum(refused) == WINDOW // 2 + 1 and not any(refused[-(WINDOW // 2) :])


def test_a_worker_is_an_offender_only_beside_another_that_is_not():
    offenders = Offenders(3)
    for version in range(10):
        assert not offenders.refused(0, version)  # nobody else is there: perhaps the model has diverged
    offenders.sound(0, 10)
    offenders.sound(1, 10)
    assert not any(offenders.refused(0, 11 + turn) for turn in range(10))  # the other's was at an older model
    offenders.sound(1, 11)
    assert offenders.refused(0, 30)


def test_a_sound_gradient_ends_a_row():
    offenders = Offenders(2)
    offenders.sound(1, 100)
    assert not offenders.refused(0, 1)
    offenders.sound(0, 2)
    assert not offenders.refused(0, 3) and offenders.refused(0, 4)
    offenders.forget(0)
    assert not offenders.refused(0, 5)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.booleans()), max_size=60))
def test_restored_offenders_go_on_as_if_nothing_had_happened(steps):
    def play(offenders, steps):
        return [
            offenders.refused(worker, version) if is_refused else offenders.sound(worker, version)
            for worker, version, is_refused in steps
        ]

    first, second, half = Offenders(3), Offenders(3), len(steps) // 2
    play(first, steps[:half])
    second.restore(json.loads(json.dumps(first.to_dict())))
    assert play(first, steps[half:]) == play(second, steps[half:])


# In the state.


def options_of(method):
    return {"method_options": {"m": 2}} if method == "m_synchronous" else {}


def broken_worker(method, workers=3, limit=4, **options):
    """Worker 0 answers with what isn't finite, the others soundly, until nothing changes any more."""
    state = make_state(method, workers=workers, quarantine_after=limit, **options_of(method), **options)
    driver = Driver(state, x=1.0, gradient=lambda x, job: 0.01 * x)
    driver.join(*range(workers))
    for _ in range(200):
        for worker in range(workers):
            if driver.queue.get(worker):
                driver.answer(worker, finite=worker != 0)
    return driver


@pytest.mark.parametrize("method", METHODS)
def test_a_worker_whose_gradients_are_never_finite_gets_no_more_jobs(method):
    driver = broken_worker(method)
    ((worker, reason),) = driver.quarantined
    assert worker == 0 and reason == "quarantined: 4 of its gradients in a row were refused (not finite)"
    assert driver.state.quarantined == {0: reason}
    rows = [row for row in driver.rows if row.worker == 0]
    assert 1 <= sum(row.reason == "not finite" for row in rows) <= 4  # some methods say "stale" of one that is both
    assert {row.reason for row in rows if row.action == "lost"} <= {reason}
    assert 0 not in driver.state.workers and driver.state.num_jobs(0) == 0
    late = driver.rows[-50:]
    assert {row.worker for row in late} == {1, 2} and any(row.steps for row in late)  # the others go on


@pytest.mark.parametrize("method", METHODS)
def test_who_is_quarantined_does_not_come_back(method):
    driver = broken_worker(method)
    rows = len(driver.rows)
    driver.join(0)
    assert 0 not in driver.state.workers and len(driver.rows) == rows and not driver.queue.get(0)


@pytest.mark.parametrize("method", METHODS)
def test_without_a_limit_nobody_is_quarantined(method):
    driver = broken_worker(method, limit=0)
    assert driver.quarantined == [] and driver.state.workers >= {0, 1, 2}


@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_diverges_ends_as_before_and_quarantines_nobody(method):
    state = make_state(method, workers=3, quarantine_after=4, **options_of(method))
    driver = Driver(state)
    driver.join(0, 1, 2)
    for _ in range(200):
        for worker in range(3):
            if driver.finished is None and driver.queue.get(worker):
                driver.answer(worker, finite=False)
    assert driver.finished is not None and driver.finished.failed and driver.finished.reason.startswith("diverged")
    assert driver.quarantined == []


@pytest.mark.parametrize("method", [name for name, info in METHODS.items() if info.answers == "gradient"])
def test_a_gradient_over_the_guard_is_discarded_with_its_reason(method):
    state = make_state(method, workers=3, norm_guard=10.0, quarantine_after=2, **options_of(method))
    driver = Driver(state, gradient=lambda x, job: 0.01 * x)
    driver.join(0, 1, 2)
    while not driver.quarantined:
        worker = min((w for w in driver.queue if driver.queue[w]), key=lambda w: driver.queue[w][0])
        driver.answer(worker, norm=1000.0 if worker == 0 and len(driver.rows) > 60 else 1.0 + 0.01 * worker)
        assert len(driver.rows) < 500
    guarded = [row for row in driver.rows if row.reason and row.reason.startswith("norm")]
    assert 1 <= len(guarded) <= 2
    assert {(row.worker, row.action) for row in guarded} == {(0, "discard")}
    assert guarded[0].reason.startswith("norm 1e+03 is over 10 x the median 1")
    assert driver.quarantined[0][1].startswith("quarantined: 2 of its gradients in a row were refused (norm")


def test_guard_and_quarantine_survive_a_restart():
    driver = broken_worker("asynchronous", norm_guard=3.0)
    plain = json.loads(json.dumps(driver.state.to_dict()))
    again = make_state("asynchronous", workers=3, quarantine_after=4, norm_guard=3.0)
    again.restore(plain, 0, keep=True)
    assert again.quarantined == driver.state.quarantined and again.to_dict() == driver.state.to_dict()
    older = {key: value for key, value in plain.items() if key not in ("guard", "offenders", "quarantined")}
    again.restore(older, 1000)  # a checkpoint from before there was any of this
