"""Where time went: the server's by what it did, and each job's on its way through queue, network and computation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from asgd.report.exhibits import Exhibit
from asgd.report.reading import Flags, Floats, Integers, Record
from asgd.report.stacked import Stacked

MOST_WORKERS = 64
_SERVER_PARTS = {
    "receive_s": "receive", "decide_s": "decide", "apply_s": "apply", "send_s": "send", "record_s": "record",
    "idle_s": "idle",
}  # fmt: skip
_JOB_PARTS = {
    "down_s": "transfer to the worker", "queue_s": "queue at the worker", "compute_s": "computing",
    "wait_s": "waiting (emulated)", "up_s": "transfer to the server", "apply_s": "apply",
}  # fmt: skip


class JobTimes(NamedTuple):
    """Seconds of each job of some rows of a trace: from being given to the arrival of its gradient.

    As they were measured: clocks of two machines differ, so a short transfer can come out below 0.
    """

    down_s: Floats
    queue_s: Floats
    compute_s: Floats
    wait_s: Floats
    up_s: Floats

    @classmethod
    def of(cls, record: Record, rows: Flags) -> JobTimes:
        """Transfer down is what lies between giving the job and its arrival at the worker, transfer up between the end
        of its computation and the server's reading it.
        """
        trace = record.trace
        queue_s, started_s = trace.queue_s_R[rows], trace.started_s_R[rows]
        compute_s, wait_s = trace.compute_s_R[rows], trace.wait_s_R[rows]
        down_s = started_s - queue_s - trace.assigned_s_R[rows]
        up_s = trace.time_s_R[rows] - started_s - compute_s - wait_s
        return cls(down_s, queue_s, compute_s, wait_s, up_s)


def time_exhibits(records: Sequence[Record]) -> list[Exhibit]:
    """The server's time and the jobs' times."""
    return [_server_exhibit(records), _job_exhibit(records)]


def server_parts(record: Record) -> dict[str, float] | None:
    """Seconds of the training time by what the server did, "other" being the rest; None if that isn't recorded."""
    if record.summary is None:
        return None
    server, wall_s = record.summary.server, record.summary.wall_s
    parts = {label: float(getattr(server, name)) for name, label in _SERVER_PARTS.items()}
    if not any(parts.values()):
        return None
    return parts | {"other": max(0.0, wall_s - sum(parts.values()))}


def _server_exhibit(records: Sequence[Record]) -> Exhibit:
    title = "The server's time"
    known = {record.label: parts for record in records if (parts := server_parts(record)) is not None}
    without = [record.label for record in records if record.label not in known]
    if not known:
        return Exhibit(title, _why_no_split(records))
    names = [*_SERVER_PARTS.values(), "other"]
    shares = {label: _percent(parts) for label, parts in known.items()}
    picture = Stacked(
        "server_time", title, "training time (%)", list(known),
        [(name, [share[name] for share in shares.values()]) for name in names],
    )  # fmt: skip
    said = {
        label: ", ".join(f"{name} {share[name]:.1f}%" for name in names if share[name] >= 0.05)
        for label, share in shares.items()
    }
    one = len(records) == 1
    caption = "; ".join(text.capitalize() if one else f"{label}: {text}" for label, text in said.items()) + "."
    if without:
        caption += f" Not recorded: {', '.join(without)}."
    return Exhibit(title, caption, picture, f"{title}: {caption}", is_wide=True)


def _percent(parts: dict[str, float]) -> dict[str, float]:
    whole = sum(parts.values())
    return {name: 100.0 * seconds / whole for name, seconds in parts.items()}


def _why_no_split(records: Sequence[Record]) -> str:
    if all(record.is_virtual for record in records):
        return "In virtual time the server takes none: there is nothing to split."
    if all(record.summary is None for record in records):
        return "The run has no summary yet, which holds the server's times."
    return f"Not in this record: its summary has no {', '.join(_SERVER_PARTS)}, as those of older runs."


def _job_exhibit(records: Sequence[Record]) -> Exhibit:
    title = "Where the time of a job went"
    timed = [record for record in records if record.trace.is_timed_R.any()]
    if not timed:
        return Exhibit(title, why_untimed(records))
    skipped = ""
    if len(records) > 1:
        labels = [record.label for record in timed]
        rows = [_means(record, record.trace.is_timed_R) for record in timed]
    else:
        trace = records[0].trace
        workers = np.unique(trace.worker_R[trace.is_timed_R])
        shown = evenly(workers)
        labels = [f"worker {worker}" for worker in shown]
        rows = [_means(records[0], trace.is_timed_R & (trace.worker_R == worker)) for worker in shown]
        if len(shown) < len(workers):
            skipped = f" Of {len(workers):,} workers, {len(shown)} are shown, evenly spaced by number."
    factor, unit = (1e3, "ms") if max(sum(row.values()) for row in rows) < 1.0 else (1.0, "s")
    parts = [(name, [factor * row[key] for row in rows]) for key, name in _JOB_PARTS.items()]
    picture = Stacked("job_times", title, f"mean per job ({unit})", labels, parts)
    without = [record.label for record in records if record not in timed]
    caption = (
        "Mean over the jobs whose gradient came, from being given to its arrival; the transfer to the server contains "
        "the wait until the server reads it. Applying is the server's mean over all gradients." + skipped
    )
    if without:
        caption += f" Not recorded: {', '.join(without)}."
    whole = [sum(row.values()) * factor for row in rows]
    words = f"{title}: in all from {min(whole):.4g} to {max(whole):.4g} {unit} per job."
    return Exhibit(title, caption, picture, words, is_wide=True)


def _means(record: Record, rows: Flags) -> dict[str, float]:
    times = JobTimes.of(record, rows)
    summary = record.summary
    apply_s = summary.server.apply_s / summary.arrivals if summary is not None and summary.arrivals else 0.0
    return {name: max(0.0, float(values.mean())) for name, values in times._asdict().items()} | {"apply_s": apply_s}


def evenly(workers: Integers, most: int = MOST_WORKERS) -> list[int]:
    """At most so many of the workers, evenly spaced, the first and the last among them."""
    if len(workers) <= most:
        return workers.tolist()
    return workers[np.linspace(0, len(workers) - 1, most).round().astype(int)].tolist()


def why_untimed(records: Sequence[Record]) -> str:
    """Why there is nothing to draw of when jobs were given and begun."""
    if not any(record.trace.has_arrived_R.any() for record in records):
        return "No gradient came: there are no jobs to show."
    return (
        "Not in this record: its trace doesn't say when jobs were given and begun (assigned_s, started_s), as those of "
        "older runs."
    )
