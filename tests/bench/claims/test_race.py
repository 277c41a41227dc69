"""Claim 8: every method has a contender, a small race, and the words on results that are made up."""

from __future__ import annotations

import math

import pytest

from asgd.bench.claims import race
from asgd.bench.claims.race import Result, judge_race
from asgd.core.methods import METHODS


def test_every_method_has_a_contender():
    raced = {entry.method for entry in race.contenders(16).values()}
    shared = {name for name, info in METHODS.items() if not (info.needs_read_parameters or info.needs_distance)}
    assert raced == shared


@pytest.mark.slow
def test_a_race_against_minibatch_is_won_where_half_are_slower():
    ours = race.race("asynchronous, scale", "half 4x slower", 8, [0], [0])
    theirs = race.race("mini-batch", "half 4x slower", 8, [0], [0])
    assert not ours.at_edge and not theirs.at_edge
    assert ours.seconds[0] < 0.7 * theirs.seconds[0]


def result(name, profile, tuned_s, seconds, at_edge=""):
    return Result(name, profile, None, 0.1, at_edge, tuned_s, list(seconds))


def test_ties_are_shared_and_the_winner_is_the_one_that_tuning_prefers():
    results = {
        ("mini-batch", "p"): result("mini-batch", "p", 30.0, (30.0, 31.0, 29.0)),
        ("a", "p"): result("a", "p", 10.0, (10.0, 10.5, 9.5)),
        ("b", "p"): result("b", "p", 11.0, (9.9, 10.6, 9.5), "step size"),
        ("c", "p"): result("c", "p", math.inf, (math.inf,) * 3),
    }
    outcome = judge_race(results, ["mini-batch", "a", "b", "c"], ["p"], {"p": 2.5}, 8)
    assert "first: a 1, b 1 (" in outcome.finding and "3.00 to 3.00 times" in outcome.finding
    assert "step sizes: b (p);" in outcome.finding and "every seed: c (p)" in outcome.finding
    assert len(outcome.details) == 4 and outcome.verdict == "finding"


@pytest.mark.parametrize(("order", "verdict"), [((1, 2, 3, 4, 5), "holds"), ((5, 4, 3, 2, 1), "does not hold")])
def test_the_formula_is_judged_by_the_order_of_the_profiles(order, verdict):
    profiles = [f"p{i}" for i in range(5)]
    results = {("a", p): result("a", p, 1.0, (1.0, 1.0)) for p in profiles}
    for p, gain in zip(profiles, order, strict=True):
        results["mini-batch", p] = result("mini-batch", p, float(gain), (float(gain), gain + 0.1))
    predicted = {p: float(i) for i, p in enumerate(profiles)}
    assert judge_race(results, ["mini-batch", "a"], profiles, predicted, 8).verdict == verdict
