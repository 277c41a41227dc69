"""Claim 4: asynchronous SGD with delay-adaptive steps against mini-batch SGD in seconds to eps, under every profile."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from asgd.bench.claims.effort import Effort
from asgd.bench.claims.outcome import Measured, Outcome, Row, Verdict
from asgd.bench.claims.profiles import NAMES, pace, speeds_of
from asgd.bench.claims.statistics import mean
from asgd.config import Config
from asgd.errors import RunError
from asgd.report.plots import Line, Plot
from asgd.sim.problems import tridiagonal
from asgd.sim.rates import minibatch_time, optimal_time
from asgd.sim.study import Curve, run_study, study_config, tuned, until_below
from asgd.sim.tune import octaves

METHODS = ("asynchronous", "minibatch")
LOWEST, HIGHEST = 2.0**-5, 2.0  # of the grid 2^(k/3), which is widened when the best step size is at its edge
MOST = 40_000  # gradients of a run; a good step size needs a few thousand
LONG_S = 2000.0  # what the speeds are averaged over for each seed; the fastest worker's job takes 1 s


class Setting(NamedTuple):
    """n workers on the tridiagonal quadratic, d = 1729, L = 1. `noise` = sigma^2/eps: at n the terms sigma^2/eps^2
    and n/eps of the bounds are equal. `tuning` are the seeds that step sizes are chosen on, `seeds` those that are
    measured; of the noise and of the speeds.

    The first look at which the target is reached counts, and `every` favours asynchronous SGD a little: its model
    moves between any two looks, that of mini-batch SGD with each n-th gradient only. With a look at every 16th gradient
    it needed 2.6% more seconds (half_slower, n = 16, eps = 1e-4, 3 seeds).
    """

    profile: str
    num_workers: int
    eps: float
    noise: float
    tuning: tuple[int, ...]
    seeds: tuple[int, ...]
    every: int = 4  # gradients between two looks at ||grad f||^2


class Best(NamedTuple):
    """A method's best step size of the grid, and what each seed needed with it until ||grad f||^2 was at most eps."""

    step_size: float
    seconds: list[float]
    gradients: list[float]


class Compared(NamedTuple):
    """Both methods in one setting, and the predictions of the ratio of their times from the speeds alone."""

    setting: Setting
    asynchronous: Best
    minibatch: Best
    by_throughput: float
    by_optimal_time: float

    @property
    def ratio(self) -> Measured:
        """How many times longer mini-batch takes; seeds are compared with each other."""
        return ratio(self.minibatch.seconds, self.asynchronous.seconds)


def ratio(longer: Sequence[float], shorter: Sequence[float]) -> Measured:
    """The mean of the quotients, seed by seed.

    Example:
        >>> ratio([4.0, 4.0], [2.0, 2.0])
        Measured(value=2.0, low=None, high=None)
    """
    return mean([a / b for a, b in zip(longer, shorter, strict=True)])


def best_of(setting: Setting, method: str) -> Best:
    """Tune a method on the grid, then measure it on fresh seeds; each is a run of its own, with its own speeds.

    Errors: RunError when the best step size stays at the edge of the grid, however wide.
    """
    # More noise than n eps needs smaller steps.
    low, high = LOWEST * min(1.0, setting.num_workers / setting.noise), HIGHEST
    for _ in range(4):
        step_sizes = octaves(low, high)
        curves = [_curve(setting, method, step_sizes, seed) for seed in setting.tuning]
        best = tuned(step_sizes, np.stack([curve.first_ER(setting.eps)[:, 0] for curve in curves], axis=1))
        if not best.at_edge:
            fresh = [_curve(setting, method, [best.step_size], seed) for seed in setting.seeds]
            seconds, gradients = (
                [float(curve.first_ER(setting.eps, over)[0, 0]) for curve in fresh] for over in ("times_s", "gradients")
            )
            return Best(best.step_size, seconds, gradients)
        low, high = (low / 4, high) if best.step_size == step_sizes[0] else (low, high * 2)
    raise RunError(f"{method}, {setting}: the best step size is at the edge of the grid, {best.step_size:.3g}")


def _curve(setting: Setting, method: str, step_sizes: Sequence[float], seed: int) -> Curve:
    problem = tridiagonal(sigma2=setting.noise * setting.eps)
    config = _config(setting, method, seed)
    return run_study(config, problem, step_sizes, [seed], every=setting.every, done=until_below(setting.eps)).curve


def _config(setting: Setting, method: str, seed: int) -> Config:
    speeds = speeds_of(setting.profile)
    return study_config(method, setting.num_workers, speeds=speeds, budget={"gradients": MOST}, seed=seed)


