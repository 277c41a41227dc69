"""Claim 8: who wins where. All methods, tuned alike, under the speed profiles of the literature, in virtual seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from asgd.bench.claims.effort import Effort
from asgd.bench.claims.outcome import Measured, Outcome, Row, judge
from asgd.bench.claims.profiles import pace
from asgd.bench.claims.statistics import mean
from asgd.bench.optimal import minibatch_time, optimal_time
from asgd.report.plots import HeatMap
from asgd.sim.problems import tridiagonal
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


class Entry(NamedTuple):
    """A contender: a method with its rule, and the values of one option that are tried (each with the whole grid)."""

    method: str
    rule: str = "scale"
    option: str = ""
    values: tuple[Any, ...] = ()


def contenders(num_workers: int) -> dict[str, Entry]:
    """All methods of the registry that can be run on an ensemble, for n workers: those that look at how far the
    parameters have moved (Picky, Gap-Aware, DC-ASGD) can't, because there one schedule serves all step sizes.
    """
    n = num_workers
    return {
        "mini-batch": Entry("minibatch"),
        "m-synchronous": Entry("m_synchronous", option="m", values=(n // 4, n // 2, 3 * n // 4)),
        "bounded staleness": Entry("bounded_staleness", option="s", values=(1, 3, 10)),
        "asynchronous, constant": Entry("asynchronous", "constant"),
        "asynchronous, scale": Entry("asynchronous", "scale"),
        "asynchronous, drop": Entry("asynchronous", "drop"),
        "asynchronous, staleness-aware": Entry("asynchronous", "staleness_aware"),
        "Algorithm 2, uniform": Entry("random_assignment", "constant"),
        "Algorithm 2, shuffled": Entry("random_assignment", "constant", "order", ("shuffled",)),
        "Rennala": Entry("rennala", option="batch", values=(n // 2, n, 2 * n)),
        "Malenia": Entry("malenia", option="batch", values=(n // 2, n, 2 * n)),
        "Ringmaster": Entry("ringmaster", option="R", values=(n // 2, n, 2 * n)),
        "Ringmaster, cancelling": Entry("ringmaster", option="R", values=(n // 2, n, 2 * n)),
        "Ringleader": Entry("ringleader"),
        "Clipped": Entry("clipped", option="clip", values=(0.03, 0.1, 0.3)),
        "THROTTLE": Entry("throttle", option="q", values=(1.1, 1.5, 2.0)),
        "Rescaled": Entry("rescaled", "constant"),
        "FedBuff": Entry("fedbuff", option="buffer", values=(4, 10, n)),
        "FedAsync": Entry("fedasync", option="alpha", values=(0.1, 0.3, 0.6)),
    }


class Result(NamedTuple):
    """A contender under a profile: its best option and step size, and virtual seconds to eps on fresh seeds."""

    contender: str
    profile: str
    value: Any
    step_size: float
    at_edge: bool
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
    best: tuple[float, Any, float, bool] | None = None
    for value in entry.values or (None,):
        needed_ER = seconds_to_eps(entry, more, profile, num_workers, 0, GRID, tuning, value)
        if not np.isfinite(needed_ER).all(axis=1).any():
            continue
        here = tuned(GRID, needed_ER)
        if best is None or here.mean < best[0]:
            best = (here.mean, value, here.step_size, here.at_edge)
    if best is None:
        return Result(contender, profile, None, float("nan"), False, [float("inf")])
    _, value, step_size, at_edge = best
    seconds = [
        float(seconds_to_eps(entry, more, profile, num_workers, 1 + seed, [step_size], [1000 + seed], value)[0, 0])
        for seed in fresh
    ]
    return Result(contender, profile, value, step_size, at_edge, seconds)


def check(effort: Effort) -> Outcome:
    """Every contender under every profile."""
    num_workers = 16 if effort.quick else 32
    profiles = ["half 4x slower", "exponential"] if effort.quick else list(PROFILES)
    names = ["mini-batch", "asynchronous, scale", "Rennala", "Ringmaster"] if effort.quick else list(contenders(8))
    tuning, fresh = effort.seeds(2, 1), effort.seeds(5, 2)
    cells = [(name, profile, num_workers, tuning, fresh) for profile in profiles for name in names]
    results = {(r.contender, r.profile): r for r in effort.map(race, cells)}

    problem = tridiagonal()
    known = {"delta": problem.start_value, "smoothness": problem.smoothness, "sigma2": NOISE * EPS, "eps": EPS}
    rows, predicted_gains, gains, wins = [], [], [], dict.fromkeys(names, 0)
    for profile in profiles:
        config = study_config("asynchronous", num_workers, speeds=PROFILES[profile], budget={"versions": 1})
        speeds = pace([config], 4000.0)
        best = optimal_time(sorted(speeds.seconds_N), **known)
        predicted = minibatch_time(speeds.round_s, num_workers, **known) / best
        ranked = sorted(names, key=lambda name: np.mean(results[name, profile].seconds))
        winner = results[ranked[0], profile]
        gain = float(np.mean(results["mini-batch", profile].seconds) / np.mean(winner.seconds))
        predicted_gains.append(predicted)
        gains.append(gain)
        wins[ranked[0]] += 1
        rows.append(
            Row(f"{profile}: mini-batch's time / the best one's", f"{predicted:.2f}", Measured(gain), "finding")
        )
        rows += [_row(profile, results[name, profile], best) for name in ranked[:3]]
    if not effort.quick:
        rows.append(_agreement(predicted_gains, gains))
    edges = [f"{r.contender} ({r.profile})" for r in results.values() if r.at_edge]
    never = [f"{r.contender} ({r.profile})" for r in results.values() if not np.isfinite(r.seconds).all()]
    winners = ", ".join(f"{name} {count}" for name, count in wins.items() if count)
    finding = (
        f"n = {num_workers}, sigma^2/eps = {NOISE:g}; first of all (out of {len(profiles)} profiles): {winners}. "
        f"The best method is {min(gains):.1f} to {max(gains):.1f} times as fast as mini-batch SGD."
        + (f" At the edge of the step-size grid: {', '.join(edges)}." if edges else "")
        + (f" Not there within {GRADIENTS} gradients: {', '.join(never)}." if never else "")
    )
    return Outcome(rows, finding, [_picture(results, names, profiles)])


def _row(profile: str, result: Result, optimal: float) -> Row:
    option = "" if result.value is None else f", option {result.value}"
    setting = f"{profile}: {result.contender} (eta = {result.step_size:.3g}{option})"
    return Row(setting, f"optimal time x constant: {optimal:.4g} s", mean(result.seconds), "finding")


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
