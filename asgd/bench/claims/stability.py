"""Claim 7: the stability limit of equally fast workers, an exact test of the whole chain."""

from __future__ import annotations

import math

import numpy as np

from asgd.bench.claims.effort import Effort
from asgd.bench.claims.outcome import Measured, Outcome, Row, judge
from asgd.report.plots import Line, Plot
from asgd.sim.problems import diagonal
from asgd.sim.study import run_study, study_config

RESOLUTION = 0.0025  # of the step size, relative to the limit


def limit(delay: int, curvature: float = 1.0) -> float:
    """The largest stable step size of x <- x - eta lambda x_stale with a constant delay.

    Formula: 2 sin(pi / (2 (2 tau + 1))) / lambda.

    Example:
        >>> limit(0), round(limit(1), 6)
        (2.0, 1.0)

    Reference: the roots of z^{tau+1} - z^tau + eta lambda on the unit circle; a classical result.
    """
    return 2.0 * math.sin(math.pi / (2 * (2 * delay + 1))) / curvature


def measured_limit(num_workers: int, updates_per_worker: int, resolution: float) -> Measured:
    """The largest stable step size on f(x) = x^2/2, between the last one that shrinks and the first one that grows."""
    ratios = np.arange(0.95, 1.05 + resolution / 2, resolution)
    step_sizes = [float(ratio * limit(num_workers - 1)) for ratio in ratios]
    total = updates_per_worker * num_workers
    config = study_config("asynchronous", num_workers, rule="constant", budget={"versions": total})
    study = run_study(config, diagonal([1.0]), step_sizes, [0], every=1)
    norms_TE = np.stack(study.curve.norms)[:, :, 0]
    quarter = len(norms_TE) // 4
    # The largest over a quarter of the run: the iterates oscillate.
    grows_E = norms_TE[3 * quarter :].max(axis=0) > norms_TE[quarter : 2 * quarter].max(axis=0)
    first = int(np.argmax(grows_E)) if grows_E.any() else len(step_sizes) - 1
    low, high = step_sizes[max(first - 1, 0)], step_sizes[first]
    return Measured((low + high) / 2, low, high)


def check(effort: Effort) -> Outcome:
    """Equal speeds, constant step, n = 1 to 64: compare the measured limit with the formula."""
    counts = [1, 2, 4, 8] if effort.quick else [1, 2, 4, 8, 16, 32, 64]
    resolution = 0.01 if effort.quick else RESOLUTION
    limits = effort.map(measured_limit, [(n, 600 if effort.quick else 4000, resolution) for n in counts])
    rows = []
    for n, measured in zip(counts, limits, strict=True):
        expected = limit(n - 1)
        near = abs(measured.value / expected - 1) <= 1.5 * resolution
        rows.append(Row(f"n = {n}", f"{expected:.5g}", measured, judge(near)))
    worst = max(abs(m.value / limit(n - 1) - 1) for n, m in zip(counts, limits, strict=True))
    plot = Plot(
        "claim7_stability", "Largest stable step size, equal speeds, f(x) = x²/2", "workers n", "step size η",
        [
            Line("measured", counts, [m.value for m in limits], style="points"),
            Line("2 sin(π / (2 (2(n-1) + 1)))", counts, [limit(n - 1) for n in counts], style="predicted"),
        ],
        log_x=True, log_y=True,
    )  # fmt: skip
    finding = f"measured within {100 * worst:.2g}% of the formula for n = {counts[0]} to {counts[-1]}"
    return Outcome(rows, finding, [plot])
