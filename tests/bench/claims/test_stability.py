"""Claim 7: what grows is seen to, also where numbers overflow, and another limit than the formula's is no agreement."""

from __future__ import annotations

import pytest

from asgd.bench.claims import Effort, stability
from asgd.bench.claims.outcome import Measured
from asgd.bench.claims.stability import Bracket, check, limit, measured_limit

QUICK = Effort(quick=True)


def test_the_bracket_is_around_the_limit():
    low, high = measured_limit(2, updates_per_worker=400, resolution=0.01)
    assert low < 1.015 and high > 0.985 and high - low == pytest.approx(0.01)


@pytest.mark.parametrize("times", [1.2, 1e6])
def test_a_limit_below_the_grid_is_no_agreement_also_where_numbers_overflow(monkeypatch, times):
    """A formula that promises too much: every step size of the grid grows, with the larger factor to infinity."""
    monkeypatch.setattr(stability, "limit", lambda delay: times * limit(delay))
    assert measured_limit(4, 400, 0.01) == Bracket(None, pytest.approx(0.95 * times * limit(3)))
    outcome = check(QUICK)
    assert {row.verdict for row in outcome.rows} == {"does not hold"}
    assert "n = 8 grows with all step sizes" in outcome.finding and "measured within" not in outcome.finding


def test_a_limit_above_the_grid_is_no_agreement(monkeypatch):
    monkeypatch.setattr(stability, "limit", lambda delay: limit(delay) / 2)
    assert measured_limit(4, 400, 0.01) == Bracket(pytest.approx(1.05 * limit(3) / 2), None)
    outcome = check(QUICK)
    assert outcome.verdict == "does not hold" and "n = 1 grows with no step size" in outcome.finding


@pytest.mark.parametrize(("shift", "verdict"), [(1.01, "holds"), (1.03, "does not hold")])
def test_the_verdict_and_the_words_follow_the_bracket(monkeypatch, shift, verdict):
    def bracket(num_workers, updates_per_worker, resolution):
        centre = limit(num_workers - 1) * (shift if num_workers == 4 else 1.0)
        return Bracket(centre * 0.995, centre * 1.005)

    monkeypatch.setattr(stability, "measured_limit", bracket)
    outcome = check(QUICK)
    assert [row.verdict for row in outcome.rows] == ["holds", "holds", verdict, "holds"]
    assert outcome.verdict == verdict
    assert f"within {100 * (shift - 1):.2g}% of the formula for n = 1, 2, 4, 8" in outcome.finding
    assert all(isinstance(row.measured, Measured) and "between two of a grid" in row.setting for row in outcome.rows)
