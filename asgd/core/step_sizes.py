"""The step size of an update: schedule and rule, with what they need to know of the run so far."""

from __future__ import annotations

from typing import Any

from asgd.core.actions import StepSize
from asgd.core.ledger import Ledger
from asgd.core.schedules import Schedule
from asgd.core.step_rules import Rule, takes
from asgd.core.step_sums import StepSums
from asgd.errors import ConfigError


class StepSizes:
    """Formula: step size = rule(schedule(progress), delay, tau_C), tau_C the largest concurrency so far.

    Arguments: rule, schedule: see `step_rules`, `schedules`; over: what the schedule counts up to the last update,
    "versions" or "samples" (of all arrivals).
    """

    def __init__(self, rule: Rule, schedule: Schedule, over: str) -> None:
        if over not in ("versions", "samples"):
            raise ConfigError(f"schedule.over = {over!r}: allowed: versions, samples")
        self._rule, self._schedule = rule, schedule
        self._takes_version = takes(rule, "version")
        self._sums = StepSums() if takes(rule, "steps_since_read") else None
        self._since_read = 0.0  # of the job whose arrival is being handled
        self._over_samples = over == "samples"
        self._samples_at_update = 0

    def of(self, delay: int, ledger: Ledger, samples: int) -> StepSize:
        """For a gradient of this delay: that of the job that was taken last, or 0."""
        if self._over_samples:
            base = self._schedule(self._samples_at_update, samples - self._samples_at_update)
        else:
            base = self._schedule(ledger.version, 1)
        if self._takes_version:
            return StepSize(base, self._rule(base, delay, ledger.max_concurrency, version=ledger.version))
        if self._sums is not None:
            # Methods ask for the delay of the job being handled, or for 0: what was computed at this version.
            since = self._since_read if delay else 0.0
            return StepSize(base, self._rule(base, delay, ledger.max_concurrency, steps_since_read=since))
        return StepSize(base, self._rule(base, delay, ledger.max_concurrency))

    def given(self, job: int) -> None:
        if self._sums is not None:
            self._sums.given(job)

    def taken(self, job: int) -> None:
        if self._sums is not None:
            self._since_read = self._sums.ended(job)

    def stepped(self, step_size: float, samples: int) -> None:
        """An update was made, after so many samples."""
        if self._sums is not None:
            self._sums.stepped(step_size)
        self._samples_at_update = samples

    def to_dict(self) -> dict[str, Any]:
        sums = None if self._sums is None else self._sums.to_dict()
        return {"sums": sums, "samples_at_update": self._samples_at_update}

    def restore(self, plain: dict[str, Any]) -> None:
        if self._sums is not None:
            self._sums.restore(plain["sums"])
        self._samples_at_update = plain["samples_at_update"]
