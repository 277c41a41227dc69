"""Claims 2 and 3: what a growing largest delay costs at fixed concurrency, with constant and delay-adaptive steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from asgd.bench.claims.effort import Effort
from asgd.bench.claims.orders import ORDERS
from asgd.bench.claims.outcome import Measured, Outcome, Row, judge
from asgd.bench.claims.statistics import exponent
from asgd.report.plots import Line, Plot
from asgd.sim.problems import Problem, diagonal, log_spaced
from asgd.sim.study import Curve, run_study, study_config, until_mean_below
from asgd.sim.tune import octaves

NUM_WORKERS = 8
GRID = octaves(2**-8, 2.0)
PROBLEMS = {"quadratic": 3e-3, "waves": 1e-2}  # eps in units of ||grad f(x_0)||^2
UPDATES = 20_000  # at most, for a step size of the grid


def problem_named(name: str) -> tuple[Problem, float]:
    """The problem and eps. L = 1, Delta and sigma^2 are known; the noise is too small to set the number of iterations:
    what is looked at is the term with the delays.
    """
    eigenvalues, waves = log_spaced(20, 0.01), name == "waves"
    start = 2.5 if waves else 1.0
    eps = PROBLEMS[name] * diagonal(eigenvalues, start=start, waves=waves).start_norm
    return diagonal(eigenvalues, start=start, waves=waves, sigma2=eps), eps


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
    at most eps (the theorem's criterion); `stays`, until ||grad f||^2 stays at most eps. `max_delay`: as it was.
    """

    mean: np.ndarray
    stays: np.ndarray
    max_delay: int


def run(
    name: str, order: str, max_delay: int, rule: str, step_sizes: Sequence[float], seeds: Sequence[int], updates: int
) -> Needed:
    """Run all step sizes and seeds in one order of arrivals; the adversary plays against each one alone."""
    problem, eps = problem_named(name)
    config = study_config("asynchronous", NUM_WORKERS, rule=rule, budget={"versions": updates})

    def curve_of(some: Sequence[float], seeds: Sequence[int]) -> tuple[Curve, int]:
        arrivals = ORDERS[order](NUM_WORKERS, max_delay)
        study = run_study(config, problem, some, seeds, order=arrivals, done=until_mean_below(eps))
        return study.curve, study.state.ledger.max_used_delay

    if order != "adversary":
        curve, seen = curve_of(step_sizes, seeds)
        return Needed(curve.first_mean_ER(eps), curve.below_ER(eps), seen)
    cells = [[curve_of([step_size], [seed]) for seed in seeds] for step_size in step_sizes]
    means = [[float(curve.first_mean_ER(eps)[0, 0]) for curve, _ in row] for row in cells]
    stays = [[float(curve.below_ER(eps)[0, 0]) for curve, _ in row] for row in cells]
    return Needed(np.array(means), np.array(stays), max(seen for row in cells for _, seen in row))


def best_of(needed_ER: np.ndarray) -> int:
    """The place of the step size with the smallest mean over the seeds."""
    return int(np.argmin(needed_ER.mean(axis=1)))


class Setting(NamedTuple):
    """What claims 2 and 3 look at in one order on one problem, for each largest delay D (lists over D)."""

    problem: str
    order: str
    delays: list[int]
    theorem: list[float]  # updates to eps at the theorem's step
    tuned: list[float]  # at the best constant step
    largest: list[float]  # the largest constant step that gets there within UPDATES
    tuned_stays: list[float]
    fixed: float  # the one step size of the delay-adaptive rule, tuned at the smallest D
    adaptive: list[float]  # updates to eps with it
    adaptive_stays: list[float]
    constant_stays: list[float]  # a constant step of the same size


def measure(problem: str, order: str, delays: Sequence[int], seeds: Sequence[int]) -> Setting:
    """Run one order on one problem with every D, constant and delay-adaptive."""
    against_one = order == "adversary"
    step_sizes, seeds = (octaves(2**-5, 2.0, 2), seeds[:1]) if against_one else (GRID, seeds)
    theorem, tuned, largest, tuned_stays, adaptive, adaptive_stays, constant_stays = ([] for _ in range(7))
    fixed = 0
    for place, max_delay in enumerate(delays):
        alone = run(problem, order, max_delay, "constant", [theorem_step(max_delay)], seeds, 10**7)
        theorem.append(float(alone.mean.mean()))
        constant = run(problem, order, max_delay, "constant", step_sizes, seeds, UPDATES)
        tuned.append(float(constant.mean.mean(axis=1).min()))
        largest.append(
            max(eta for eta, needed_R in zip(step_sizes, constant.mean, strict=True) if np.isfinite(needed_R).all())
        )
        tuned_stays.append(float(constant.stays.mean(axis=1).min()))
        scaled = run(problem, order, max_delay, "scale", step_sizes, seeds, UPDATES)
        if place == 0:
            fixed = best_of(scaled.mean)
        adaptive.append(float(scaled.mean[fixed].mean()))
        adaptive_stays.append(float(scaled.stays[fixed].mean()))
        constant_stays.append(float(constant.stays[fixed].mean()))
    return Setting(
        problem, order, list(delays), theorem, tuned, largest, tuned_stays, step_sizes[fixed], adaptive,
        adaptive_stays, constant_stays,
    )  # fmt: skip


