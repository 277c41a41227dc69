"""What theory says of the time to a small gradient, from the speeds of the workers alone; each up to a constant.

The constant is L Delta/eps for all methods alike, so that what they come to can be divided by each other.

Legend of the suffixes: _N workers, _K kinds of gradients, _A angles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

MOST_PRODUCTS = 3e8  # in `first_of_all`: a few seconds
_ANGLES = 4000


def optimal_time(seconds_N: Sequence[float], delta: float, smoothness: float, sigma2: float, eps: float) -> float:
    """The optimal time to eps for workers with the same data, up to a constant.

    Formula: min over m of ((1/m) sum_{i<=m} 1/h_i)^-1 (L Delta/eps + sigma^2 L Delta/(m eps^2)), h sorted.

    Example:
        >>> optimal_time([1.0, 1.0], delta=1.0, smoothness=1.0, sigma2=2.0, eps=1.0)
        2.0

    Reference: Tyurin, Richtarik, "Optimal time complexities of parallel stochastic optimization methods under a fixed
    computation model", arXiv:2305.12387.
    """
    speed, best = 0.0, float("inf")
    for m, seconds in enumerate(seconds_N, start=1):
        speed += 1.0 / seconds
        best = min(best, m / speed * (smoothness * delta / eps + sigma2 * smoothness * delta / (m * eps**2)))
    return best


def minibatch_time(slowest_s: float, n: int, delta: float, smoothness: float, sigma2: float, eps: float) -> float:
    """The same for mini-batch SGD: seconds per round times (L Delta/eps + sigma^2 L Delta/(n eps^2))."""
    return slowest_s * (smoothness * delta / eps + sigma2 * smoothness * delta / (n * eps**2))


def updates(noise: float, batch: float, damping: float = 1.0, spread: float = 1.0) -> float:
    """Updates until ||grad f||^2 is at most eps, in units of L Delta/eps.

    Formula: c + v sigma^2/(S eps): the bounds of mini-batch SGD and of delay-adaptive asynchronous SGD (Theorem 8) in
    one, where the theorem's c is the average delay (up to a constant) and ours is `damping`, see there.
    Arguments: noise: sigma^2/eps >= 0, sigma^2 of one job's gradient; batch: S, gradients per update; damping: c, how
    many times smaller steps must be than those of SGD without delays, 1 without any; spread: v = E[w^2]/E[w]^2 of the
    weights w that gradients get, >= 1.

    Example:
        >>> updates(noise=32.0, batch=16)
        3.0

    Reference: Koloskova, Stich, Jaggi, arXiv:2206.08307, Theorem 8.
    """
    return damping + spread * noise / batch


def damping(shares_K: Sequence[float], delays_K: Sequence[float], weights_K: Sequence[float]) -> float:
    """How many times smaller the largest stable step is than without delays, on a quadratic.

    Formula: 2/(a E[w]), a the smallest a > 0 with z - 1 = -a sum_k p_k w_k z^{-tau_k} for a |z| = 1: with step size
    a/L the update x <- x - a w x(now - tau) just keeps on swinging. For one delay tau and weight 1 it is
    1/sin(pi/(2(2 tau + 1))), about 1 + 1.27 tau (Claim 7 of `asgd claims` measures it to 0.1%).
    Arguments: kinds of gradients: shares_K: p_k of all that are used, adding up to 1; delays_K: tau_k >= 0 in updates;
    weights_K: w_k > 0, step sizes relative to the base step size.

    Why this and not the average delay, which the theorem has: a worker that is 30 times slower raises the average
    though its few gradients, shortened by the rule, hardly matter. With (1 + the average delay) in this place the
    method that is named first was within 10% of the best in 45 of 60 random settings (multiplied by the constant that
    suits best, 0.5, in 51), with the stable step in 55, with nothing fitted.

    Example:
        >>> round(damping([1.0], [0.0], [1.0]), 6), round(damping([1.0], [7.0], [1.0]), 2)
        (1.0, 9.57)
        >>> round(damping([0.8, 0.2], [1.0, 36.0], [1.0, 0.1]), 2)  # slow workers are late, and count little
        1.97
    """
    if not any(delays_K):
        return 1.0
    mean = sum(share * weight for share, weight in zip(shares_K, weights_K, strict=True))
    lowest = 0.05 / (1.0 + max(delays_K))
    angles_A = np.geomspace(lowest, math.pi, _ANGLES)
    sums_A = np.zeros(_ANGLES, np.complex128)
    for share, delay, weight in zip(shares_K, delays_K, weights_K, strict=True):
        sums_A += share * weight * np.exp(-1j * delay * angles_A)
    inverse_A = sums_A / (1.0 - np.exp(1j * angles_A))  # 1/a where it is real and above 0
    return 2.0 * _largest_real(inverse_A) / mean


def _largest_real(values_A: npt.NDArray[np.complex128]) -> float:
    """The largest real number that a curve passes; at its end (z = -1) it is real."""
    real, imaginary = values_A.real, values_A.imag
    places = np.nonzero(imaginary[:-1] * imaginary[1:] < 0)[0]
    part = imaginary[places] / (imaginary[places] - imaginary[places + 1])
    crossings = real[places] + part * (real[places + 1] - real[places])
    return float(max([real[-1], *crossings]))


def first_of_all(times_N: Sequence[Sequence[float]]) -> list[float]:
    """Expected seconds until m of n workers are done that began together, for m = 1 to n.

    Formula: E[T_(m)] = integral of P(fewer than m are done at t) dt, each worker's time being one of its own with equal
    probability, independent of the others'. Exact, without drawing; where n^2 times the number of distinct times is
    above 3e8, quantiles of those times are the places where the integrand is looked at.
    Arguments: times_N: seconds per job of each worker, at least one, > 0.

    Example:
        >>> first_of_all([[1.0], [4.0], [2.0]])
        [1.0, 2.0, 4.0]
        >>> first_of_all([[1.0, 3.0], [1.0, 3.0]])  # both are done at 1 in a quarter of the cases
        [1.5, 2.5]
    """
    places = np.unique(np.concatenate([np.asarray(times, np.float64) for times in times_N]))
    most = max(100, int(MOST_PRODUCTS / len(times_N) ** 2))
    if len(places) > most:
        places = np.quantile(places, np.linspace(0.0, 1.0, most))
    done = np.zeros((len(times_N) + 1, len(places)))  # P(exactly m are done) at each place
    done[0] = 1.0
    for n, times in enumerate(times_N, start=1):
        is_done = np.searchsorted(np.sort(times), places, side="right") / len(times)
        done[1 : n + 1] = done[1 : n + 1] * (1.0 - is_done) + done[:n] * is_done
        done[0] *= 1.0 - is_done
    fewer = np.cumsum(done, axis=0)[:-1, :-1]
    return [float(seconds) for seconds in places[0] + fewer @ np.diff(places)]
