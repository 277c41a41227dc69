"""Claims 2 and 3: what a growing largest delay costs at fixed concurrency, with constant and delay-adaptive steps.

Legend of the suffixes: _E step sizes, _R seeds, _D largest delays.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from asgd.bench.claims.effort import Effort
from asgd.bench.claims.orders import ORDERS
from asgd.sim.problems import Problem, diagonal, log_spaced
from asgd.sim.study import Study, run_study, study_config, until_mean_below
from asgd.sim.tune import octaves

NUM_WORKERS = 8
GRID = octaves(2**-6, 2.0)
ADVERSARYS_GRID = octaves(2**-4, 2**-1, 1)  # it plays against each step size and seed alone
FINE_GRID = octaves(2**-4, 2.0, 12)
PROBLEMS = {"quadratic": 1e-3, "waves": 5e-3}  # eps in units of ||grad f(x_0)||^2
UPDATES = 60_000  # at most, for a step size of the grid
SETTLES_IN = 32  # largest delays: so long runs of the fine grid are
# eta L. Theorem 8 says that there is an eta up to the first; with the second its step sizes are those of `scale`.
LARGEST_ALLOWED, SUFFICIENT = 1 / 4, 1 / (4 * NUM_WORKERS)
ALLOWED_NAME, SUFFICIENT_NAME, TUNED_NAME = (
    "Theorem 8, eta = 1/(4L)", "Theorem 8, eta = 1/(4L tau_C)", "scale, eta tuned at the smallest"
)  # fmt: skip


def problem_named(name: str, noise: float = 1.0) -> tuple[Problem, float]:
    """The problem and eps. L = 1, Delta and sigma^2 = noise eps are known; the noise is too small to set the number of
    updates: what is looked at is the term with the delays.
    """
    eigenvalues, waves = log_spaced(20, 0.01), name == "waves"
    start = 2.5 if waves else 1.0
    eps = PROBLEMS[name] * diagonal(eigenvalues, start=start, waves=waves).start_norm
    return diagonal(eigenvalues, start=start, waves=waves, sigma2=noise * eps), eps


def theorem_step(max_delay: int) -> float:
    """The constant step size of Theorem 6, eta = 1/(2 sqrt(2) L sqrt(tau_C tau_max)), with L = 1.

    The other bound on eta, that of the noise, is larger here.

    Example:
        >>> round(theorem_step(16), 4)
        0.0312
    """
    return 1.0 / (2.0 * math.sqrt(2.0) * math.sqrt(NUM_WORKERS * max_delay))


class Needed(NamedTuple):
    """Updates to eps by step size and seed, [E, R]: `mean`, until the mean of ||grad f||^2 over all updates so far is
    at most eps (the theorem's criterion); `stays`, until ||grad f||^2 stays at most eps to the end of the run;
    `max_delay`: the largest delay that there was.
    """

    mean: np.ndarray
    stays: np.ndarray
    max_delay: int


def run(
    problem: str, order: str, max_delay: int, rule: str, step_sizes: Sequence[float], seeds: Sequence[int],
    updates: int = UPDATES, **of_method: Any,
) -> Needed:  # fmt: skip
    """Run all step sizes and seeds in one order of arrivals; the adversary plays against each one alone."""
    made, eps = problem_named(problem)
    config = study_config("asynchronous", NUM_WORKERS, rule=rule, budget={"versions": updates}, **of_method)

    def needed(some: Sequence[float], seeds: Sequence[int]) -> Needed:
        arrivals = ORDERS[order](NUM_WORKERS, max_delay)
        study = run_study(config, made, some, seeds, order=arrivals, done=until_mean_below(eps))
        return Needed(study.curve.first_mean_ER(eps), study.curve.below_ER(eps), study.state.ledger.max_delay())

    if order != "adversary":
        return needed(step_sizes, seeds)
    cells = [[needed([step_size], [seed]) for seed in seeds] for step_size in step_sizes]
    return Needed(
        np.array([[float(cell.mean[0, 0]) for cell in row] for row in cells]),
        np.array([[float(cell.stays[0, 0]) for cell in row] for row in cells]),
        max(cell.max_delay for row in cells for cell in row),
    )


def largest_settling(problem: str, order: str, max_delay: int) -> float:
    """The largest step size of the fine grid that settles: without noise, ||grad f||^2 is below eps all through the
    last quarter of SETTLES_IN largest delays; 0.0 if none does.
    """
    made, eps = problem_named(problem, noise=0.0)
    config = study_config(
        "asynchronous", NUM_WORKERS, rule="constant", budget={"versions": max(6000, SETTLES_IN * max_delay)}
    )

    def settles(some: Sequence[float]) -> list[bool]:
        study: Study = run_study(config, made, some, [0], order=ORDERS[order](NUM_WORKERS, max_delay))
        norms_TE = np.stack(study.curve.norms)[:, :, 0]
        highest_E = norms_TE[3 * len(norms_TE) // 4 :].max(axis=0)
        return [float(highest) <= eps for highest in highest_E]

    if order != "adversary":
        return max((step for step, ok in zip(FINE_GRID, settles(FINE_GRID), strict=True) if ok), default=0.0)
    return next((step for step in reversed(FINE_GRID[::3]) if settles([step])[0]), 0.0)


class Setting(NamedTuple):
    """One order on one problem, for each largest delay (the outer axis, D). Updates are by seed, [D, R]."""

    problem: str
    order: str
    max_delays: list[int]  # as they were
    theorem: np.ndarray  # updates to eps at the theorem's step
    tuned: np.ndarray  # at the best constant step of the grid, which `tuned_steps` are
    tuned_steps: list[float]
    tuned_stays: np.ndarray
    at_largest: np.ndarray  # at the largest step of the grid that gets there with all seeds
    largest: list[float]  # the largest step that settles, [D]
    fixed: float  # the step size that `scale` is best with at the smallest D
    adaptive: dict[str, np.ndarray]  # updates to eps with one step size for all D, by what it is
    adaptive_stays: np.ndarray  # of `scale` at `fixed`
    constant: np.ndarray  # a constant step of size `fixed`
    constant_stays: np.ndarray


_BY_SEED = ("theorem", "tuned", "tuned_stays", "at_largest", "adaptive_stays", "constant", "constant_stays")


def best_of(needed_ER: np.ndarray) -> int:
    """The place of the step size with the smallest mean over the seeds."""
    return int(np.argmin(needed_ER.mean(axis=1)))


def measure(problem: str, order: str, delays: Sequence[int], num_seeds: int) -> Setting:
    """Run one order on one problem with every D, constant and delay-adaptive; the noise is fresh for each D."""
    grid = ADVERSARYS_GRID if order == "adversary" else GRID
    columns: dict[str, list[Any]] = {name: [] for name in (*_BY_SEED, "max_delays", "tuned_steps", "largest")}
    adaptive: dict[str, list[Any]] = {SUFFICIENT_NAME: [], TUNED_NAME: [], ALLOWED_NAME: []}
    fixed = 0
    for place, max_delay in enumerate(delays):
        seeds = [100 * place + seed for seed in range(num_seeds)]
        go = functools.partial(run, problem, order, max_delay, seeds=seeds)
        at_theorem = go("constant", [theorem_step(max_delay)], updates=10**7)
        constant, scaled = go("constant", grid), go("scale", grid)
        if place == 0:
            fixed = best_of(scaled.mean)
        best = best_of(constant.mean)
        largest = [place for place, needed_R in enumerate(constant.mean) if np.isfinite(needed_R).all()]
        columns["max_delays"].append(at_theorem.max_delay)
        columns["theorem"].append(at_theorem.mean[0])
        columns["tuned"].append(constant.mean[best])
        columns["tuned_steps"].append(grid[best])
        columns["tuned_stays"].append(constant.stays[best])
        columns["at_largest"].append(constant.mean[largest[-1] if largest else best])
        columns["largest"].append(largest_settling(problem, order, max_delay))
        columns["constant"].append(constant.mean[fixed])
        columns["constant_stays"].append(constant.stays[fixed])
        columns["adaptive_stays"].append(scaled.stays[fixed])
        # With the base step size 1 of a study, `theory` reads L as eta L.
        allowed = go("theory", [LARGEST_ALLOWED], rule_options={"smoothness": LARGEST_ALLOWED})
        adaptive[ALLOWED_NAME].append(allowed.mean[0])
        adaptive[SUFFICIENT_NAME].append(go("scale", [SUFFICIENT], updates=10**6).mean[0])
        adaptive[TUNED_NAME].append(scaled.mean[fixed])
    updates = {name: np.array(columns[name]) for name in _BY_SEED}
    return Setting(
        problem=problem,
        order=order,
        max_delays=columns["max_delays"],
        tuned_steps=columns["tuned_steps"],
        largest=columns["largest"],
        fixed=grid[fixed],
        adaptive={name: np.array(column) for name, column in adaptive.items()},
        **updates,
    )


@functools.lru_cache(maxsize=1)
def measure_all(effort: Effort) -> list[Setting]:
    """Every order on every problem; claims 2 and 3 share what is measured."""
    delays = [32, 64, 128] if effort.quick else [32, 64, 128, 256, 512]
    problems = list(PROBLEMS)[:1] if effort.quick else list(PROBLEMS)
    num_seeds = len(effort.seeds(4, quick=2))
    # The adversary takes longest, so it begins.
    cells = [
        (problem, order, delays, 2 if order == "adversary" else num_seeds)
        for order in sorted(ORDERS, key=lambda name: name != "adversary")
        for problem in problems
    ]
    return effort.map(measure, cells)
