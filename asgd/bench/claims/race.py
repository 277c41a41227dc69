"""Claim 8: who wins where. All methods, tuned alike, under the speed profiles of the literature, in virtual seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from asgd.bench.claims.effort import Effort
from asgd.bench.claims.outcome import Measured, Outcome, Row, judge
from asgd.bench.claims.profiles import pace
from asgd.bench.claims.statistics import mean
from asgd.report.plots import HeatMap
from asgd.sim.problems import tridiagonal
from asgd.sim.rates import minibatch_time, optimal_time
from asgd.sim.study import run_study, study_config, tuned, until_below
from asgd.sim.tune import octaves

EPS = 2.5e-4  # of ||grad f||^2, 1/16 at the start
NOISE = 32.0  # sigma^2 / eps
GRID = octaves(2**-10, 2**4)
GRADIENTS = 30_000  # at most

PROFILES: dict[str, dict[str, Any]] = {
    "equal": {"profile": "equal"},
    "half 4x slower": {"profile": "half_slower", "factor": 4.0},
    "half 8x slower": {"profile": "half_slower", "factor": 8.0},
    "one 100x slower": {"profile": "straggler", "factor": 100.0},
    "sqrt(i)": {"profile": "sqrt"},
    "i": {"profile": "linear"},
    "three classes": {"profile": "classes"},
    "exponential": {"profile": "exponential"},
    "Pareto 1.5": {"profile": "pareto"},
    "log-normal": {"profile": "lognormal"},
    "changing 1-4x": {"profile": "changing", "factor": 4.0, "period_s": 20.0},
    "outages": {"profile": "outages", "period_s": 20.0, "outage_s": 10.0},
}


LEFT_OUT = "Picky, Gap-Aware and DC-ASGD (the vectors decide), mishchenko (the same as scale here)"


class Entry(NamedTuple):
    """A contender: a method with its rule, and the values of one option that are tried (each with the whole grid)."""

    method: str
    rule: str = "scale"
    option: str = ""
    values: tuple[Any, ...] = ()


def contenders(num_workers: int) -> dict[str, Entry]:
    """All methods of the registry that can be run on an ensemble, for n workers, with the step-size rules: those that
    look at how far the parameters have moved (LEFT_OUT) can't, because there one schedule serves all step sizes.
    """
    n = num_workers
    return {
        "mini-batch": Entry("minibatch"),
        "m-synchronous": Entry("m_synchronous", option="m", values=(n // 8, n // 4, n // 2, 3 * n // 4)),
        "bounded staleness": Entry("bounded_staleness", option="s", values=(1, 3, 10)),
        "asynchronous, constant": Entry("asynchronous", "constant"),
        "asynchronous, scale": Entry("asynchronous", "scale"),
        "asynchronous, drop": Entry("asynchronous", "drop"),
        "asynchronous, staleness-aware": Entry("asynchronous", "staleness_aware"),
        "asynchronous, AdaDelay": Entry("asynchronous", "adadelay"),
        "asynchronous, Wu 1": Entry("asynchronous", "wu_adaptive_1"),
        "asynchronous, Wu 2": Entry("asynchronous", "wu_adaptive_2"),
        "Algorithm 2, uniform": Entry("random_assignment", "constant"),
        "Algorithm 2, shuffled": Entry("random_assignment", "constant", "order", ("shuffled",)),
        "Rennala": Entry("rennala", option="batch", values=(n // 4, n // 2, n, 2 * n)),
        "Malenia": Entry("malenia", option="batch", values=(n // 4, n // 2, n, 2 * n)),
        "Ringmaster": Entry("ringmaster", option="R", values=(n // 4, n // 2, n, 2 * n)),
        "Ringmaster, cancelling": Entry("ringmaster", option="R", values=(n // 4, n // 2, n, 2 * n)),
        "Ringleader": Entry("ringleader"),
        "Clipped": Entry("clipped", option="clip", values=(0.03, 0.1, 0.3)),
        "THROTTLE": Entry("throttle", option="q", values=(1.0, 1.1, 1.5, 3.0)),
        "Rescaled": Entry("rescaled", "constant"),
        "FedBuff": Entry("fedbuff", option="buffer", values=(2, 4, 10, n)),
        "FedAsync": Entry("fedasync", option="alpha", values=(0.1, 0.3, 0.6)),
    }


class Result(NamedTuple):
    """A contender under a profile: its best option and step size, whether either is at the edge of what was tried, the
    mean virtual seconds to eps on the seeds that it was tuned on, and those on fresh seeds.
    """

    contender: str
    profile: str
    value: Any
    step_size: float
    at_edge: str
    tuned_s: float
    seconds: list[float]


def seconds_to_eps(
    entry: Entry, more: Mapping[str, Any], profile: str, num_workers: int, seed: int,
    step_sizes: Sequence[float], noise_seeds: Sequence[int], value: Any,
) -> np.ndarray:  # fmt: skip
    """Virtual seconds to eps, [E, R]."""
    options = dict(more) | ({entry.option: value} if entry.option else {})
    config = study_config(
        entry.method, num_workers, rule=entry.rule, options=options, speeds=PROFILES[profile], seed=seed,
        budget={"gradients": GRADIENTS},
    )  # fmt: skip
    problem = tridiagonal(sigma2=NOISE * EPS)
    study = run_study(config, problem, step_sizes, noise_seeds, every=max(1, num_workers // 8), done=until_below(EPS))
    return study.curve.first_ER(EPS)


def race(contender: str, profile: str, num_workers: int, tuning: Sequence[int], fresh: Sequence[int]) -> Result:
    """Tune a contender under a profile on some seeds, then run it on fresh ones (speeds and noise both reseeded)."""
    entry = contenders(num_workers)[contender]
    more = {"cancel": True} if contender.endswith("cancelling") else {}

    def needed(seed: int, step_sizes: Sequence[float], value: Any) -> np.ndarray:
        return seconds_to_eps(entry, more, profile, num_workers, seed, step_sizes, [seed], value)[:, 0]

    best: tuple[float, Any, float, str] | None = None
    for place, value in enumerate(entry.values or (None,)):
        needed_ER = np.stack([needed(seed, GRID, value) for seed in tuning], axis=1)
        if not np.isfinite(needed_ER).all(axis=1).any():
            continue
        here = tuned(GRID, needed_ER)
        if best is None or here.mean < best[0]:
            edges = ["step size"] if here.at_edge else []
            edges += [entry.option] if len(entry.values) > 1 and place in (0, len(entry.values) - 1) else []
            best = (here.mean, value, here.step_size, " and ".join(edges))
    if best is None:
        return Result(contender, profile, None, float("nan"), "", float("inf"), [float("inf")] * len(fresh))
    tuned_s, value, step_size, at_edge = best
    seconds = [float(needed(seed, [step_size], value)[0]) for seed in fresh]
    return Result(contender, profile, value, step_size, at_edge, tuned_s, seconds)


def ratios(longer: Result, shorter: Result) -> Measured:
    """Seed by seed, how many times longer one takes than the other."""
    return mean([a / b for a, b in zip(longer.seconds, shorter.seconds, strict=True)])


def as_fast(result: Result, winner: Result) -> bool:
    """Whether a contender can't be told from the winner: the interval of the paired ratios contains 1, or less."""
    ratio = ratios(result, winner)
    return math.isfinite(ratio.value) and (ratio.value if ratio.low is None else ratio.low) <= 1.0


