"""A real run's recorded times, to drive the same run again in virtual time."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from pathlib import Path

from asgd.core.events import Stop
from asgd.core.state import CANCELLED
from asgd.core.trace import TraceRow
from asgd.errors import RunError
from asgd.run.ledger import check_trace
from asgd.run.records import TRACE, RunDirectory, Summary

_OTHERWISE = (
    "it can't be driven again by its times (did it begin with fewer workers than are configured, or did one join "
    "later? or is the configuration another?)"
)


class RecordedTimes:
    """When jobs are done by a real run's record: at their arrival there; what never arrived there never does here.

    Arguments: rows: its trace; summary: how it ended, None when it was killed before its end.
    Attributes: seconds: what its workers said of their jobs' times, (compute_s, wait_s) by job: some methods go by it;
    stop: what ends the run after the last row, unless its budget does.
    Errors: RunError for a trace with lost jobs: when their workers came back is not in it.

    Example:
        >>> row = TraceRow(arrival=0, time_s=0.5, worker=1, job=3, read_version=0, version=0, delay=0, concurrency=2,
        ...                action="apply", steps=1, step_size=0.05, reason=None, loss=2.3, samples=64,
        ...                compute_s=0.02, wait_s=0.0)
        >>> times = RecordedTimes([row], None)
        >>> times.end_of_job(1, 3, 0.0), times.end_of_job(0, 4, 0.5), times.stop.reason
        (0.5, inf, 'the recorded times end here')
    """

    def __init__(self, rows: Sequence[TraceRow], summary: Summary | None) -> None:
        lost = [row for row in rows if row.action == "lost"]
        if lost:
            raise RunError(
                f"the recorded run lost job {lost[0].job} (and {len(lost) - 1} more): it can't be driven again by its "
                "times"
            )
        arrived = [row for row in rows if row.reason != CANCELLED]
        self.seconds = {row.job: (row.compute_s, row.wait_s) for row in arrived}
        self._rows, self._summary = rows, summary
        self._arrived_s = {row.job: row.time_s for row in arrived}
        self._workers = {row.job: row.worker for row in rows}
        last_s = rows[-1].time_s if rows else 0.0
        if summary is None:
            self.stop = Stop("the recorded times end here", last_s)
        elif summary.finished:  # here the budget may be a larger one
            self.stop = Stop("the recorded times end here", summary.wall_s)
        else:
            self.stop = Stop(summary.stopped_because, last_s)

    @classmethod
    def read(cls, path: Path | str) -> RecordedTimes:
        """Those of the run in this directory; RunError for a trace that isn't a true and whole history."""
        return cls(*read_history(path, "the run can't be driven again by its times"))

    def end_of_job(self, worker: int, job: int, now_s: float) -> float:
        """When the job is done, inf for never; RunError when the recorded run gave it to another worker."""
        recorded = self._workers.get(job, worker)
        if recorded != worker:
            raise RunError(
                f"the recorded run gave job {job} to worker {recorded}, not to worker {worker}: {_OTHERWISE}"
            )
        return self._arrived_s.get(job, inf)

    def check(self, row: TraceRow) -> None:
        """Compare a row with the recorded one: who arrived with which job, and how many jobs were outstanding."""
        if row.arrival >= len(self._rows):
            raise RunError(f"the recorded run ended before arrival {row.arrival}: {_OTHERWISE}")
        recorded = self._rows[row.arrival]
        for name in ("worker", "job", "concurrency"):
            was, wanted = getattr(recorded, name), getattr(row, name)
            if was != wanted:
                raise RunError(
                    f"the recorded run has {name} {was} in arrival {row.arrival}, not {wanted}: {_OTHERWISE}"
                )

    def check_end(self, reason: str, num_rows: int, num_outstanding: int) -> None:
        """Compare the end of the run, when it is the recorded one's, with what the summary says of it."""
        if self._summary is None or reason != self._summary.stopped_because:
            return
        said = len(self._rows), len(self._summary.outstanding)
        if said != (num_rows, num_outstanding):
            raise RunError(
                f"the recorded run ended after {said[0]} lines of its trace with {said[1]} jobs in flight, not after "
                f"{num_rows} with {num_outstanding}: {_OTHERWISE}"
            )


def read_history(path: Path | str, so: str) -> tuple[list[TraceRow], Summary | None]:
    """The trace of the run in this directory, and its summary, None when it hasn't ended.

    Errors: RunError for a trace that isn't a true and whole history; `so` says what can't be done with it therefore.
    """
    with RunDirectory.open(path) as directory:
        rows, summary = directory.read_trace(), directory.read_summary() if directory.is_finished() else None
        trace, torn = directory.path / TRACE, bool(directory.notes)
    if (found := damage(rows, summary, torn)) is not None:
        raise RunError(f"{trace} {found}: {so}")
    return rows, summary


def damage(rows: Sequence[TraceRow], summary: Summary | None, torn: bool) -> str | None:
    """What is wrong with a recorded trace; a killed run's may end anywhere, also within a line."""
    if summary is not None:
        said = summary.used + summary.discarded + summary.lost
        if len(rows) != said:
            return f"has {len(rows)} whole lines, and the run ended after {said}, by its summary"
        if torn:
            return "ends within a line, and the run has ended"
    if not rows:
        return "is missing or has no line"
    problems = check_trace(rows, None if summary is None else summary.outstanding)
    return f"is damaged ({problems[0].rstrip('.')})" if problems else None
