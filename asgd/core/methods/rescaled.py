"""Rescaled ASGD: asynchronous SGD in which every worker weighs the same, however fast it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from asgd.core.actions import StepSize
from asgd.core.assignment import everybody, newcomer
from asgd.core.methods.base import Answer, Decision, UseApply, UseNot, View

# Seconds are counted in whole ticks (about a nanosecond): integer sums never drift, and equal speeds give exactly 1.
_TICKS_PER_S = 2**30


@dataclass
class Rescaled:
    """Rescaled ASGD: asynchronous SGD with each worker's step size proportional to its time per gradient.

    Formula: x^{t+1} = x^t - eta_t (h_i / h) grad F_i(x^{t - tau_t}, xi_t), where h_i is the running mean of the seconds
    per gradient of worker i, whose gradient arrives, and h is the mean of these over the workers that are there and
    have answered. A worker that is k times as fast answers k times as often with steps k times as short: in the same
    time all contribute the same, and the run descends on the mean of the workers' functions instead of on one in which
    fast workers weigh more. eta_t is what the configured step-size rule makes of the delay, and the two are multiplied:
    step size = rule(eta, tau_t) h_i / h; a rule that answers 0 drops the gradient. Delays grow with h_i, so any rule
    that shortens the steps of late gradients takes back part of the balance: use the rule `constant`. Workers of equal
    speed get the factor 1, that is, asynchronous SGD. The mean of the factor over arrivals is at most 1.

    With momentum the balance stays, because a gradient enters the buffer with its factor. With Adam it doesn't: the
    moments take every gradient in full, and the run gives a warning.

    Until a worker's first answer it is missing in h: the first steps of the fast ones are too long by as much.

    Example:
        >>> Rescaled().name
        'rescaled'

    Reference: Mahran, Maranjyan, Richtarik, "Rescaled Asynchronous SGD", arXiv:2605.13434, from its abstract: step
    sizes of workers in proportion to their computation times, so that each contributes the same aggregate learning
    rate over a cycle. Ours are the measurement (the paper's model has known, fixed times), the normalisation by h, and
    that the speed of a worker is forgotten when it leaves.
    """

    name = "rescaled"
    ticks: dict[int, int] = field(default_factory=dict)  # by worker: of all of its answers
    counts: dict[int, int] = field(default_factory=dict)  # by worker: answers that were timed
    sum_of_means: int = 0  # over the workers in `counts`

    def begin(self, view: View) -> Decision:
        # After a restart all are measured anew, also who made the arrival that ended the run and had no job to lose.
        self.ticks, self.counts, self.sum_of_means = {}, {}, 0
        return Decision(assign=everybody(view))

    def joined(self, view: View, worker: int) -> Decision:
        return Decision(assign=newcomer(view, worker))

    def arrived(self, view: View, answer: Answer) -> Decision:
        self._measure(answer.worker, answer.seconds)
        again = (answer.worker,)
        if answer.refusal is not None:
            return Decision(UseNot(answer.refusal), assign=again)
        step_size = view.step_size(answer.delay)
        if step_size.value == 0.0 < step_size.base:
            return Decision(
                UseNot(f"dropped by the step-size rule: delay {answer.delay}, tau_C {view.max_concurrency}"),
                assign=again,
            )
        factor = self.factor(answer.worker)
        return Decision(UseApply(StepSize(step_size.base, step_size.value * factor)), assign=again)

    def lost(self, view: View, worker: int, job: int) -> Decision:
        # A worker always has a job while the run goes on, so none leaves without passing here; one with several passes
        # several times.
        self.sum_of_means -= self._mean_ticks(worker)
        self.ticks.pop(worker, None)
        self.counts.pop(worker, None)
        return Decision()

    def factor(self, worker: int) -> float:
        """h_i / h; 1 for a worker without a measurement."""
        if worker not in self.counts:
            return 1.0
        return self._mean_ticks(worker) * len(self.counts) / self.sum_of_means

    def _measure(self, worker: int, seconds: float) -> None:
        if not (isfinite(seconds) and seconds >= 0.0):
            return
        self.sum_of_means -= self._mean_ticks(worker)
        # At least one tick, so that no mean is 0: a step size of 0 would never be taken back.
        self.ticks[worker] = self.ticks.get(worker, 0) + max(1, round(seconds * _TICKS_PER_S))
        self.counts[worker] = self.counts.get(worker, 0) + 1
        self.sum_of_means += self._mean_ticks(worker)

    def _mean_ticks(self, worker: int) -> int:
        count = self.counts.get(worker, 0)
        return self.ticks[worker] // count if count else 0

    def state(self) -> dict[str, Any]:
        return {"times": [[worker, self.ticks[worker], count] for worker, count in self.counts.items()]}

    def restore(self, plain: dict[str, Any]) -> None:
        self.ticks = {worker: ticks for worker, ticks, _ in plain["times"]}
        self.counts = {worker: count for worker, _, count in plain["times"]}
        self.sum_of_means = sum(self._mean_ticks(worker) for worker in self.counts)