def check(effort: Effort) -> Outcome:
    """Every contender under every profile."""
    num_workers = 16 if effort.quick else 32
    profiles = ["half 4x slower", "exponential"] if effort.quick else list(PROFILES)
    names = ["mini-batch", "asynchronous, scale", "Rennala", "Ringmaster"] if effort.quick else list(contenders(8))
    tuning, fresh = effort.seeds(2, 1), [1000 + seed for seed in effort.seeds(6, 3)]
    cells = [(name, profile, num_workers, tuning, fresh) for profile in profiles for name in names]
    results = {(r.contender, r.profile): r for r in effort.map(race, cells)}
    predicted = {profile: predicted_gain(profile, num_workers) for profile in profiles}
    return judge_race(results, names, profiles, predicted, num_workers)


def predicted_gain(profile: str, num_workers: int) -> float:
    """Mini-batch's time by its formula, over the optimal time, from the speeds alone."""
    config = study_config("asynchronous", num_workers, speeds=PROFILES[profile], budget={"versions": 1})
    speeds, problem = pace([config], 4000.0), tridiagonal()
    known = {"delta": problem.start_value, "smoothness": problem.smoothness, "sigma2": NOISE * EPS, "eps": EPS}
    best = optimal_time(sorted(speeds.seconds_N), **known)
    return minibatch_time(speeds.round_s, num_workers, **known) / best


