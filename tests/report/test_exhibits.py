"""Thinning: nothing is lost but places; what was done is said."""

from __future__ import annotations

import numpy as np
import pytest

from asgd.report.exhibits import thinned, thinning


def test_a_short_series_stays_as_it_is():
    x, y = np.array([0.0, 1.0, 1.0]), np.array([3.0, np.nan, 5.0])
    one = thinned(x, y)
    assert (one.x, one.mean, one.low, one.high, one.most) == ([0.0, 1.0], [3.0, 5.0], [3.0, 5.0], [3.0, 5.0], 1)
    assert thinning([one], "gradients", True) == ""


@pytest.mark.parametrize("count", [241, 1000, 30_000])
def test_a_long_series_keeps_its_mean_and_its_extremes(count):
    generator = np.random.default_rng(count)
    x, y = np.sort(generator.exponential(size=count)), generator.normal(size=count)
    one = thinned(x, y)
    assert len(one.x) <= 240 and one.x == sorted(one.x)
    assert min(one.low) == y.min() and max(one.high) == y.max()
    assert all(low <= mean <= high for low, mean, high in zip(one.low, one.mean, one.high, strict=True))
    assert f"up to {one.most:,} gradients, the band" in thinning([one], "gradients", True)


def test_a_series_at_one_place_or_of_nothing():
    one = thinned(np.zeros(1000), np.arange(1000.0))
    assert (one.x, one.mean, one.low, one.high, one.most) == ([0.0], [499.5], [0.0], [999.0], 1000)
    assert thinned(np.zeros(0), np.zeros(0)).x == []
    assert thinned(np.zeros(500), np.full(500, np.nan)).x == []