def compare(setting: Setting) -> Compared:
    """Tune and run both methods in virtual time."""
    speeds = pace([_config(setting, "asynchronous", seed) for seed in setting.seeds], LONG_S)
    asynchronous, minibatch = (best_of(setting, method) for method in METHODS)
    # L Delta/eps cancels in the quotient: all of it is 1 here.
    known = {"delta": 1.0, "smoothness": 1.0, "sigma2": setting.noise, "eps": 1.0}
    slow = minibatch_time(speeds.round_s, setting.num_workers, **known)
    by_optimal_time = slow / optimal_time(sorted(speeds.seconds_N), **known)
    return Compared(setting, asynchronous, minibatch, speeds.asynchronous / speeds.minibatch, by_optimal_time)


class Real(NamedTuple):
    """Seconds to eps on real processes with the step sizes tuned in virtual time, seed by seed; infinite where a run's
    budget was used up before.
    """

    virtual: Compared
    asynchronous: list[float]
    minibatch: list[float]

    @property
    def missed(self) -> dict[str, int]:
        """How many runs of each method didn't get to eps."""
        return {
            name: sum(map(math.isinf, seconds))
            for name, seconds in (("asynchronous", self.asynchronous), ("mini-batch", self.minibatch))
        }

    @property
    def ratio(self) -> Measured | None:
        """That of the seeds with which both methods got to eps; None if there is none."""
        both = [(a, b) for a, b in zip(self.minibatch, self.asynchronous, strict=True) if a + b < math.inf]
        return ratio(*zip(*both, strict=True)) if both else None

    @property
    def shown(self) -> Measured | str:
        """The ratio; in words when a run missed eps."""
        if not any(self.missed.values()):
            assert self.ratio is not None
            return self.ratio
        missed = ", ".join(f"{name} in {count} of {len(self.minibatch)}" for name, count in self.missed.items())
        return f"not reached: {missed}" + ("" if self.ratio is None else f"; where both reached it {self.ratio}")


REAL_SECONDS = 0.02  # of the fastest worker's jobs: long against what a job really takes
SLACK = 1.3  # the gradients of a real run, relative to what is needed in virtual time


def real_seconds(setting: Setting, method: str, best: Best, seed: int) -> float:
    """Seconds of one real run until ||grad f||^2 was at most eps; infinite when its budget was too short for that."""
    from asgd.api import train

    gradients = int(SLACK * max(best.gradients))
    config = {
        "seed": seed,
        "task": {
            "function": "asgd.bench.claims.real_task:tridiagonal",
            "options": {"sigma2": setting.noise * setting.eps},
            "batch_size": 1,
        },
        "method": {"name": method, "rule": "scale", "step_size": best.step_size},
        "cluster": {"num_workers": setting.num_workers, "speeds": speeds_of(setting.profile, REAL_SECONDS)},
        "budget": {"gradients": gradients},
        "evaluation": {"evaluate": "after", "every_samples": setting.every},
    }
    with TemporaryDirectory(prefix="asgd-claim4-") as folder:
        run = train(config, run_dir=Path(folder) / "run")
        for row in run.metrics:
            norm = row.results["gradient_norm2"]
            if norm is not None and norm <= setting.eps:
                return row.time_s
    return math.inf


def row_of(compared: Compared) -> list[Row]:
    """Whether asynchronous SGD is faster, and by how much; and what each method needed."""
    setting, measured = compared.setting, compared.ratio
    where = f"{setting.profile}, n = {setting.num_workers}, sigma^2/eps = {setting.noise:g}"
    predicted = (
        f"above 1; {compared.by_throughput:.3g} by gradients per second, {compared.by_optimal_time:.3g} by optimal time"
    )
    needed = "; ".join(
        f"{name} {mean(best.seconds)} s, {mean(best.gradients)} gradients, eta = {best.step_size:.3g}"
        for name, best in (("asynchronous", compared.asynchronous), ("mini-batch", compared.minibatch))
    )
    return [
        Row(f"{where}: time of mini-batch / asynchronous", predicted, measured, sooner(measured)),
        Row(f"{where}: needed", "", needed, "finding"),
    ]


def real_row(real: Real) -> Row:
    """The ratio on real processes, beside that in virtual time."""
    setting = real.virtual.setting
    where = f"{setting.profile}, n = {setting.num_workers}, real processes, jobs of {1000 * REAL_SECONDS:g} ms"
    predicted = (
        f"above 1; {real.virtual.ratio} in virtual time, {real.virtual.by_throughput:.3g} by gradients per second"
    )
    shown = real.shown
    # A run that didn't get there has no time: then nothing is decided, whichever method's it was.
    return Row(f"{where}: the same", predicted, shown, "undecided" if isinstance(shown, str) else sooner(shown))