def judge_race(
    results: Mapping[tuple[str, str], Result],
    names: Sequence[str],
    profiles: Sequence[str],
    predicted: Mapping[str, float],
    num_workers: int,
) -> Outcome:
    """The rows and words of claim 8. A profile's winner is chosen on the tuning seeds and measured on fresh ones."""
    rows, details, gains, wins = [], [], [], dict.fromkeys(names, 0)
    for profile in profiles:
        minibatch = results["mini-batch", profile]
        winner = min((results[name, profile] for name in names), key=lambda result: result.tuned_s)
        gain = ratios(minibatch, winner)
        first = [name for name in names if as_fast(results[name, profile], winner)]
        for name in first:
            wins[name] += 1
        gains.append(gain.value)
        setting = f"{profile}: mini-batch's time / that of {winner.contender}"
        rows.append(Row(setting, f"{predicted[profile]:.2f}", gain, "finding"))
        rows.append(Row(f"{profile}: as fast as that one within the interval", "", ", ".join(first), "finding"))
        details += [_row(results[name, profile]) for name in names]
    if len(profiles) > 2:
        rows.append(_agreement([predicted[profile] for profile in profiles], gains))
    edges = [f"{r.contender} ({r.profile})" for r in results.values() if "step size" in r.at_edge]
    options = sum(bool(r.at_edge) and "step size" not in r.at_edge for r in results.values())
    never = [f"{r.contender} ({r.profile})" for r in results.values() if not np.isfinite(r.seconds).all()]
    often = ", ".join(f"{name} {wins[name]}" for name in sorted(names, key=lambda name: -wins[name]) if wins[name])
    finding = (
        f"n = {num_workers}, sigma^2/eps = {NOISE:g}, {len(profiles)} profiles. First, or not to be told from the "
        f"first: {often} (AdaDelay's steps fall with the updates: it brings a schedule along, the others' don't). The "
        f"method that tuning prefers is {min(gains):.2f} to {max(gains):.2f} times as fast as mini-batch SGD. Best at "
        f"an edge of the step sizes: {', '.join(edges) or 'none'}; of the few values of an option: {options} of "
        f"{len(results)}, named in the result file. Not at eps within {GRADIENTS} gradients with every seed: "
        f"{', '.join(never) or 'none'}. Left out: {LEFT_OUT}."
    )
    return Outcome(rows, finding, [_picture(results, names, profiles)], details)


def _row(result: Result) -> Row:
    option = "" if result.value is None else f", option {result.value}"
    edge = f", at the edge of the {result.at_edge}s tried" if result.at_edge else ""
    setting = f"{result.profile}: {result.contender} (eta = {result.step_size:.3g}{option}{edge}), seconds to eps"
    return Row(setting, "", mean(result.seconds), "finding")


def _agreement(predicted: Sequence[float], measured: Sequence[float]) -> Row:
    """Whether the formulas order the profiles as the measurements do."""
    from scipy import stats

    correlation = stats.spearmanr(predicted, measured)
    return Row(
        "gain over mini-batch: rank correlation of formula and measurement over the profiles", "above 0 (p < 0.05)",
        f"{correlation.statistic:.2f} (p = {correlation.pvalue:.2g})",
        judge(correlation.statistic > 0 and correlation.pvalue < 0.05),
    )  # fmt: skip


def _picture(results: Mapping[tuple[str, str], Result], names: Sequence[str], profiles: Sequence[str]) -> HeatMap:
    fastest = {profile: min(np.mean(results[name, profile].seconds) for name in names) for profile in profiles}
    values = [
        [float(np.mean(results[name, profile].seconds) / fastest[profile]) for profile in profiles] for name in names
    ]
    return HeatMap(
        "claim8_race", "Time to eps, in units of the fastest under each speed profile (1 = it won)",
        "speeds of the workers", list(names), list(profiles), values,
    )  # fmt: skip
