"""Quadratic problems for studies: smoothness, noise, heterogeneity and minimiser are known exactly.

The coordinates are the distances from the minimiser, so that f* = 0 at 0 and nothing is lost to rounding near it.

Legend of the suffixes: _D coordinates, _N workers, _R seeds; ... stands for any axes before them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Problem:
    """f(x) = x'Ax/2 with A diagonal or tridiagonal, or a sum of waves; worker i sees grad f(x) + b_i, plus noise.

    Arguments: start_D: the starting point; smoothness: L, the largest eigenvalue of A; sigma2: E||noise||^2 of one
    gradient, N(0, sigma2/d I); eigenvalues_D: of a diagonal A, None for A = tridiag(-1, 2, -1)/4; shifts_ND: b_i of
    each worker, with mean 0 (None: the same data for all); waves: f(x) = sum_i lambda_i (1 - cos x_i) instead, which is
    not convex, with the same L = max lambda_i.
    """

    start_D: Array
    smoothness: float
    sigma2: float
    eigenvalues_D: Array | None = None
    shifts_ND: Array | None = None
    waves: bool = False

    @property
    def dimension(self) -> int:
        return len(self.start_D)

    @property
    def start_value(self) -> float:
        """Delta = f(x_0) - f*."""
        if self.waves:
            assert self.eigenvalues_D is not None
            return float(np.sum(self.eigenvalues_D * (1 - np.cos(self.start_D)), dtype=np.float64))
        product_D = np.empty_like(self.start_D)
        self.gradient(self.start_D, None, out=product_D)
        return 0.5 * float(np.dot(self.start_D.astype(np.float64), product_D))

    @property
    def start_norm(self) -> float:
        """||grad f(x_0)||^2."""
        gradient_D = np.empty_like(self.start_D)
        self.gradient(self.start_D, None, out=gradient_D)
        return float(np.dot(gradient_D.astype(np.float64), gradient_D))

    def gradient(self, x: Array, worker: int | None, out: Array) -> None:
        """The exact gradient at x [..., D] of the worker's function (None: of f), into `out`."""
        if self.eigenvalues_D is not None:
            np.multiply(np.sin(x) if self.waves else x, self.eigenvalues_D, out=out)
        else:
            np.multiply(x, np.float32(2.0), out=out)
            out[..., 1:] -= x[..., :-1]
            out[..., :-1] -= x[..., 1:]
            out *= np.float32(0.25)
        if worker is not None and self.shifts_ND is not None:
            out += self.shifts_ND[worker]

    def noise(self, seeds_R: Sequence[int], job: int) -> Array | None:
        """The noise of a job for each seed, [R, D], depending on (seed, job) alone; None without any."""
        if self.sigma2 == 0.0:
            return None
        rows = [
            np.random.Generator(np.random.Philox(key=[seed, job])).standard_normal(self.dimension, dtype=np.float32)
            for seed in seeds_R
        ]
        return np.stack(rows) * np.float32(math.sqrt(self.sigma2 / self.dimension))


def diagonal(
    eigenvalues: Sequence[float],
    *,
    start: float | Sequence[float] = 1.0,
    sigma2: float = 0.0,
    shifts: Sequence[Sequence[float]] | npt.NDArray[np.floating] | None = None,
    waves: bool = False,
) -> Problem:
    """f(x) = sum_i lambda_i x_i^2 / 2 (with `waves`: the non-convex sum of lambda_i (1 - cos x_i)); every coordinate
    of the start is `start`, or it is given whole.

    Example:
        >>> diagonal([1.0, 3.0]).start_value
        2.0
    """
    eigenvalues_D = np.asarray(eigenvalues, np.float32)
    shifts_ND = None if shifts is None else np.asarray(shifts, np.float32)
    start_D = np.broadcast_to(np.asarray(start, np.float32), eigenvalues_D.shape).copy()
    return Problem(start_D, float(eigenvalues_D.max()), sigma2, eigenvalues_D, shifts_ND, waves)


def log_spaced(dimension: int, low: float, high: float = 1.0) -> list[float]:
    """Eigenvalues spaced evenly in the logarithm.

    Example:
        >>> [round(value, 3) for value in log_spaced(3, 0.01)]
        [0.01, 0.1, 1.0]
    """
    return [float(value) for value in np.geomspace(low, high, dimension)]


def tridiagonal(dimension: int = 1729, *, sigma2: float = 0.0) -> Problem:
    """The hard quadratic of first-order methods, A = tridiag(-1, 2, -1)/4 and b = (-1, 0, ..., 0)/4, from x = 0.

    In the coordinates here the start is minus the minimiser, 1 - i/(d+1) for i = 1..d. Delta = d/(8(d+1)).

    Example:
        >>> round(tridiagonal(3).start_value, 6), round(tridiagonal(3).start_norm, 6)
        (0.09375, 0.0625)

    Source: Nesterov, "Introductory Lectures on Convex Optimization", 2004, section 2.1.2; the same problem as the task
    `quadratic` with kind "tridiagonal".
    """
    places_D = np.arange(1, dimension + 1, dtype=np.float64)
    smoothness = (1 + math.cos(math.pi / (dimension + 1))) / 2
    return Problem((1 - places_D / (dimension + 1)).astype(np.float32), smoothness, sigma2)
