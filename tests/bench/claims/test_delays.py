"""Claims 2 and 3: what is measured in small settings, and verdicts and words on measurements that are made up."""

from __future__ import annotations

import numpy as np
import pytest

from asgd.bench.claims import delays
from asgd.bench.claims.delay_claims import judge_adaptive, judge_constant
from asgd.bench.claims.delays import ALLOWED_NAME, SUFFICIENT_NAME, TUNED_NAME, Setting


@pytest.mark.slow
def test_updates_to_eps_at_the_theorems_step_grow_as_the_step_falls():
    seen = [
        float(delays.run("quadratic", "one straggler", d, "constant", [delays.theorem_step(d)], [0], 10**6).mean[0, 0])
        for d in (32, 128)
    ]
    assert seen[1] / seen[0] == pytest.approx(2.0, rel=0.1)


def test_theorem_8_with_the_step_that_suffices_is_the_scale_rule():
    step = delays.SUFFICIENT
    runs = [
        delays.run("quadratic", "one straggler", 64, rule, [step], [0], 2000, **options).stays
        for rule, options in (("scale", {}), ("theory", {"rule_options": {"smoothness": step}}))
    ]
    assert np.array_equal(*runs)


def test_the_largest_step_that_settles_is_above_the_one_that_every_order_allows():
    assert delays.largest_settling("quadratic", "burst", 32) >= 1 / delays.NUM_WORKERS


def made_up(tuned=0.0, settles=0.0, adaptive=0.0, problem="waves", points=5, last=1e6):
    """A setting whose updates grow, and whose largest step falls, with these exponents of the largest delay."""
    at = [32 * 2**k for k in range(points)]

    def grown(power, constant=last):
        return np.array([[constant * factor * d**power for factor in (1.0, 1.01, 0.99)] for d in at])

    flat = grown(0.0)
    return Setting(
        problem, "burst", at, grown(0.5), grown(tuned), [0.1] * points, flat, flat, [0.5 * d**-settles for d in at],
        0.25, {SUFFICIENT_NAME: grown(adaptive), TUNED_NAME: flat, ALLOWED_NAME: flat}, flat, flat, flat,
    )  # fmt: skip


def test_claim_2_holds_below_one_half_and_says_what_it_saw():
    outcome = judge_constant([made_up(tuned=0.2, settles=0.1)])
    assert outcome.verdict == "holds"
    assert "best step 0.20 to 0.20" in outcome.finding and "no order that was tried attains" in outcome.finding


@pytest.mark.parametrize("wrong", [{"tuned": 1.0}, {"settles": 1.0}])
def test_claim_2_does_not_hold_where_something_grows_as_older_bounds_have_it(wrong):
    outcome = judge_constant([made_up(), made_up(**wrong)])
    assert outcome.verdict == "does not hold"
    assert "no order that was tried" not in outcome.finding and "1.00" in outcome.finding


def test_claim_2_is_undecided_from_few_points_or_short_runs():
    assert judge_constant([made_up(points=3)]).verdict == "undecided"
    assert judge_constant([made_up(last=100.0)]).verdict == "undecided"


def test_claim_3_holds_where_nothing_grows_and_not_where_something_does():
    assert judge_adaptive([made_up()]).verdict == "holds"
    grows = judge_adaptive([made_up(), made_up(adaptive=0.5)])
    assert grows.verdict == "does not hold" and "0.00 to 0.50" in grows.finding


def test_claim_3_counts_the_settings_that_never_get_there():
    never = made_up()._replace(constant=np.full((5, 3), np.inf))
    assert "in 1 of 2 settings" in judge_adaptive([made_up(), never]).finding
