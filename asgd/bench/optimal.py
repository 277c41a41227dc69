"""What theory says of the time to a small gradient, from the speeds of the workers alone; each up to a constant."""

from __future__ import annotations

from collections.abc import Sequence


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
