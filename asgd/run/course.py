"""What a run's rows come to while it goes on: what a display shows of them, and what the log tells."""

from __future__ import annotations

from collections.abc import Callable

from asgd.core.judge import NOT_FINITE
from asgd.core.trace import TraceRow

TOLD = (1, 10, 100, 1000, 10_000, 100_000)  # what may happen very often is told when it has happened so many times


class Course:
    """Takes each row of the trace.

    Arguments: note: takes one line about each thing worth telling. Attributes: train_loss: of recent jobs, None before
    the first; last_delay: of each worker's last answer.
    """

    def __init__(self, note: Callable[[str], None]) -> None:
        self.train_loss: float | None = None
        self.last_delay: dict[int, int] = {}
        self._note, self._num_not_finite = note, 0

    def heard(self, row: TraceRow) -> None:
        if row.action == "lost":
            self._note(f"job {row.job} of worker {row.worker} is lost: {row.reason}")
        else:
            self.last_delay[row.worker] = row.delay
        if row.loss is not None:
            before = row.loss if self.train_loss is None else self.train_loss
            self.train_loss = before + 0.05 * (row.loss - before)
        if row.reason == NOT_FINITE:
            self._num_not_finite += 1
            if self._num_not_finite in TOLD:
                self._note(f"discarded a gradient of worker {row.worker}: not finite ({self._num_not_finite} so far)")