def sooner(measured: Measured) -> Verdict:
    """The verdict on a ratio above 1: the whole interval must lie on one side of 1.

    Example:
        >>> [sooner(Measured(value, value - 0.1, value + 0.1)) for value in (1.2, 1.0, 0.8)]
        ['holds', 'undecided', 'does not hold']
    """
    low = measured.value if measured.low is None else measured.low
    high = measured.value if measured.high is None else measured.high
    return "holds" if low > 1.0 else "undecided" if high > 1.0 else "does not hold"


def check(effort: Effort) -> Outcome:
    """Every emulated profile in virtual time, equal speeds with less and more noise, some on real processes."""
    eps, n, seeds = (1e-4 if effort.quick else 3e-5), 16, tuple(range(1000, 1000 + (4 if effort.quick else 8)))
    tuning = tuple(effort.seeds(3, quick=1))
    settings = [Setting(profile, n, eps, float(n), tuning, seeds) for profile in NAMES]
    settings += [Setting("equal", n, 2e-4, noise, tuning, seeds) for noise in (1.0, 128.0)]
    on_processes = (
        [
            Setting(profile, 8, 2e-4, 8.0, tuning, seeds[: 1 if effort.quick else 3])
            for profile in ("half_slower", "straggler", "equal")
        ]
        if effort.real
        else []
    )
    found = effort.map(compare, [(setting,) for setting in settings + on_processes])
    virtual, to_run = found[: len(settings)], found[len(settings) :]
    real = [_on_processes(effort, compared) for compared in to_run]
    rows = [row for compared in virtual for row in row_of(compared)] + [real_row(one) for one in real]
    return Outcome(rows, _finding(virtual[: len(NAMES)], virtual[len(NAMES) :], real), [_plot(virtual[: len(NAMES)])])


def _on_processes(effort: Effort, compared: Compared) -> Real:
    """One run at a time: they share the machine's cores, and their times are what is measured."""
    setting = compared.setting
    effort.say(f"claim 4: {setting.profile} on {setting.num_workers} real workers ...")
    asynchronous, minibatch = (
        [real_seconds(setting, method, best, seed) for seed in setting.seeds]
        for method, best in (("asynchronous", compared.asynchronous), ("minibatch", compared.minibatch))
    )
    return Real(compared, asynchronous, minibatch)


def _finding(profiles: Sequence[Compared], equal: Sequence[Compared], real: Sequence[Real]) -> str:
    lost = [one for one in profiles if sooner(one.ratio) != "holds"]
    ratios = [one.ratio.value for one in profiles]
    shares = [one.ratio.value / one.by_throughput for one in profiles]
    text = (
        f"Asynchronous SGD is faster under {len(profiles) - len(lost)} of {len(profiles)} profiles; mini-batch takes "
        f"{min(ratios):.3g} to {max(ratios):.3g} times as long, which is {min(shares):.2f} to {max(shares):.2f} of "
        "what the gradients per second say (by the bounds both methods need as many gradients)."
    )
    if lost:
        names = ", ".join(f"{one.setting.profile} ({one.ratio})" for one in lost)
        text += f" It is not shown to be under {names}."
    noises = ", ".join(f"{one.ratio.value:.2f} with sigma^2/eps = {one.setting.noise:g}" for one in equal)
    text += f" With equal speeds nobody waits, and what is left is what staleness changes: the ratio is {noises}."
    if real:
        seen = "; ".join(f"{o.virtual.setting.profile} {o.shown} ({o.virtual.ratio})" for o in real)
        text += f" On real processes (in virtual time): {seen}."
    return text


def _plot(profiles: Sequence[Compared]) -> Plot:
    names = [one.setting.profile for one in profiles]
    ratios = [one.ratio for one in profiles]
    low = [r.value if r.low is None else r.low for r in ratios]
    high = [r.value if r.high is None else r.high for r in ratios]
    return Plot(
        "claim4_speedup", f"Time to eps, mini-batch over asynchronous, {profiles[0].setting.num_workers} workers",
        "", "how many times faster",
        [
            Line("measured (95%)", names, [r.value for r in ratios], low, high, style="bars"),
            Line("predicted by gradients per second", names, [one.by_throughput for one in profiles], style="bars"),
            Line("predicted by optimal time", names, [one.by_optimal_time for one in profiles], style="bars"),
        ],
    )  # fmt: skip
