"""m-synchronous SGD: step with the first m gradients of a round, ignore the rest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from asgd.core.methods.base import Answer, Decision, TakeStep, UseAccumulate, UseNot, View
from asgd.errors import ConfigError

_SLOT = 0


@dataclass
class MSynchronous:
    """m-synchronous SGD: one step with the mean of the first m gradients computed at the current version.

    Formula: x^{k+1} = x^k - eta (1/m) sum_{i in M_k} grad F(x^k, xi_i), M_k the first m workers that answer x^k; the
    other gradients of x^k are ignored. eta = what the step-size rule makes of the scheduled step size at delay 0
    (`adadelay` and `wu_adaptive_1` shorten it even then). m = all is mini-batch SGD. With `cancel` the jobs still
    running at the step are cancelled and all workers get x^{k+1}; without it a straggler finishes, its stale gradient
    is discarded, and it gets the version that is then current.

    Args:
        m: gradients per step, 0 (all workers) or more. A round whose last outstanding job has ended with fewer (few
            workers, or some that left) steps with the mean of those; when all have left, those who join go on with it.
        cancel: whether jobs still running at a step are cancelled.

    Errors: ConfigError for an option out of its range.

    Example:
        >>> MSynchronous(m=3).cancel
        True

    Reference: m-Synchronous SGD of Begunov, Tyurin, arXiv:2602.03802, written after its description in words (send x,
    average the first m gradients computed at x, ignore the rest), not after its pseudocode. What we add: `cancel`, both
    ways of ignoring; a worker that joins, or whose gradient is not finite, computes at the current version at once
    (with m = 0 it waits for the next round, as in mini-batch SGD).
    """

    m: int = field(default=0, metadata={"option": True})
    cancel: bool = field(default=True, metadata={"option": True})
    num_accumulated: int = 0
    # Who has answered in this round and waits for its end; may name workers that have left since.
    idle: dict[int, None] = field(default_factory=dict)

    name = "m_synchronous"

    def __post_init__(self) -> None:
        if type(self.m) is not int or self.m < 0:
            raise ConfigError(f"method.options.m = {self.m!r}: allowed is a whole number >= 0 (0: all workers)")
        if type(self.cancel) is not bool:
            raise ConfigError(f"method.options.cancel = {self.cancel!r}: allowed: true, false")

    def begin(self, view: View) -> Decision:
        self.idle = {}  # a restarted run may be in the middle of a round
        return Decision(assign=view.workers)

    def joined(self, view: View, worker: int) -> Decision:
        self.idle.pop(worker, None)  # it may have answered in this round, left, and come back
        return Decision(assign=(worker,) if self.m or view.concurrency == 0 else ())

    def arrived(self, view: View, answer: Answer) -> Decision:
        if answer.delay > 0:
            return Decision(UseNot(f"stale: delay {answer.delay}"), assign=(answer.worker,))
        if answer.refusal is not None:
            if self.m and view.concurrency > 0:
                return Decision(UseNot(answer.refusal), assign=(answer.worker,))
            return self._close_round_if_due(view, UseNot(answer.refusal))
        self.num_accumulated += 1
        self.idle[answer.worker] = None
        return self._close_round_if_due(view, UseAccumulate(_SLOT))

    def lost(self, view: View, worker: int, job: int) -> Decision:
        return self._close_round_if_due(view, None)

    def _close_round_if_due(self, view: View, use: UseAccumulate | UseNot | None) -> Decision:
        # Fewer than m only where nobody computes any more: then nobody is waited for who may be gone.
        if not view.workers or (view.concurrency > 0 and (self.m == 0 or self.num_accumulated < self.m)):
            return Decision(use)
        step = None
        if self.num_accumulated:
            step = TakeStep(((_SLOT, 1.0 / self.num_accumulated),), view.step_size(0))
        idle, self.num_accumulated, self.idle = self.idle, 0, {}
        if view.concurrency == 0:
            return Decision(use, step, assign=view.workers)
        if self.cancel:
            return Decision(use, step, cancel=[job.job for job in view.outstanding], assign=view.workers)
        return Decision(use, step, assign=[worker for worker in idle if worker in view.workers])

    def state(self) -> dict[str, Any]:
        return {"num_accumulated": self.num_accumulated, "idle": list(self.idle)}

    def restore(self, plain: dict[str, Any]) -> None:
        self.num_accumulated = plain["num_accumulated"]
        self.idle = dict.fromkeys(plain["idle"])
