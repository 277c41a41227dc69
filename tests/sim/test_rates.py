"""The formulas of predicted times, against what is known exactly."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from asgd.sim.rates import damping, first_of_all, minibatch_time, optimal_time, updates


@pytest.mark.parametrize("delay", [1, 2, 7, 31, 300])
def test_damping_of_one_delay_is_that_of_claim_7(delay):
    exact = 1.0 / math.sin(math.pi / (2 * (2 * delay + 1)))
    assert damping([1.0], [delay], [1.0]) == pytest.approx(exact, rel=1e-4)
    assert damping([1.0], [delay], [0.3]) == pytest.approx(exact, rel=1e-4)  # smaller steps, larger step size: the same


def swings(step, shares, delays, weights, num=4000):
    """How large x gets at the end of x <- x - a sum_k p_k w_k x(now - tau_k), started at 1."""
    past = [1.0] * (max(delays) + 1)
    for _ in range(num):
        kinds = zip(shares, delays, weights, strict=True)
        past.append(past[-1] - step * sum(p * w * past[-1 - tau] for p, tau, w in kinds))
    return max(map(abs, past[-200:]))


@pytest.mark.parametrize(
    "kinds",
    [([0.8, 0.2], [3, 19], [1.0, 1.0]), ([0.8, 0.2], [3, 19], [1.0, 0.25]), ([0.5, 0.3, 0.2], [0, 5, 9], [1, 1, 1])],
)
def test_damping_of_several_delays_is_where_the_recursion_stops_to_settle(kinds):
    shares, _, weights = kinds
    mean = sum(p * w for p, w in zip(shares, weights, strict=True))
    largest = 2.0 / (damping(*kinds) * mean)
    assert swings(0.99 * largest, *kinds) < 1.0
    assert swings(1.01 * largest, *kinds) > 1.0


def test_m_th_of_all_is_the_mean_over_all_combinations():
    times = [[1.0, 2.0], [0.5, 3.0, 3.0], [2.5]]
    combinations = np.sort(np.array(list(product(*times))), axis=1)
    assert first_of_all(times) == pytest.approx(combinations.mean(axis=0).tolist())


def test_m_th_of_all_with_many_times_is_near_the_mean_over_drawn_ones():
    generator = np.random.Generator(np.random.Philox(key=[1, 2]))
    times = generator.exponential(size=(40, 3000))  # 120,000 distinct ones, at 1600 and more: quantiles
    drawn = np.sort(generator.exponential(size=(4000, 40)), axis=1).mean(axis=0)
    assert first_of_all(times.tolist()) == pytest.approx(drawn.tolist(), rel=0.05)


def test_bounds_of_equal_workers_are_the_same_up_to_who_must_wait():
    known = {"delta": 2.0, "smoothness": 3.0, "sigma2": 8.0, "eps": 0.5}
    assert optimal_time([1.0] * 4, **known) == minibatch_time(1.0, 4, **known)
    assert minibatch_time(1.0, 4, **known) == pytest.approx(2.0 * 3.0 / 0.5 * updates(8.0 / 0.5, 4))
