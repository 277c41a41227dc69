"""Claim 7: the stability limit of equally fast workers, an exact test of the whole chain."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from asgd.bench.claims.effort import Effort
from asgd.bench.claims.outcome import Measured, Outcome, Row, judge
from asgd.report.plots import Line, Plot
from asgd.sim.problems import diagonal
from asgd.sim.study import run_study, study_config

RESOLUTION = 0.0025  # of the step size, relative to the limit
LOWEST, HIGHEST = 0.95, 1.05  # of the step sizes that are tried, relative to the limit


def limit(delay: int, curvature: float = 1.0) -> float:
    """The largest stable step size of x <- x - eta lambda x_stale with a constant delay.

    Formula: 2 sin(pi / (2 (2 tau + 1))) / lambda.

    Example:
        >>> limit(0), round(limit(1), 6)
        (2.0, 1.0)

    Reference: the roots of z^{tau+1} - z^tau + eta lambda on the unit circle; a classical result.
    """
    return 2.0 * math.sin(math.pi / (2 * (2 * delay + 1))) / curvature


class Bracket(NamedTuple):
    """The largest step size of the grid below the first one with which the iterates grow, and that one; `low` is None
    when they grow with the smallest already, `high` is None when they grow with none.
    """

    low: float | None
    high: float | None

    @property
    def value(self) -> float:
        """The middle; nan when the limit isn't on the grid."""
        return math.nan if self.low is None or self.high is None else (self.low + self.high) / 2

    @property
    def shown(self) -> Measured | str:
        if self.low is None:
            return f"grows with all step sizes from {self.high:.5g} on: the limit is below the grid"
        if self.high is None:
            return f"grows with no step size up to {self.low:.5g}: the limit is above the grid"
        return Measured(self.value, self.low, self.high)


def measured_limit(num_workers: int, updates_per_worker: int, resolution: float) -> Bracket:
    """Where on a grid around the formula f(x) = x^2/2 begins to grow: from its second quarter of the run to the last.

    What isn't finite any more has grown.
    """
    ratios = np.arange(LOWEST, HIGHEST + resolution / 2, resolution)
    step_sizes = [float(ratio * limit(num_workers - 1)) for ratio in ratios]
    total = updates_per_worker * num_workers
    config = study_config("asynchronous", num_workers, rule="constant", budget={"versions": total})
    study = run_study(config, diagonal([1.0]), step_sizes, [0], every=1)
    norms_TE = np.stack(study.curve.norms)[:, :, 0]
    quarter = len(norms_TE) // 4
    # The largest over a quarter of the run: the iterates oscillate.
    early_E, late_E = norms_TE[quarter : 2 * quarter].max(axis=0), norms_TE[3 * quarter :].max(axis=0)
    grows_E = ~np.isfinite(late_E) | (late_E > early_E)
    if not grows_E.any():
        return Bracket(step_sizes[-1], None)
    first = int(np.argmax(grows_E))
    return Bracket(step_sizes[first - 1] if first else None, step_sizes[first])


def check(effort: Effort) -> Outcome:
    """Equal speeds, constant step, n = 1 to 64: compare the measured limit with the formula."""
    counts = [1, 2, 4, 8] if effort.quick else [1, 2, 4, 8, 16, 32, 64]
    resolution = 0.01 if effort.quick else RESOLUTION
    limits = effort.map(measured_limit, [(n, 600 if effort.quick else 4000, resolution) for n in counts])
    seen = dict(zip(counts, limits, strict=True))
    rows = [
        Row(
            f"n = {n}: largest stable step size, between two of a grid in steps of {100 * resolution:g}%",
            f"{limit(n - 1):.5g}",
            bracket.shown,
            judge(off(n, bracket) <= 1.5 * resolution),
        )
        for n, bracket in seen.items()
    ]
    inside = [n for n, bracket in seen.items() if not math.isnan(bracket.value)]
    plot = Plot(
        "claim7_stability", "Largest stable step size, equal speeds, f(x) = x²/2", "workers n", "step size η",
        [
            Line("measured", inside, [seen[n].value for n in inside], style="points"),
            Line("2 sin(π / (2 (2(n-1) + 1)))", counts, [limit(n - 1) for n in counts], style="predicted"),
        ],
        log_x=True, log_y=True,
    )  # fmt: skip
    return Outcome(rows, _finding(seen), [plot])


def off(num_workers: int, bracket: Bracket) -> float:
    """How far the middle of a bracket is from the formula, relative to that; infinite when it isn't on the grid."""
    return math.inf if math.isnan(bracket.value) else abs(bracket.value / limit(num_workers - 1) - 1)


def _finding(seen: Mapping[int, Bracket]) -> str:
    inside = [n for n, bracket in seen.items() if not math.isnan(bracket.value)]
    sentences = []
    if inside:
        worst = max(off(n, seen[n]) for n in inside)
        sentences.append(f"measured within {100 * worst:.2g}% of the formula for n = {', '.join(map(str, inside))}")
    sentences += [f"n = {n} {bracket.shown}" for n, bracket in seen.items() if n not in inside]
    return "; ".join(sentences)
