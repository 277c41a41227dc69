"""The numbers of runs side by side, and the time to a level of loss or accuracy that all of them reach."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from asgd.report.learning import evaluated
from asgd.report.reading import Record
from asgd.sim.tuning import Goal, common_level


class Level(msgspec.Struct, frozen=True, kw_only=True):
    """The best value that every evaluated run reaches: `metric` is "test_accuracy" or "test_loss"."""

    metric: str
    value: float


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of one run; None for what its record doesn't have.

    `step_size`: the configured one; `discarded_share`: of all jobs that weren't lost, cancelled ones included;
    `delay_average`: with the jobs in flight (Definition 4), for a run that hasn't ended that of the used gradients so
    far; `delay_max`: of the same ones, never of those discarded; `to_accuracy`, `to_loss`: (seconds, samples, version)
    of the first evaluation at the common level.
    """

    run: str
    path: str
    ended: bool
    virtual: bool
    method: str
    rule: str
    step_size: float
    num_workers: int
    task: str
    versions: int
    gradients: int
    samples: int
    wall_s: float
    gradients_per_s: float | None
    samples_per_s: float | None
    versions_per_s: float | None
    concurrency: int | None
    delay_average: float | None
    delay_max: int | None
    discarded_share: float | None
    lost: int
    busy_fraction: float | None
    final_accuracy: float | None
    best_accuracy: float | None
    final_loss: float | None
    best_loss: float | None
    to_accuracy: tuple[float, int, int] | None
    to_loss: tuple[float, int, int] | None


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """All runs of a report, in the order given, and the levels that their times are measured to."""

    runs: list[Compared]
    accuracy: Level | None
    loss: Level | None


def compare(records: Sequence[Record]) -> Comparison:
    """The runs' numbers. The levels are the best that every run with evaluations reaches, so that each has a time; a
    time is that of an evaluation, and no finer than those are.
    """
    accuracy, loss = _common_level(records, "test_accuracy"), _common_level(records, "test_loss")
    return Comparison(runs=[_compared(record, accuracy, loss) for record in records], accuracy=accuracy, loss=loss)


def _common_level(records: Sequence[Record], metric: str) -> Level | None:
    found = [values for record in records if (values := evaluated(record, metric)[1])]
    value = common_level(metric, found)
    return None if value is None else Level(metric=metric, value=value)


def _reached(record: Record, level: Level | None) -> tuple[float, int, int] | None:
    if level is None:
        return None
    goal = Goal(metric=level.metric, target=level.value)
    rows, values = evaluated(record, level.metric)
    for row, value in zip(rows, values, strict=True):
        if goal.reached(value):
            return row.time_s, row.samples_seen, row.version
    return None


def _compared(record: Record, accuracy: Level | None, loss: Level | None) -> Compared:
    trace, summary, config = record.trace, record.summary, record.config
    delays, wall_s = record.delays(), record.wall_s
    # Cancelled jobs are in the trace, but no gradient of theirs came.
    arrivals = int((trace.has_arrived_R & (trace.samples_R > 0)).sum())
    samples = int(trace.samples_R.sum())
    came = int(trace.has_arrived_R.sum())

    def per_s(count: int) -> float | None:
        return count / wall_s if wall_s > 0 else None

    accuracies, losses = evaluated(record, "test_accuracy")[1], evaluated(record, "test_loss")[1]
    return Compared(
        run=record.label, path=str(record.path).encode(errors="replace").decode(), ended=summary is not None,
        virtual=record.is_virtual, method=config.method.name, rule=config.method.rule,
        step_size=config.method.step_size, num_workers=config.cluster.num_workers, task=config.task.function,
        versions=record.versions,
        gradients=arrivals, samples=samples, wall_s=wall_s, gradients_per_s=per_s(arrivals),
        samples_per_s=per_s(samples), versions_per_s=per_s(record.versions),
        concurrency=delays.concurrency if delays else None, delay_average=delays.average if delays else None,
        delay_max=delays.largest if delays else None,
        discarded_share=float(np.mean(~trace.is_used_R[trace.has_arrived_R])) if came else None,
        lost=int(trace.is_lost_R.sum()),
        busy_fraction=summary.server.busy_fraction if summary is not None and not record.is_virtual else None,
        final_accuracy=accuracies[-1] if accuracies else None, best_accuracy=max(accuracies, default=None),
        final_loss=losses[-1] if losses else None, best_loss=min(losses, default=None),
        to_accuracy=_reached(record, accuracy), to_loss=_reached(record, loss),
    )  # fmt: skip


def table(comparison: Comparison) -> list[tuple[str, list[str]]]:
    """The comparison in words: (what, the text of each run), rows that no run has anything for left out."""
    runs = comparison.runs
    columns = [
        ("method", [run.method for run in runs]),
        ("step-size rule", [run.rule for run in runs]),
        ("step size η", [f"{run.step_size:g}" for run in runs]),
        ("task", [run.task for run in runs]),
        ("workers", [f"{run.num_workers:,}" for run in runs]),
        ("versions (updates)", [f"{run.versions:,}" for run in runs]),
        ("gradients", [f"{run.gradients:,}" for run in runs]),
        ("samples", [f"{run.samples:,}" for run in runs]),
        ("time", [f"{run.wall_s:,.4g} s{' (virtual)' if run.virtual else ''}" for run in runs]),
        ("gradients/s", [_number(run.gradients_per_s) for run in runs]),
        ("samples/s", [_number(run.samples_per_s) for run in runs]),
        ("updates/s", [_number(run.versions_per_s) for run in runs]),
        ("concurrency τ_C", [_number(run.concurrency) for run in runs]),
        ("average delay", [_number(run.delay_average) for run in runs]),
        ("largest delay, used or in flight", [_number(run.delay_max) for run in runs]),
        ("discarded or cancelled", [_percent(run.discarded_share) for run in runs]),
        ("jobs lost", [f"{run.lost:,}" for run in runs]),
        ("server busy", [_percent(run.busy_fraction) for run in runs]),
        ("last test accuracy", [_percent(run.final_accuracy) for run in runs]),
        ("best test accuracy", [_percent(run.best_accuracy) for run in runs]),
        ("last test loss", [_number(run.final_loss) for run in runs]),
        ("best test loss", [_number(run.best_loss) for run in runs]),
    ]
    levels = (
        ("test accuracy", comparison.accuracy, [run.to_accuracy for run in runs]),
        ("test loss", comparison.loss, [run.to_loss for run in runs]),
    )
    for name, level, reached in levels:
        if level is None or len(runs) == 1:
            continue
        at = f"{100 * level.value:.4g}%" if level.metric == "test_accuracy" else f"{level.value:.4g}"
        columns.append((f"time to {name} {at}", [f"{r[0]:,.4g} s" if r else _NONE for r in reached]))
        columns.append((f"samples to {name} {at}", [f"{r[1]:,}" if r else _NONE for r in reached]))
    return [(what, texts) for what, texts in columns if any(text != _NONE for text in texts)]


_NONE = "–"


def _number(value: float | None) -> str:
    if value is None:
        return _NONE
    return f"{value:,}" if isinstance(value, int) else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _percent(value: float | None) -> str:
    return _NONE if value is None else f"{100 * value:.1f}%"
