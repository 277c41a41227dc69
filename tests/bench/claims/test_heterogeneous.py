"""Claim 5: small settings against numbers by hand, and verdicts on measurements that are made up."""

from __future__ import annotations

import numpy as np
import pytest

from asgd.bench.claims import heterogeneous
from asgd.bench.claims.effort import Effort
from asgd.bench.claims.heterogeneous import Delays, average_rows


def test_zeta_is_one_in_the_mean_wherever_it_is_put():
    for who in ("all", "prompt", "late"):
        shifts_ND = heterogeneous.opposed(16, who).shifts_ND
        assert np.allclose(shifts_ND.sum(axis=0), 0.0, atol=1e-6)
        assert np.mean(np.sum(shifts_ND**2, axis=1)) == pytest.approx(1.0, rel=1e-5)


def test_the_limit_point_is_the_one_computed_from_the_step_sizes():
    """Fast workers make 4 of 5 steps, so the mean pull is (4 - 1) / 5."""
    measured, predicted = heterogeneous.bias_run("asynchronous", "constant", 4.0, 0, 4000)
    assert predicted == pytest.approx(0.6, abs=0.005) and measured == pytest.approx(0.6, abs=0.02)


def test_answers_that_pull_one_way_together_raise_the_floor():
    alone = heterogeneous.opposed_floor(1, 0, 4000)
    assert alone.term == 0.0, "no delays"
    assert heterogeneous.opposed_floor(16, 0, 4000).norm > 1.5 * alone.norm


def test_held_jobs_have_the_delay_that_they_are_held_for():
    held = heterogeneous.opposed_floor(16, 0, 4000, "all", False, 8, 200)
    assert 200 <= held.max_delay < 260


def test_late_clients_have_the_delays():
    late, prompt = (heterogeneous.opposed_floor(16, 0, 4000, who, True) for who in ("late", "prompt"))
    assert late.term > 100 * prompt.term


def floors(exponent, terms=(1.0, 2.0, 4.0)):
    excess = np.array([[factor * term**exponent for factor in (1.0, 1.02, 0.98)] for term in terms])
    return Delays(excess, np.array([[term] * 3 for term in terms]), [64.0 * term for term in terms])


def verdicts(by_concurrency=0.9, late=1.0, by_largest=0.0):
    by_worker = Delays(
        np.array([[0.1, 0.1, 0.11], [late, late, late + 0.1]]), np.array([[0.0] * 3, [1.0] * 3]), [9.0, 9.0]
    )
    rows = average_rows(floors(by_concurrency), by_worker, floors(by_largest), 8)
    return [row.verdict for row in rows if row.verdict != "finding"]


def test_the_first_part_can_fail_in_each_of_its_predictions():
    assert verdicts() == ["holds", "holds", "holds"]
    assert verdicts(by_concurrency=2.0)[0] == "does not hold"
    assert verdicts(late=-1.0)[1] == "does not hold"
    assert verdicts(by_largest=1.0)[2] == "does not hold"


def test_a_wrong_limit_point_is_noticed(monkeypatch):
    monkeypatch.setattr(heterogeneous, "bias_run", lambda method, rule, factor, seed, updates: (0.5 + seed / 1000, 0.2))
    rows, words = heterogeneous.biases(Effort(), 100, [0, 1, 2])
    assert {row.verdict for row in rows} == {"does not hold"} and "(predicted 0.200)" in words
