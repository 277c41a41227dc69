"""A run's record as arrays, and what of it has to be said in words.

Legend of the suffixes: _R rows of the trace.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asgd.config import Config
from asgd.core.trace import TraceRow
from asgd.errors import ConfigError
from asgd.run.formats import MetricsRow, Summary
from asgd.run.misfits import data_warning, optimizer_warning
from asgd.run.records import JOBS_PER_INCARNATION
from asgd.run.result import Run

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
_MOST_REASONS = 5


@dataclass(frozen=True)
class Trace:
    """The columns of trace.jsonl; see `TraceRow`. What a row doesn't have is NaN.

    `is_used_R`: applied or accumulated; `is_lost_R`: no gradient came; `incarnation_R`: which start of the server gave
    the job, from 0; `reasons`: why jobs were discarded or lost, with the number of each.
    """

    time_s_R: Floats
    worker_R: Integers
    version_R: Integers
    delay_R: Integers
    concurrency_R: Integers
    is_used_R: Flags
    is_accumulated_R: Flags
    is_lost_R: Flags
    step_size_R: Floats
    loss_R: Floats
    samples_R: Integers
    compute_s_R: Floats
    wait_s_R: Floats
    assigned_s_R: Floats
    queue_s_R: Floats
    started_s_R: Floats
    incarnation_R: Integers
    reasons: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.time_s_R)

    @property
    def has_arrived_R(self) -> Flags:
        """Rows of gradients that came, used or discarded."""
        return ~self.is_lost_R

    @property
    def samples_seen_R(self) -> Integers:
        """Samples of all gradients up to each row."""
        return np.cumsum(self.samples_R)

    @property
    def is_timed_R(self) -> Flags:
        """Rows that say when their job was given and begun; none in records made before that was kept."""
        return np.isfinite(self.started_s_R) & np.isfinite(self.assigned_s_R)

    @classmethod
    def of(cls, rows: Sequence[TraceRow]) -> Trace:
        """The columns of these rows."""
        count = len(rows)

        def numbers(name: str) -> Floats:
            values = (getattr(row, name) for row in rows)
            return np.fromiter((np.nan if value is None else value for value in values), np.float64, count)

        def integers(name: str) -> Integers:
            return np.fromiter((getattr(row, name) for row in rows), np.int64, count)

        def actions(*names: str) -> Flags:
            return np.fromiter((row.action in names for row in rows), np.bool_, count)

        return cls(
            numbers("time_s"), integers("worker"), integers("version"), integers("delay"), integers("concurrency"),
            actions("apply", "accumulate"), actions("accumulate"), actions("lost"), numbers("step_size"),
            numbers("loss"), integers("samples"), numbers("compute_s"), numbers("wait_s"),
            numbers("assigned_s"), numbers("queue_s"), numbers("started_s"), integers("job") // JOBS_PER_INCARNATION,
            Counter(row.reason or "no reason given" for row in rows if row.action in ("discard", "lost")),
        )  # fmt: skip


@dataclass(frozen=True)
class Delays:
    """Concurrency tau_C, average delay and largest delay of a run; `average_of` says what the average is over."""

    concurrency: int
    average: float
    average_of: str
    largest: int


@dataclass(frozen=True)
class Record:
    """All that a report is made of.

    Attributes: label: what the run is called here; path; config; summary: None while the run has not ended; trace;
    metrics; warnings: sentences on what the reader must know before trusting a figure; notes: other sentences.
    """

    label: str
    path: Path
    config: Config
    summary: Summary | None
    trace: Trace
    metrics: Sequence[MetricsRow]
    warnings: Sequence[str]
    notes: Sequence[str]

    @property
    def is_virtual(self) -> bool:
        """Whether the times are those of a simulation: over the sockets of a real server bytes come in."""
        return self.summary is not None and self.summary.arrivals > 0 and self.summary.server.bytes_in == 0

    @property
    def wall_s(self) -> float:
        """Length of the run, or of what is recorded of it."""
        if self.summary is not None:
            return self.summary.wall_s
        return float(self.trace.time_s_R[-1]) if len(self.trace) else 0.0

    @property
    def versions(self) -> int:
        if self.summary is not None:
            return self.summary.versions
        return int(np.isfinite(self.trace.step_size_R).sum())

    def delays(self) -> Delays | None:
        """None if no gradient came; from the summary where there is one, which knows the jobs in flight too."""
        arrived_R, trace = self.trace.has_arrived_R, self.trace
        if not arrived_R.any():
            return None
        if self.summary is not None:
            known = self.summary.delay
            return Delays(self.summary.concurrency, known.average, "with the jobs in flight at the end", known.max)
        used = trace.delay_R[trace.is_used_R]
        average = float(used.mean()) if len(used) else 0.0
        largest = int(trace.delay_R[arrived_R].max())
        return Delays(int(trace.concurrency_R.max()), average, "of the used gradients so far", largest)


def read_records(paths: Sequence[Path | str]) -> list[Record]:
    """Read the runs' directories; those that are called alike are told apart by their paths.

    Errors: ConfigError without a run, or with the same one twice; RunError for what is no run or damaged.
    """
    if not paths:
        raise ConfigError("a report needs at least one run; give a run's directory")
    opened = [Run(path) for path in paths]
    places = [run.path.resolve() for run in opened]
    for place, times in Counter(places).items():
        if times > 1:
            raise ConfigError(f"the run {place} is given {times} times; a report compares different runs")
    return [_read(run, label) for run, label in zip(opened, _labels(places), strict=True)]


def _labels(places: Sequence[Path]) -> list[str]:
    """The last parts of the paths, as many as tell them apart; they may hold anything, also what no file can."""
    labels = [place.name for place in places]
    if len(set(labels)) < len(labels):
        shared = os.path.commonpath(places)
        labels = [os.path.relpath(place, shared) for place in places]
    return [label.encode(errors="replace").decode() for label in labels]


def _read(run: Run, label: str) -> Record:
    summary = run.summary if run.is_finished else None
    trace, metrics, config = Trace.of(run.trace), run.metrics, run.config
    del run.trace  # 300,000 rows take 200 MB
    warnings = [*_endings(summary, trace), *_misfits(config)]
    record = Record(label, run.path, config, summary, trace, metrics, warnings, [])
    return Record(label, run.path, config, summary, trace, metrics, warnings, [*run.notes, *_oddities(record)])


def _misfits(config: Config) -> list[str]:
    found = (data_warning(config), optimizer_warning(config))
    return [f"{sentence.removeprefix('warning: ')}." for sentence in found if sentence]


def _endings(summary: Summary | None, trace: Trace) -> list[str]:
    """How a run ended, if it isn't as it should be."""
    if summary is None:
        return [
            "The run has not ended (or was killed): this is what is recorded so far, and what needs its summary lacks."
        ]
    sentences = []
    if not summary.finished:
        sentences.append(f"The run ended before its budget was used up: {summary.stopped_because}.")
    if not trace.is_used_R.any():
        sentences.append("No gradient was applied: the model is still the first one.")
    return sentences