def measure_all(effort: Effort) -> list[Setting]:
    """Every order on every problem."""
    delays = [32, 64, 128] if effort.quick else [32, 64, 128, 256, 512]
    problems = list(PROBLEMS)[:1] if effort.quick else list(PROBLEMS)
    seeds = effort.seeds(4, quick=1)
    return effort.map(measure, [(problem, order, delays, seeds) for problem in problems for order in ORDERS])


def check_constant(settings: Sequence[Setting]) -> Outcome:
    """Claim 2: constant steps. The bound grows with tau_max^(1/2), older ones with tau_max; both are upper bounds."""
    rows, attained, tuned, stays = [], [], [], []
    for s in settings:
        at = f"{s.problem}, {s.order}"
        theorem = exponent(s.delays, s.theorem)
        rows.append(
            Row(
                f"{at}: updates to eps, theorem's step",
                "D^0.5: the step falls so",
                theorem,
                judge(abs(theorem.value - 0.5) < 0.1),
            )
        )
        best = exponent(s.delays, s.tuned)
        rows.append(Row(f"{at}: the same, best step", "at most D^0.5 (older: D^1)", best, judge(not_above(best, 0.5))))
        largest = exponent(s.delays, s.largest)
        rows.append(
            Row(
                f"{at}: largest step that works",
                "at least D^-0.5 (older: D^-1)",
                largest,
                judge(not_above(negative(largest), 0.5)),
            )
        )
        stay = exponent(s.delays, s.tuned_stays)
        rows.append(Row(f"{at}: until it stays below eps, best step", "", stay, "finding"))
        tuned.append(best.value)
        stays.append(stay.value)
        attained.append(-largest.value)
    finding = (
        "The bound's 1/2 shows only in the theorem's own step size. With the best step the exponents are "
        f"{min(tuned):.2f} to {max(tuned):.2f}, and the largest step that works falls with an exponent of at most "
        f"{max(attained):.2f}: no order tried attains the 1/2, and on a quadratic none can make a step unstable by its "
        "delays alone: there every order with concurrency C is stable for eta L C < 1, whatever tau_max (each change "
        "of sign needs stale gradients of the other sign, of which there are at most C, each at most as large as the "
        "largest before it). What does grow is the time until the gradient stays small "
        f"({min(stays):.2f} to {max(stays):.2f}): a stale gradient that comes late throws the iterate back."
    )
    return Outcome(rows, finding, [_plot_constant(settings, "quadratic")])


def check_adaptive(settings: Sequence[Setting]) -> Outcome:
    """Claim 3: delay-adaptive steps at one step size, tuned once, at the smallest D, for the concurrency."""
    rows, exponents = [], []
    for s in settings:
        at = f"{s.problem}, {s.order}, eta = {s.fixed:.3g}"
        mean = exponent(s.delays, s.adaptive)
        rows.append(Row(f"{at}: updates to eps", "D^0", mean, judge(not_above(mean, 0.1))))
        exponents.append(mean.value)
        for rule, needed in (("adaptive", s.adaptive_stays), ("constant step", s.constant_stays)):
            seen = ", ".join("never" if not math.isfinite(n) or n > 0.9 * UPDATES else f"{n:.0f}" for n in needed)
            rows.append(Row(f"{at}: until it stays below eps, {rule}", "", seen, "finding"))
    finding = (
        f"At one step size the exponents of the updates to eps in tau_max are {min(exponents):.2f} to "
        f"{max(exponents):.2f}: no growth. A constant step of the same size needs more and more updates until the "
        "gradient stays small, or never gets there."
    )
    return Outcome(rows, finding, [_plot_adaptive(settings, "quadratic")])


def not_above(measured: Measured, bound: float) -> bool:
    """Whether a measured exponent agrees with an upper bound: its interval reaches down to the bound."""
    return (measured.value if measured.low is None else measured.low) <= bound


def negative(measured: Measured) -> Measured:
    """The exponent of 1/y for that of y."""
    low, high = measured.low, measured.high
    return Measured(-measured.value, None if high is None else -high, None if low is None else -low)


def _plot_constant(settings: Sequence[Setting], problem: str) -> Plot:
    lines = [Line(f"{s.order}, best step", s.delays, s.tuned) for s in settings if s.problem == problem]
    first = next(s for s in settings if s.problem == problem)
    lines.append(Line("one straggler, theorem's step", first.delays, first.theorem))
    start = first.theorem[0]
    for power in (0.5, 1.0):
        growth = [start * (delay / first.delays[0]) ** power for delay in first.delays]
        lines.append(Line(f"growth D^{power:g}", first.delays, growth, style="predicted"))
    return Plot(
        "claim2_constant", f"Constant step, {NUM_WORKERS} workers: updates to eps ({problem})", "largest delay D",
        "updates until the mean of ||∇f||² is below eps", lines, log_x=True, log_y=True,
    )  # fmt: skip


def _plot_adaptive(settings: Sequence[Setting], problem: str) -> Plot:
    lines = [Line(f"{s.order}, adaptive", s.delays, s.adaptive) for s in settings if s.problem == problem]
    return Plot(
        "claim3_adaptive", f"Delay-adaptive at one step size, {NUM_WORKERS} workers ({problem})", "largest delay D",
        "updates until the mean of ||∇f||² is below eps", lines, log_x=True, log_y=True,
    )  # fmt: skip
