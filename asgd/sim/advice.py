"""Which method suits workers of given speeds: predicted times to a small gradient, and advice in words.

Predicted is the time until ||grad f||^2 <= eps in units of L Delta/eps, which all methods have in common: seconds per
update times updates. Seconds per update come from the worker times alone: of mini-batch and m-synchronous SGD the
expected maximum, or m-th smallest, of one job of each worker; of the others from the core itself, driven by those
times with jobs that compute nothing. Updates are `asgd.sim.rates.updates`.

Nothing is fitted: the noise has the same weight for all methods, as in the bounds, and the price of staleness is how
much smaller the largest stable step is (`asgd.sim.rates.damping`). How good that is, `asgd bench advice` measures
(configs/results/advice.json): the method named first was within 10% of the best in 49 of 50 random settings, but the
gains over mini-batch SGD are mostly predicted too large: staleness costs more than the largest stable step says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from asgd.errors import ConfigError
from asgd.sim.contenders import MINIBATCH, NOISES, Option, Regime, best_options, named_first, predicted, regimes_of
from asgd.sim.rates import optimal_time

# Measured gains over mini-batch as part of the predicted ones: smallest, median, largest (configs/results/advice.json)
MEASURED_GAINS = (0.59, 0.91, 1.03)


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """One worker's mean seconds per gradient, and from how many jobs (None: it was given)."""

    worker: int
    seconds: float
    jobs: int | None = None


class Contender(msgspec.Struct, frozen=True, kw_only=True):
    """A method with its best option.

    Attributes:
        name: in words; label: with its option; method, rule, options: as in a configuration.
        relative_time: predicted time to eps, of mini-batch 1; seconds: the same in seconds, if that is known of one.
        update_s: seconds per update; batch: gradients in it; damping: how many times smaller the largest stable step
            is; gradients_per_s: that arrive (cancelled ones don't); discarded_share: of them; mean_delay: of the rest.
        overrides: "key=value" for `asgd.train`.
    """

    name: str
    label: str
    method: str
    rule: str
    options: dict[str, Any]
    relative_time: float
    seconds: float | None
    update_s: float
    batch: float
    damping: float
    gradients_per_s: float
    discarded_share: float
    mean_delay: float
    overrides: list[str]


class Noise(msgspec.Struct, frozen=True, kw_only=True):
    """sigma^2/eps, and where it is from: "given", "assumed" or "estimated", then with a 95% interval.

    Attributes: low, high: None for unknown, without end; sigma2: of one job's gradient; gradient_norm2: ||grad f||^2 at
    the checkpoint of `version`, which stands for eps; gradients: that both are estimated from.
    """

    ratio: float
    source: str
    low: float | None = None
    high: float | None = None
    sigma2: float | None = None
    gradient_norm2: float | None = None
    gradients: int | None = None
    version: int | None = None


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """What `asgd advise` says.

    Attributes:
        workers; noise: what it goes by.
        asynchronous_per_s, minibatch_per_s: gradients per second, sum 1/h_i and n over the expected slowest time.
        optimal: the optimal time (`asgd.sim.rates.optimal_time`), of mini-batch 1.
        methods: the fastest first.
        best: the method named first; why; sentence: both, and how fast.
        regimes: how that depends on sigma^2/eps.
        warnings: sentences about what to doubt.
    """

    workers: list[Worker]
    noise: Noise
    asynchronous_per_s: float
    minibatch_per_s: float
    optimal: float
    methods: list[Contender]
    best: str
    why: str
    sentence: str
    regimes: list[Regime]
    warnings: list[str]


def advise_on(
    times_N: Mapping[int, Sequence[float]],
    noise: Noise | float | None = None,
    *,
    measured: bool = False,
    seconds_of: Callable[[float], float | None] = lambda minibatch: None,
    warnings: Sequence[str] = (),
) -> Advice:
    """Advice for workers with these seconds per job.

    Arguments: times_N: of each worker by its number, at least one, > 0; noise: sigma^2/eps of one job's gradient,
    >= 0, by default the number of workers, where noise and staleness weigh about the same; measured: whether the times
    are of single jobs; seconds_of: takes mini-batch's predicted time in units of L Delta/eps and gives it in seconds,
    if that is known; warnings: to add to.
    Errors: ConfigError for a noise that is not allowed.

    Example:
        >>> advice = advise_on({0: [1.0], 1: [1.0], 2: [4.0], 3: [4.0]}, 8.0)
        >>> advice.asynchronous_per_s, advice.minibatch_per_s, advice.best
        (2.5, 1.0, 'asynchronous, constant steps')
    """
    n = len(times_N)
    if noise is None:
        noise = Noise(ratio=float(n), source="assumed")
    elif not isinstance(noise, Noise):
        if not 0.0 <= noise < math.inf:
            raise ConfigError(f"--noise {noise}: allowed is sigma^2/eps, a number of at least 0")
        noise = Noise(ratio=float(noise), source="given")
    found = predicted(list(times_N.values()))
    options = best_options(found, noise.ratio)
    first = named_first(options, noise.ratio)
    minibatch = next(option for option in options if option.name == MINIBATCH)
    unit = minibatch.pace.time(noise.ratio)
    in_seconds = seconds_of(unit)
    means = {worker: sum(times) / len(times) for worker, times in times_N.items()}
    by_throughput = sum(1.0 / mean for mean in means.values()), minibatch.pace.gradients_per_s
    regimes = regimes_of(found)
    contenders = [_contender(option, noise.ratio, unit, in_seconds) for option in options]
    why = _why(first, n, by_throughput)
    return Advice(
        workers=[
            Worker(worker=worker, seconds=mean, jobs=len(times_N[worker]) if measured else None)
            for worker, mean in means.items()
        ],
        noise=noise,
        asynchronous_per_s=by_throughput[0],
        minibatch_per_s=by_throughput[1],
        optimal=optimal_time(sorted(means.values()), 1.0, 1.0, noise.ratio, 1.0) / unit,
        methods=contenders,
        best=first.name,
        why=why,
        sentence=_sentence(first, contenders, noise, why, regimes),
        regimes=regimes,
        warnings=[*warnings, *_doubts(noise, found)],
    )


