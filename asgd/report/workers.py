"""How much each worker counts: its share of the used gradients and of the steps, and its effective step size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from asgd.report.exhibits import Exhibit
from asgd.report.plots import Line, Mark, Plot
from asgd.report.reading import Record

_MOST_BARS = 32  # workers; more are drawn as dots


def worker_exhibits(records: Sequence[Record]) -> list[Exhibit]:
    """Shares and effective step sizes of the workers."""
    if not any(record.trace.is_used_R.any() for record in records):
        return [Exhibit("Shares of the workers", "No gradient was used: no worker has a share.")]
    return [_shares(records), _effective(records)]


def shares(record: Record) -> dict[int, float]:
    """Each worker's part of the used gradients, from the trace; all workers that are in it have one."""
    trace = record.trace
    workers = np.unique(trace.worker_R)
    used = np.bincount(trace.worker_R[trace.is_used_R], minlength=int(workers.max(initial=0)) + 1)
    parts = (used / max(1, used.sum())).tolist()
    return {worker: parts[worker] for worker in workers.tolist()}


def weights(record: Record) -> dict[int, float] | None:
    """Each worker's part of the steps: from the summary, or from the trace where every used gradient made its own step;
    None where neither says it.
    """
    if record.summary is not None:
        return {worker: part.weight for worker, part in record.summary.workers.items()}
    trace = record.trace
    if trace.is_accumulated_R.any():
        return None
    steps = np.bincount(trace.worker_R[trace.is_used_R], trace.step_size_R[trace.is_used_R])
    whole = float(steps.sum()) or 1.0
    return {worker: size / whole for worker, size in enumerate(steps.tolist()) if size}


def effective_steps(record: Record) -> dict[int, float] | None:
    """What a used gradient of each worker counts relative to the mean gradient: weight over share."""
    share, weight = shares(record), weights(record)
    if weight is None:
        return None
    return {worker: weight[worker] / part for worker, part in share.items() if part and worker in weight}


def _shares(records: Sequence[Record]) -> Exhibit:
    title = "Share of each worker"
    if len(records) == 1:
        found = {"of the gradients used": shares(records[0]), "of the steps (weight)": weights(records[0]) or {}}
    else:
        found = {record.label: weights(record) or shares(record) for record in records}
    lines = _lines(found, 100.0)
    num_workers = {len(shares(record)) for record in records}
    marks = [Mark(f"equal: {100.0 / n:.3g}%", 100.0 / n, "y", ":") for n in sorted(num_workers) if n > 1][:1]
    plot = Plot("worker_shares", title, "worker", "share (%)", lines, marks=marks, compact=True, from_zero=True)
    what = "Share of the used gradients, and of the step sizes with which they went into the model"
    if len(records) > 1:
        what = "Share of the step sizes with which a worker's gradients went into the model"
        unknown = [record.label for record in records if not weights(record)]
        what += f" (of the used gradients for {', '.join(unknown)})" if unknown else ""
    caption = f"{what}. {_bias(records)}"
    return Exhibit(title, caption, plot, f"{title}: {_ranges(lines, '%')}.")


def _bias(records: Sequence[Record]) -> str:
    """What shares mean for the result."""
    different = [record for record in records if record.config.task.partition != "iid"]
    if not different:
        return "The workers draw from the same data, so unequal shares bias nothing."
    return (
        "The workers have different data: where their shares of the steps differ, the result is biased toward the data "
        "of those with more."
    )


def _effective(records: Sequence[Record]) -> Exhibit:
    title = "Effective step size of each worker"
    found = {
        record.label if len(records) > 1 else "worker's gradients": effective_steps(record) or {} for record in records
    }
    lines = _lines(found, 1.0)
    if not lines:
        why = "Not known before the run has ended: its gradients enter means, and only the summary says their weights."
        return Exhibit(title, why)
    mark = Mark("equal", 1.0, "y", ":")
    plot = Plot(
        "worker_steps", title, "worker", "relative to the mean", lines, marks=[mark], compact=True, from_zero=True
    )
    caption = "Step size with which a used gradient of the worker went into the model, relative to the mean over all."
    if len(records) == 1 and not records[0].trace.is_accumulated_R.any():
        mean = float(np.nanmean(records[0].trace.step_size_R))
        caption += f" That mean is {mean:.4g}."
    return Exhibit(title, caption, plot, f"{title}, relative to the mean: {_ranges(lines, '')}.")


def _lines(found: Mapping[str, Mapping[int, float]], factor: float) -> list[Line]:
    """Bars for few workers, the same workers for each run, else dots; those of a run of whom nothing is known lack."""
    everybody = sorted({worker for by_worker in found.values() for worker in by_worker})
    lines = []
    for index, (label, by_worker) in enumerate(found.items()):
        if by_worker and len(everybody) <= _MOST_BARS:
            values = [factor * by_worker.get(worker, 0.0) for worker in everybody]
            lines.append(Line(label, [str(worker) for worker in everybody], values, style="bars", colour=index))
        elif by_worker:
            values = [factor * value for value in by_worker.values()]
            lines.append(Line(label, list(by_worker), values, style="dots", colour=index))
    return lines


def _ranges(lines: Sequence[Line], unit: str) -> str:
    return "; ".join(
        f"{line.label} from {min(line.y):.3g}{unit} to {max(line.y):.3g}{unit}" for line in lines if line.y
    )
