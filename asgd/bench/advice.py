"""Is the advice good? Random speeds and noises in virtual time: the method that is named first against the best one.

In each setting n workers have random speeds and a job's time may vary, sigma^2/eps is random too. The advisor gets what
it would get of a run: 50 times of each worker (or its only time), and sigma^2/eps. Then every method that it looks at,
with the option that it chose and some others, is run on the quadratic of claim 8 with its step size tuned on some
seeds, and measured on others. Right is advice with which the time to eps is within 10% of the best of all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from rich.table import Table

from asgd.errors import ConfigError
from asgd.run.speeds import uniform
from asgd.sim.advice import Advice, advise_on
from asgd.sim.contenders import MINIBATCH
from asgd.sim.problems import tridiagonal
from asgd.sim.result_files import read_result, refuse_another, write_result
from asgd.sim.study import Curve, run_study, study_config, tuned, until_below
from asgd.sim.tune import octaves
from asgd.sim.virtual import EndOfJob

EPS = 2.5e-4  # of ||grad f||^2, 1/16 at the start; as in claim 8
WITHIN = 1.1
LONGEST = 3.0  # times the mean in tuning: a fresh seed that isn't at eps then counts as if it were
HOPELESS = 1.5  # times the best until then: nobody who needs longer is measured to the end
JOBS = 50  # times of each worker that the advisor sees
MOST = 200_000  # gradients of a run: no run needs that many
TUNING, FRESH = (0, 1, 2, 3), (1000, 1001, 1002, 1003)  # seeds of noise and times
WORKERS = (2, 3, 4, 6, 8, 12, 16, 24, 32)
FACTOR = 30.0  # the slowest worker's time over the fastest's, at most
NOISE = (1.0, 128.0)  # sigma^2/eps
VARIATIONS = (0.0, 0.0, 0.1, 0.5)  # standard deviation of the logarithm of a job's time


class Setting(msgspec.Struct, frozen=True):
    """Mean seconds per job of each worker, how they vary from job to job, and sigma^2/eps."""

    seconds: list[float]
    variation: float
    noise: float


class Measured(msgspec.Struct, frozen=True):
    """What a method needed: its best step size, and the mean seconds to eps with it on fresh seeds; both None if it
    took longer than 1.5 times the best until then.
    """

    label: str
    step_size: float | None
    seconds: float | None


class Case(msgspec.Struct, frozen=True):
    """One setting: what was named first, with the times predicted (of mini-batch 1) and measured.

    `ratio`: measured time of the named one over that of the best.
    """

    seed: int
    setting: Setting
    named: str
    predicted: dict[str, float]
    measured: list[Measured]
    best: str
    ratio: float

    @property
    def is_right(self) -> bool:
        return self.ratio <= WITHIN


class Checked(msgspec.Struct, frozen=True):
    """The content of a result file.

    Attributes: seed: of the first case; factor: see `random_setting`; right: how often the advice was; always: how
    often one and the same name would have been right, which says how hard the settings are; gains: the measured gain
    over mini-batch as part of the predicted one: smallest, median and largest.
    """

    seed: int
    eps: float
    factor: float
    cases: list[Case]
    right_of_first_10: int = 0
    right: int = 0
    always: dict[str, int] = {}
    gains: list[float] = []


def checked(seed: int, factor: float, cases: Sequence[Case]) -> Checked:
    """The cases with what they come to."""
    right = [case.is_right for case in cases]
    always = {
        name: sum(
            (seconds := _seconds(case)[name]) is not None and seconds <= WITHIN * _fastest(case) for case in cases
        )
        for name in (MINIBATCH, "asynchronous", "asynchronous, constant steps")
    }
    parts = sorted(_gain(case) * case.predicted[case.named] for case in cases)
    gains = [round(part, 3) for part in (parts[0], parts[len(parts) // 2], parts[-1])] if parts else []
    return Checked(seed, EPS, factor, list(cases), sum(right[:10]), sum(right), always, gains)


def _seconds(case: Case) -> dict[str, float | None]:
    return {one.label: one.seconds for one in case.measured}


def _fastest(case: Case) -> float:
    return min(seconds for seconds in _seconds(case).values() if seconds is not None)


def _gain(case: Case) -> float:
    """Of the named method over mini-batch, measured; both always are."""
    seconds = _seconds(case)
    named, minibatch = seconds[case.named], seconds[MINIBATCH]
    assert named is not None and minibatch is not None
    return minibatch / named


def random_setting(seed: int, most: float = FACTOR) -> Setting:
    """The speeds: spread evenly in the logarithm, or two classes; the slowest worker is slower than the fastest by a
    random factor up to `most`.

    Example:
        >>> setting = random_setting(3)
        >>> min(setting.seconds), max(setting.seconds) <= 30.0
        (1.0, True)
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, 1]))
    n = int(generator.choice(WORKERS))
    factor = math.exp(generator.uniform(0.0, math.log(most)))
    if generator.uniform() < 0.5:
        seconds_N = np.exp(generator.uniform(0.0, math.log(factor), n))
    else:
        seconds_N = np.where(generator.uniform(size=n) < generator.uniform(0.2, 0.8), factor, 1.0)
    noise = math.exp(generator.uniform(math.log(NOISE[0]), math.log(NOISE[1])))
    variation = float(generator.choice(VARIATIONS))
    return Setting([float(seconds) for seconds in np.sort(seconds_N / seconds_N.min())], variation, noise)


