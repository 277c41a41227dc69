"""Bounded staleness (stale-synchronous parallel): nobody begins a job when more than s jobs ahead of the slowest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from asgd.core.methods.base import Answer, Decision, Use, UseApply, UseNot, View
from asgd.errors import ConfigError


@dataclass
class BoundedStaleness:
    """Stale-synchronous parallel: gradients are applied on arrival, but who is more than s jobs ahead waits.

    Formula: c_i = jobs that worker i has finished (its clock). Its next job is given as soon as c_i - min_j c_j <= s,
    the minimum over the workers that are there; x^{t+1} = x^t - eta_t grad F(x^{t - tau_t}, xi_t) on every arrival,
    eta_t from the step-size rule. So a worker at clock c reads all updates of clocks up to c - s - 1. s = 0: nobody
    gets its next job before all have finished theirs (n single steps where mini-batch SGD makes one). s = infinity:
    asynchronous SGD. With n workers that stay, delays are at most (n - 1) (2 s + 1).

    Args:
        s: jobs that a worker may be ahead of the slowest when it begins one, >= 0.

    Errors: ConfigError for an option out of its range.

    Example:
        >>> BoundedStaleness(s=2).s
        2

    Reference: Ho et al., "More Effective Distributed ML via a Stale Synchronous Parallel Parameter Server", NIPS 2013,
    the bounded staleness conditions, read as quoted by others (slowest and fastest worker at most s clocks apart, else
    the fastest waits; a reader at clock c sees all updates up to clock c - s - 1; it sees its own). The bound on delays
    is ours. We depart from it: no caches at the workers, a job always reads the newest version; updates are steps of
    the server's optimizer; a job whose gradient was not finite, or was dropped by the step-size rule, counts for the
    clock; a worker that leaves is not waited for; one that joins begins at the clock of the slowest.
    """

    s: int = field(default=3, metadata={"option": True})
    slowest: int = 0
    # Workers that wait without a job may have left unnoticed: they stay in these tables until their turn comes. They
    # are never the slowest: the slowest always has a job (but for the end of a run, see `begin`).
    clocks: dict[int, int] = field(default_factory=dict)
    num_at: dict[int, int] = field(default_factory=dict)  # clock -> how many of `clocks` are there
    waiting_at: dict[int, dict[int, None]] = field(default_factory=dict)  # clock -> who waits there

    name = "bounded_staleness"

    def __post_init__(self) -> None:
        if type(self.s) is not int or self.s < 0:
            raise ConfigError(f"method.options.s = {self.s!r}: allowed is a whole number >= 0")

    def begin(self, view: View) -> Decision:
        # A restarted run begins anew at the clock of the slowest. Whoever made the arrival that ended it had no job to
        # lose, and mustn't be waited for.
        self.clocks, self.num_at, self.waiting_at = {}, {}, {}
        return Decision(assign=[self._newcomer(worker) for worker in view.workers])

    def joined(self, view: View, worker: int) -> Decision:
        return Decision(assign=(self._newcomer(worker),))

    def arrived(self, view: View, answer: Answer) -> Decision:
        clock = self.clocks[answer.worker] + 1
        self._forget(answer.worker)
        self._enter(answer.worker, clock)
        self.waiting_at.setdefault(clock, {})[answer.worker] = None
        released = self._advance(view)
        if clock <= self.slowest + self.s:
            released += self._release(view, clock)
        return Decision(self._use(view, answer), assign=released)

    def lost(self, view: View, worker: int, job: int) -> Decision:
        self._forget(worker)
        return Decision(assign=self._advance(view))

    def _use(self, view: View, answer: Answer) -> Use:
        if answer.refusal is not None:
            return UseNot(answer.refusal)
        step_size = view.step_size(answer.delay)
        if step_size.value == 0.0 < step_size.base:
            return UseNot(f"dropped by the step-size rule: delay {answer.delay}, tau_C {view.max_concurrency}")
        return UseApply(step_size)

    def _newcomer(self, worker: int) -> int:
        if worker in self.clocks:  # it left while it waited, and comes back
            self._forget(worker)
        self._enter(worker, self.slowest)
        return worker

    def _enter(self, worker: int, clock: int) -> None:
        self.clocks[worker] = clock
        self.num_at[clock] = self.num_at.get(clock, 0) + 1

    def _forget(self, worker: int) -> None:
        clock = self.clocks.pop(worker)
        self.num_at[clock] -= 1
        if not self.num_at[clock]:
            del self.num_at[clock]
        waiting = self.waiting_at.get(clock)
        if waiting is not None:
            waiting.pop(worker, None)
            if not waiting:
                del self.waiting_at[clock]

    def _advance(self, view: View) -> list[int]:
        """Move on to the clock that is the slowest now; returns who may go on. Amortized O(1) per finished job."""
        released: list[int] = []
        while self.clocks and self.slowest not in self.num_at:
            self.slowest += 1
            released += self._release(view, self.slowest + self.s)
        return released

    def _release(self, view: View, clock: int) -> list[int]:
        """Who waits at `clock` and is still there; who isn't is forgotten."""
        waiting = list(self.waiting_at.pop(clock, ()))
        for worker in waiting:
            if worker not in view.workers:
                self._forget(worker)
        return [worker for worker in waiting if worker in view.workers]

    def state(self) -> dict[str, Any]:
        return {
            "slowest": self.slowest,
            "clocks": [[worker, clock] for worker, clock in self.clocks.items()],
            "waiting_at": [[clock, list(waiting)] for clock, waiting in self.waiting_at.items()],
        }

    def restore(self, plain: dict[str, Any]) -> None:
        self.slowest = plain["slowest"]
        self.clocks, self.num_at = {}, {}
        for worker, clock in plain["clocks"]:
            self._enter(worker, clock)
        self.waiting_at = {clock: dict.fromkeys(waiting) for clock, waiting in plain["waiting_at"]}
