"""What the measured runs come to: means with intervals over the seeds, and ratios to mini-batch SGD, seed by seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

import msgspec

from asgd.bench.claims import statistics
from asgd.bench.minibatch.plan import BASELINE, Contender, Plan
from asgd.bench.minibatch.predicting import predict
from asgd.bench.minibatch.results import RealRun, Record
from asgd.bench.minibatch.study import final_values
from asgd.bench.minibatch.tuning import choose, edge_of, other_edges
from asgd.sim.tuning import Goal, Values


class Interval(msgspec.Struct, frozen=True):
    """A mean over seeds with its 95% interval by Student's t; no interval from one seed, or where all are equal."""

    value: float
    low: float | None = None
    high: float | None = None


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One contender under one profile of speeds.

    Attributes:
        values: the point it was measured with; grid: the step sizes that were tried, the same for all contenders;
        at_edge: its step size is the "smallest" or "largest" of them; edges: with other values of what is tuned along,
            the best points whose step size is;
        tuned_by: "time" to the target, or "final" (the metric's last values), for want of a target or of a point of
            the grid that reaches it with every tuning seed.
        gradients_per_s, samples_per_s: that arrived, used or not; predicted_gradients_per_s: from the speeds alone;
            prediction_share: measured / predicted gradients per second.
        reached: how many of the runs reached the target; time_s, samples: to it, None unless all did.
        resolution_s: the mean time between two evaluations, by which `time_s` may be too long.
        discarded_share: of what was used, discarded or cancelled.
        final: the metric of the model at the end of the equal seconds; at_equal_gradients: at the last evaluation
            before the samples that the slowest contender got through.
        throughput_ratio, time_ratio: to mini-batch SGD, paired by seed; `time_ratio` says how many times sooner at the
            target, a lower bound if `time_ratio_is_bound`: mini-batch SGD missed it with some seed, and counts there
            as if it had reached it at the end of its budget.
        predicted_ratio: of the throughputs, from the speeds; agreement: measured / predicted throughput ratio, above 1
            where mini-batch SGD was held up more than the contender.
    """

    setting: str
    contender: str
    label: str
    values: Values
    grid: list[float]
    at_edge: str | None
    edges: list[Values]
    tuned_by: str
    seeds: int
    diverged: int
    gradients_per_s: Interval | None
    samples_per_s: Interval | None
    predicted_gradients_per_s: float | None
    prediction_share: Interval | None
    reached: int
    time_s: Interval | None
    samples: Interval | None
    resolution_s: float | None
    final: Interval | None
    at_equal_gradients: Interval | None
    equal_gradients: int
    delay_mean: float | None
    delay_max: int | None
    server_busy: float | None
    discarded_share: float
    throughput_ratio: Interval | None
    predicted_ratio: float | None
    agreement: Interval | None
    time_ratio: Interval | None
    time_ratio_is_bound: bool


def mean(values: Sequence[float]) -> Interval:
    """The mean with its 95% interval.

    Example:
        >>> mean([2.0])
        Interval(value=2.0, low=None, high=None)
    """
    return Interval(*statistics.mean(values))


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Interval:
    """The geometric mean of paired quotients, with the 95% interval of the mean of their logarithms, by Student's t.

    Formula: exp(m -/+ t s / sqrt(k)), m and s the mean and standard deviation of the k values log(a_i / b_i): the
    interval of the inverse ratio is the inverse interval, and what hits both runs of a seed alike cancels.

    Example:
        >>> ratio([4.0, 1.0], [1.0, 1.0]).value
        2.0
    """
    logs = [math.log(a / b) for a, b in zip(numerators, denominators, strict=True)]
    found = statistics.mean(logs)
    low, high = (None if end is None else math.exp(end) for end in (found.low, found.high))
    return Interval(math.exp(found.value), low, high)


def rows(plan: Plan, record: Record) -> list[Row]:
    """The rows of a complete record: each profile's contenders in their order."""
    return [row for setting in plan.settings for row in _rows(plan, record, setting)]


def _rows(plan: Plan, record: Record, setting: str) -> list[Row]:
    measured = {contender.key: record.measured(setting, contender.key) for contender in plan.contenders}
    # Equal gradients: so many samples all runs of all contenders got through.
    equal = min((run.samples for runs in measured.values() for run in runs if not run.diverged), default=0)
    baseline = predict(plan, setting, plan.baseline, measured[BASELINE])
    return [_row(plan, record, setting, contender, measured, equal, baseline) for contender in plan.contenders]


def _row(
    plan: Plan,
    record: Record,
    setting: str,
    contender: Contender,
    measured: dict[str, list[RealRun]],
    equal: int,
    baseline: float | None,
) -> Row:
    goal, runs, others = plan.protocol.goal, measured[contender.key], measured[BASELINE]
    good = [run for run in runs if not run.diverged]
    values = final_values(plan, record, setting, contender)
    tuned = plan.tuned_as(contender)
    choice = choose(plan, record, setting, tuned)
    predicted = predict(plan, setting, contender, others)
    speed = mean([_speed(run) for run in good]) if good else None
    reached = [look for run in runs if (look := run.reached(goal)) is not None]
    all_reached = len(reached) == len(runs) and bool(runs)
    throughput = None
    if len(good) == len(runs) and not any(run.diverged for run in others):
        throughput = ratio([_speed(run) for run in runs], [_speed(run) for run in others])
    predicted_ratio = _quotient(predicted, baseline)
    sooner, is_bound = time_ratio(runs, others, goal)
    finals = [run.final for run in good]
    early = [run.after(equal) for run in good]
    return Row(
        setting=setting,
        contender=contender.key,
        label=contender.label,
        values=values,
        grid=choice.grid,
        at_edge=edge_of(choice.grid, values),
        edges=other_edges(plan, record, setting, tuned),
        tuned_by="time" if goal.score == "time" and choice.rank.kind == 0 else "final",
        seeds=len(runs),
        diverged=len(runs) - len(good),
        gradients_per_s=speed,
        samples_per_s=mean([run.samples / run.counted_s for run in good]) if good else None,
        predicted_gradients_per_s=predicted,
        prediction_share=_over(speed, predicted),
        reached=len(reached),
        time_s=mean([look.time_s for look in reached]) if all_reached else None,
        samples=mean([float(look.samples) for look in reached]) if all_reached else None,
        resolution_s=fmean(run.counted_s / max(1, len(run.looks) - 1) for run in good) if good else None,
        final=_mean_of_all(finals, len(runs)),
        at_equal_gradients=_mean_of_all(early, len(runs)),
        equal_gradients=equal // plan.config.task.batch_size,
        delay_mean=_mean_or_none([run.delay_mean for run in good]),
        delay_max=max((run.delay_max for run in good if run.delay_max is not None), default=None),
        server_busy=_mean_or_none([run.server_busy for run in good]),
        discarded_share=sum(run.discarded for run in good) / max(1, sum(run.used + run.discarded for run in good)),
        throughput_ratio=throughput,
        predicted_ratio=predicted_ratio,
        agreement=_over(throughput, predicted_ratio),
        time_ratio=sooner,
        time_ratio_is_bound=is_bound,
    )


def time_ratio(runs: Sequence[RealRun], others: Sequence[RealRun], goal: Goal) -> tuple[Interval | None, bool]:
    """How many times sooner `runs` are at the target than `others`, of the same seeds; and whether it is a lower bound.

    None when one of `runs` missed the target. Where only one of `others` did, it counts as if it had reached it at the
    end of its budget: then the true ratio is larger, and there is no interval.
    """
    ours, theirs = ([run.reached(goal) for run in both] for both in (runs, others))
    times = [look.time_s for look in ours if look is not None and look.time_s > 0]
    if goal.target is None or len(times) < len(runs) or not times:
        return None, False
    until = [
        run.counted_s or run.budget_s if look is None else look.time_s for run, look in zip(others, theirs, strict=True)
    ]
    found = ratio(until, times)
    is_bound = any(look is None for look in theirs)
    return (Interval(found.value) if is_bound else found), is_bound


def _speed(run: RealRun) -> float:
    return run.gradients / run.counted_s


def _quotient(a: float | None, b: float | None) -> float | None:
    return a / b if a is not None and b else None


def _over(interval: Interval | None, by: float | None) -> Interval | None:
    if interval is None or not by:
        return None
    ends = (None if end is None else end / by for end in (interval.low, interval.high))
    return Interval(interval.value / by, *ends)


def _mean_or_none(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _mean_of_all(values: Sequence[float | None], count: int) -> Interval | None:
    """The mean, if each of so many runs has a value."""
    known = [value for value in values if value is not None]
    return mean(known) if len(known) == count and known else None