def speeds_of(setting: Setting, seed: int) -> EndOfJob:
    """When jobs are done: log-normal times around each worker's mean, by (seed, worker, job) alone."""

    def end_of_job(worker: int, job: int, now_s: float) -> float:
        return now_s + setting.seconds[worker] * _variation(setting.variation, seed, worker, job)

    return end_of_job


def _variation(spread: float, seed: int, worker: int, job: int) -> float:
    if spread == 0.0:
        return 1.0
    first, second = (uniform(seed, worker, job, f"advice {which}") for which in (1, 2))
    normal = math.sqrt(-2.0 * math.log(first)) * math.cos(2.0 * math.pi * second)
    return math.exp(spread * normal - spread**2 / 2)


def advice_for(setting: Setting, seed: int) -> Advice:
    """What the advisor says of a run's times."""
    jobs = range(JOBS if setting.variation else 1)
    times = {
        worker: [seconds * _variation(setting.variation, -1 - seed, worker, job) for job in jobs]
        for worker, seconds in enumerate(setting.seconds)
    }
    return advise_on(times, setting.noise)


class Rival(NamedTuple):
    """What is run, and about which step size should be the best (1/L without noise and delays)."""

    method: str
    rule: str
    options: dict[str, Any]
    near: float


def _rivals(advice: Advice, n: int) -> dict[str, Rival]:
    """By label: the advisor's contenders and some more options."""
    noise = advice.noise.ratio
    rivals = {
        one.label: Rival(one.method, one.rule, one.options, one.batch / (one.damping * one.batch + noise))
        for one in advice.methods
    }
    for m in {max(1, n // 4), max(1, n // 2), max(1, 3 * n // 4)} - {n}:
        rivals.setdefault(f"m-synchronous, m = {m}", Rival("m_synchronous", "scale", {"m": m}, m / (m + noise)))
    for threshold in {max(1, n // 2), n, 2 * n}:
        step_size = 1.0 / (min(threshold, n) + noise)
        rivals.setdefault(f"Ringmaster, R = {threshold}", Rival("ringmaster", "scale", {"R": threshold}, step_size))
    rivals.setdefault(f"Rennala, S = {n}", Rival("rennala", "scale", {"batch": n}, n / (n + noise)))
    return rivals


def _needed(
    setting: Setting, rival: Rival, step_sizes: Sequence[float], seeds: Sequence[int], limit_s: float
) -> npt.NDArray[np.float64]:
    """Virtual seconds to eps, [E, R], infinite where that takes longer than limit_s; each seed has times of its own."""
    n = len(setting.seconds)
    config = study_config(rival.method, n, rule=rival.rule, options=rival.options, budget={"gradients": MOST})
    problem, is_there = tridiagonal(sigma2=setting.noise * EPS), until_below(EPS)

    def done(curve: Curve) -> bool:
        return is_there(curve) or curve.times_s[-1] > limit_s

    def needed(times_seed: int, noise_seeds: Sequence[int]) -> npt.NDArray[np.float64]:
        speeds = speeds_of(setting, times_seed)
        every = max(1, n // 8)
        study = run_study(config, problem, step_sizes, noise_seeds, every=every, done=done, end_of_job=speeds)
        return study.curve.first_ER(EPS)

    if setting.variation == 0.0:  # all seeds have the same times, and go in one
        return needed(0, seeds)
    return np.concatenate([needed(seed, [seed]) for seed in seeds], axis=1)


def measure(setting: Setting, label: str, rival: Rival, limit_s: float) -> Measured:
    """Tune a method's step size on 2^(k/3) around the one expected, and run the best with fresh seeds.

    Whoever needs more than limit_s isn't measured to the end.
    """
    low, high = 0.7 * rival.near, 6.0 * rival.near
    while True:
        grid = octaves(low, high)
        needed_ER = _needed(setting, rival, grid, TUNING, limit_s)
        if not np.isfinite(needed_ER.mean(axis=1)).any():
            return Measured(label, None, None)
        best = tuned(grid, needed_ER)
        if not best.at_edge:
            break
        low, high = (low / 4.0, low * 1.6) if best.step_size == grid[0] else (high / 1.6, high * 4.0)
    longest_s = LONGEST * best.mean
    seconds = _needed(setting, rival, [best.step_size], FRESH, longest_s)[0]
    return Measured(label, best.step_size, float(np.minimum(seconds, longest_s).mean()))


def check_case(seed: int, setting: Setting) -> Case:
    """One setting."""
    advice = advice_for(setting, seed)
    rivals = _rivals(advice, len(setting.seconds))
    named = next(one.label for one in advice.methods if one.name == advice.best)
    seconds: dict[str, float] = {}
    measured = []
    for label in sorted(rivals, key=lambda label: (label != named, label != MINIBATCH)):
        limit_s = math.inf if label in (named, MINIBATCH) else HOPELESS * min(seconds.values())
        measured.append(measure(setting, label, rivals[label], limit_s))
        needed_s = measured[-1].seconds
        seconds[label] = math.inf if needed_s is None else needed_s
    best = min(seconds, key=seconds.__getitem__)
    predicted = {one.label: round(one.relative_time, 4) for one in advice.methods}
    return Case(seed, setting, named, predicted, measured, best, seconds[named] / seconds[best])


def run(num: int, seed: int, say: Callable[[str], None], out: Path | None = None, factor: float = FACTOR) -> Checked:
    """`num` random settings from `seed` on.

    Arguments: say: takes a line about each; out: a JSON file that is written after each; what is in it isn't run again;
    factor: of speeds, at most, >= 1.
    Errors: ConfigError when the file is something else.
    """
    if not 1.0 <= factor < math.inf:
        raise ConfigError(f"--factor {factor}: allowed is a number of at least 1")
    result = checked(seed, factor, [])
    if out is not None and out.exists():
        result = _stored(out, result)
    for place in range(len(result.cases), num):
        case = check_case(seed + place, random_setting(seed + place, factor))
        result = checked(seed, factor, [*result.cases, case])
        say(f"{place + 1} of {num}: {_line(case)}")
        if out is not None:
            write_result(out, result)
    return result


def _stored(file: Path, now: Checked) -> Checked:
    before = read_result(file, Checked, "asgd bench advice")
    old, new = ({"seed": one.seed, "eps": one.eps, "factor": one.factor} for one in (before, now))
    refuse_another(file, old, new)
    return checked(now.seed, now.factor, before.cases)


def _line(case: Case) -> str:
    return f"{case.named} was named, {case.ratio:.3f} of the best one's time" + (
        "" if case.named == case.best else f" ({case.best})"
    )


def table(result: Checked) -> Table:
    """Every setting, and how often the advice was right."""
    cases = result.cases
    always = ", ".join(f"{name} in {count}" for name, count in result.always.items())
    shown = Table(
        title=f"advice is within 10% of the best in {result.right} of {len(cases)} random settings, in "
        f"{result.right_of_first_10} of the first {min(10, len(cases))}",
        caption=f"always the same would have been: {always}. The measured gain over mini-batch is "
        f"{result.gains[0]:.2f} to {result.gains[2]:.2f} of the predicted one, median {result.gains[1]:.2f}",
        title_justify="left", caption_justify="left",
    )  # fmt: skip
    for column in ("n", "slowest", "varies", "σ²/ε", "named first", "best", "time over best", "gain over mini-batch"):
        shown.add_column(column, overflow="fold")
    for case in cases:
        setting = case.setting
        shown.add_row(
            str(len(setting.seconds)), f"{max(setting.seconds):.1f}x", f"{setting.variation:g}", f"{setting.noise:.3g}",
            case.named, case.best, f"{case.ratio:.2f}",
            f"{_gain(case):.2f} (predicted {1 / case.predicted[case.named]:.2f})",
        )  # fmt: skip
    return shown
