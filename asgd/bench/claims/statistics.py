"""Intervals and fits of the claims, by scipy.stats."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from asgd.bench.claims.outcome import Measured

CONFIDENCE = 0.95


def mean(values: Sequence[float]) -> Measured:
    """The mean with its 95% interval by Student's t; without an interval from a single value or equal ones.

    Example:
        >>> str(mean([1.0, 2.0, 3.0]))
        '2 [-0.4841, 4.484]'
    """
    from scipy import stats

    array = np.asarray(values, np.float64)
    centre = float(array.mean())
    if len(array) < 2 or not np.isfinite(array).all() or float(array.std()) == 0.0:
        return Measured(centre)
    low, high = stats.t.interval(CONFIDENCE, len(array) - 1, loc=centre, scale=stats.sem(array))
    return Measured(centre, float(low), float(high))


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """p of y = c x^p by least squares in the logarithms; nan where a number isn't finite and above 0.

    Example:
        >>> round(exponent([1.0, 2.0, 4.0], [3.0, 12.0, 48.0]), 6)
        2.0
    """
    from scipy import stats

    if not all(0.0 < value < math.inf for value in (*x, *y)):
        return math.nan
    return float(stats.linregress(np.log(x), np.log(y)).slope)


def exponents(x_RN: Sequence[Sequence[float]], y_RN: Sequence[Sequence[float]]) -> Measured:
    """The mean over seeds of the exponent that each seed's own points have, with its 95% interval over the seeds.

    Example:
        >>> round(exponents([[1.0, 2.0], [1.0, 2.0]], [[1.0, 2.0], [3.0, 12.0]]).value, 6)
        1.5
    """
    return mean([exponent(x_N, y_N) for x_N, y_N in zip(x_RN, y_RN, strict=True)])
