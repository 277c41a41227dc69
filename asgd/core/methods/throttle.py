"""THROTTLE: rounds in which the repeats of fast workers count less and less."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from asgd.core.actions import StepSize
from asgd.core.methods.base import Answer, Decision, UseApply, UseNot, View
from asgd.errors import ConfigError


@dataclass
class Throttle:
    """THROTTLE: gradients are applied when they arrive; in each round a worker's first one counts 1/n and its repeats
    less and less, until all have reported and everybody starts again at the same model.

    Formula: x^{t+1} = x^t - eta_t g, with eta_t = eta / n for a worker's first gradient of the round and eta / q^c for
    its c-th repeat; n = workers at the beginning of the round, eta = the scheduled step size. After each gradient its
    worker gets x^{t+1}. When every worker of the round has reported, the jobs that still run (all of them repeats) are
    cancelled and every worker that is there gets the current model: the next round. All first gradients of a round are
    therefore of the same model, but for those of workers whose very first one wasn't finite. q = infinity: repeats
    count nothing, and with plain SGD the round's updates are one mini-batch step with the mean. With momentum, weight
    decay or Adam they are not: each of the n updates applies these in full, so the run gives a warning. q = 1: each
    repeat is a step of asynchronous SGD with the full eta; first gradients still count 1/n. With one worker it is plain
    SGD, whatever q. The configured step-size rule has no effect.

    Args:
        q: throttle, >= 1, inf allowed.

    Errors: ConfigError for an option out of range.

    Example:
        >>> Throttle(q=1.1).name
        'throttle'

    Reference: THROTTLE (2026), as this project's notes describe it: the paper itself could not be read, so no
    algorithm number. Two things there are no words about, and our choice: a worker whose next repeat would count 0 (q =
    inf) gets no job until the round ends, as in mini-batch SGD; a gradient that isn't finite counts as a report and
    not as a gradient (the next one of its worker is the first). A worker that leaves is not waited for, n stays what
    it was; one that joins waits for the next round.
    """

    name = "throttle"
    q: float = field(default=1.5, metadata={"option": True})
    num_workers: int = 0  # n, of the current round
    num_waiting: int = 0  # workers of the round that haven't reported; 0 = there is no round
    num_used: dict[int, int] = field(default_factory=dict)  # by worker that has reported: its gradients in this round

    def __post_init__(self) -> None:
        if not isinstance(self.q, int | float) or isinstance(self.q, bool) or not self.q >= 1.0:
            raise ConfigError(f"method.options.q = {self.q!r}: allowed is a number of at least 1, or inf")

    def begin(self, view: View) -> Decision:
        return self._new_round(view, None)

    def joined(self, view: View, worker: int) -> Decision:
        return self._new_round(view, None) if view.concurrency == 0 else Decision()

    def arrived(self, view: View, answer: Answer) -> Decision:
        self._report(answer.worker)
        use: UseApply | UseNot
        if answer.refusal is not None:
            use = UseNot(answer.refusal)
        else:
            base = view.step_size(answer.delay).base
            repeats = self.num_used[answer.worker]
            value = base * self._weight(repeats) if repeats else base / self.num_workers
            self.num_used[answer.worker] += 1
            use = UseApply(StepSize(base, value))
        if self.num_waiting == 0:
            return self._new_round(view, use)
        repeats = self.num_used[answer.worker]
        waits = repeats > 0 and self._weight(repeats) == 0.0
        return Decision(use, assign=() if waits else (answer.worker,))

    def lost(self, view: View, worker: int, job: int) -> Decision:
        if self.num_waiting == 0:
            return Decision()
        self._report(worker)
        return self._new_round(view, None) if self.num_waiting == 0 else Decision()

    def _weight(self, repeats: int) -> float:
        """q^-c: 0 for q = inf, and where it is below the smallest number."""
        return float(float(self.q) ** -repeats)

    def _report(self, worker: int) -> None:
        if worker not in self.num_used:
            self.num_used[worker] = 0
            self.num_waiting -= 1

    def _new_round(self, view: View, use: UseApply | UseNot | None) -> Decision:
        workers = list(view.workers)
        self.num_workers = self.num_waiting = len(workers)
        self.num_used.clear()
        # With nobody left the remaining jobs are being lost one by one: there is nothing to cancel.
        return Decision(use, cancel=[job.job for job in view.outstanding] if workers else (), assign=workers)

    def state(self) -> dict[str, Any]:
        return {
            "num_workers": self.num_workers,
            "num_waiting": self.num_waiting,
            "num_used": [[worker, count] for worker, count in self.num_used.items()],
        }

    def restore(self, plain: dict[str, Any]) -> None:
        self.num_workers, self.num_waiting = plain["num_workers"], plain["num_waiting"]
        self.num_used = {worker: count for worker, count in plain["num_used"]}
