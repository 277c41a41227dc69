"""Ringmaster ASGD: asynchronous SGD that doesn't use gradients which are too old."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from asgd.core.actions import StepSize
from asgd.core.methods.base import AlwaysBusy, Answer, Decision, Outstanding, UseApply, UseNot, View
from asgd.errors import ConfigError


@dataclass
class Ringmaster(AlwaysBusy):
    """Ringmaster ASGD: a gradient is applied when its delay is below R, otherwise discarded; its worker starts again
    at the current model.

    Formula: x^{k+1} = x^k - eta grad F(x^{k - delta}, xi) if delta < R; otherwise x^k stays. delta is the delay, k the
    version, eta the scheduled step size: it doesn't depend on the delay, so the configured step-size rule has no
    effect. With `cancel`, jobs whose delay reaches R by an update are stopped at once and their workers start again at
    x^{k+1}, after the worker whose gradient was applied; no gradient of delay R or more arrives then.

    Args:
        R: delay threshold, >= 1. R = 1 uses gradients of the current version only. None (not given) means twice the
            concurrency so far: this project's default, not the paper's. An R below the concurrency discards gradients
            even of workers that are equally fast.
        cancel: whether running jobs are stopped (true or false). Needs workers that can stop a job.

    Errors: ConfigError for an option out of range.

    Example:
        >>> Ringmaster(R=4, cancel=True).name
        'ringmaster'

    Reference: Maranjyan, Tyurin, Richtarik, "Ringmaster ASGD", arXiv:2501.16168, Algorithm 4 (without calculation
    stops) and, with `cancel`, Algorithm 5 (with calculation stops). We depart from it where a worker leaves (its job
    is lost and it gets no further one) or joins (it gets jobs at the current version), and allow several jobs per
    worker.
    """

    name = "ringmaster"
    R: int | None = field(default=None, metadata={"option": True})
    cancel: bool = field(default=False, metadata={"option": True})
    # Only with `cancel`, and not part of the state, because the view's outstanding jobs give it again: some of these,
    # oldest first, and which of them have ended meanwhile. It is filled anew when it is used up; so every job is put
    # into it at most once, which makes the work per arrival O(1) amortised.
    _oldest: deque[Outstanding] = field(default_factory=deque, init=False, repr=False, compare=False)
    _ended: set[int] = field(default_factory=set, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.R is not None and (not isinstance(self.R, int) or isinstance(self.R, bool) or self.R < 1):
            raise ConfigError(f"method.options.R = {self.R!r}: allowed is a whole number of at least 1")
        if not isinstance(self.cancel, bool):
            raise ConfigError(f"method.options.cancel = {self.cancel!r}: allowed: true, false")

    def arrived(self, view: View, answer: Answer) -> Decision:
        self._end(answer.job)
        again = (answer.worker,)
        if answer.refusal is not None:
            return Decision(UseNot(answer.refusal), assign=again)
        threshold = 2 * view.max_concurrency if self.R is None else self.R
        if answer.delay >= threshold:
            return Decision(UseNot(f"delay {answer.delay}, R = {threshold}"), assign=again)
        base = view.step_size(answer.delay).base
        # The update makes the version one more, so every other job one older.
        old = self._not_after(view, view.version + 1 - threshold) if self.cancel else []
        return Decision(
            UseApply(StepSize(base, base)),
            cancel=[job.job for job in old],
            assign=[answer.worker] + [job.worker for job in old],
        )

    def lost(self, view: View, worker: int, job: int) -> Decision:
        self._end(job)
        return Decision()

    def _end(self, job: int) -> None:
        if self._oldest and job <= self._oldest[-1].job:
            self._ended.add(job)

    def _not_after(self, view: View, read_version: int) -> list[Outstanding]:
        """Take out the outstanding jobs that were given at this version or before, oldest first."""
        found: list[Outstanding] = []
        while True:
            if not self._oldest:
                if read_version < 0:
                    return found
                taken = {job.job for job in found}
                self._oldest.extend(job for job in view.outstanding if job.job not in taken)
                if not self._oldest:
                    return found
            job = self._oldest[0]
            if job.job in self._ended:
                self._ended.remove(job.job)
            elif job.read_version <= read_version:
                found.append(job)
            else:
                return found
            self._oldest.popleft()

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, plain: dict[str, Any]) -> None:
        self._oldest.clear()
        self._ended.clear()