def _oddities(record: Record) -> list[str]:
    trace, summary = record.trace, record.summary
    sentences = []
    if record.is_virtual:
        sentences.append("The run was simulated: its seconds are those of virtual time.")
    reasons = sorted(trace.reasons.items(), key=lambda item: -item[1])
    if reasons:
        named = "; ".join(f"{reason} ({times:,})" for reason, times in reasons[:_MOST_REASONS])
        others = f"; {len(reasons) - _MOST_REASONS:,} other reasons" if len(reasons) > _MOST_REASONS else ""
        sentences.append(f"Discarded or lost: {named}{others}.")
    starts = int(trace.incarnation_R.max(initial=0)) + 1
    if starts > 1:
        sentences.append(
            f"The server was started {starts} times; what was in flight when it stopped is recorded as lost."
        )
    if summary is not None and summary.restarts:
        sentences.append(f"Processes that were started again: {summary.restarts}.")
    if summary is not None and summary.evaluations_missing:
        sentences.append(f"Evaluations that are missing: {summary.evaluations_missing}.")
    without_loss = int((trace.has_arrived_R & (trace.samples_R > 0) & ~np.isfinite(trace.loss_R)).sum())
    if without_loss:
        sentences.append(
            f"{without_loss:,} gradients came with a training loss that isn't finite, which can't be drawn."
        )
    return sentences