def _contender(option: Option, noise: float, unit: float, seconds: float | None) -> Contender:
    pace, relative = option.pace, option.pace.time(noise) / unit
    return Contender(
        name=option.name,
        label=option.label,
        method=option.method,
        rule=option.rule,
        options=option.options,
        relative_time=relative,
        seconds=None if seconds is None else seconds * relative,
        update_s=pace.update_s,
        batch=pace.batch,
        damping=pace.damping,
        gradients_per_s=pace.gradients_per_s,
        discarded_share=pace.discarded_share,
        mean_delay=pace.mean_delay,
        overrides=option.overrides,
    )


def _why(first: Option, n: int, per_s: tuple[float, float]) -> str:
    pace, unused = first.pace, 1.0 - per_s[1] / per_s[0]
    if n == 1:
        return "one worker waits for nobody, and all methods are the same"
    match first.method:
        case "minibatch":
            return f"waiting for the slowest leaves only {unused:.0%} of the workers' time unused, and nothing is stale"
        case "m_synchronous":
            m = first.options["m"]
            return (
                f"the first {m} of {n} are there soon, nothing is stale, and the other {n - m} aren't worth waiting for"
            )
        case "ringmaster":
            return f"nobody waits, and without the {pace.discarded_share:.0%} that are too old larger steps are stable"
        case "rennala":
            return "nobody waits, nothing is stale, and the noise wants large batches"
        case _:
            return (
                f"nobody waits (mini-batch leaves {unused:.0%} of the workers' time unused), which is worth more than "
                f"the {pace.damping:.2g} times smaller steps that a mean delay of {pace.mean_delay:.1f} asks for"
            )


def _sentence(first: Option, contenders: Sequence[Contender], noise: Noise, why: str, regimes: Sequence[Regime]) -> str:
    chosen = next(one for one in contenders if one.name == first.name)
    fastest = contenders[0]
    gain = 1.0 / chosen.relative_time
    if first.name == MINIBATCH:
        other = next(one for one in contenders if one.name != MINIBATCH)
        fast = f"the next, {other.label}, would take {other.relative_time:.2f} times as long"
    else:
        fast = f"predicted {gain:.2f} times as fast as mini-batch"
    near = "" if fastest is chosen else f" ({fastest.label} is {1 - fastest.relative_time / chosen.relative_time:.0%} "
    near += "" if fastest is chosen else "faster by these numbers, less than they can tell)"
    at = f"sigma^2/eps = {noise.ratio:.3g}"
    return f"Use {chosen.label}: {fast} at {at}{near}, because {why}; {_changes(noise, regimes)}"


def _changes(noise: Noise, regimes: Sequence[Regime]) -> str:
    """How the advice depends on the noise, in words."""
    if len(regimes) == 1:
        return f"that holds for every sigma^2/eps from {NOISES[0]:g} to {NOISES[1]:g}."
    ratio = min(max(noise.ratio, NOISES[0]), NOISES[1])
    place = next(i for i, regime in enumerate(regimes) if regime.high is None or ratio < regime.high)
    parts = []
    if place:
        parts.append(f"below {regimes[place].low:.3g} {regimes[place - 1].name} would be named")
    if place + 1 < len(regimes):
        parts.append(f"above {regimes[place].high:.3g} {regimes[place + 1].name} would be named")
    return f"{' and '.join(parts)}."


def _doubts(noise: Noise, found: Sequence[Option]) -> list[str]:
    if noise.source == "assumed":
        return [
            "sigma^2/eps isn't known and is taken to be the number of workers; give it (--noise), or a run with a "
            "checkpoint"
        ]
    if noise.low is None and noise.high is None:
        return []
    low, high = max(noise.low or 0.0, NOISES[0]), noise.high or NOISES[1]
    names = list(dict.fromkeys(named_first(best_options(found, at), at).name for at in (low, noise.ratio, high)))
    if len(names) < 2:
        return []
    return [f"within the interval of sigma^2/eps more than one is named: {', '.join(names)}"]
