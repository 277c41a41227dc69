"""Mini-batch SGD: the synchronous baseline, on the same server and protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from asgd.core.methods.base import Answer, Decision, TakeStep, UseAccumulate, UseNot, View

_SLOT = 0


@dataclass
class Minibatch:
    """Mini-batch SGD: all workers compute at the same version, then one step with the mean of their gradients.

    Formula: x^{t+1} = x^t - eta (1/m) sum_i grad F(x^t, xi_i), over the m workers that answered in this round. Then
    all workers that are there get x^{t+1}. For plain SGD this is the iterate that n single steps of size eta/n give
    when no new model is sent in between. A worker that leaves in the round is not waited for (m shrinks by one); one
    that joins waits for the next round. When all have left (or the server was restarted), those who join go on with the
    round; who had answered in it may do so again.

    Example:
        >>> Minibatch().name
        'minibatch'

    Reference: Koloskova, Stich, Jaggi, arXiv:2206.08307, Example 2 (A_t empty except every n-th step). We depart from
    it by making one step of the mean, with delay 0, instead of n single steps with delays 0 to n - 1: optimizers with
    state then see one gradient.
    """

    name = "minibatch"
    num_accumulated: int = 0

    def begin(self, view: View) -> Decision:
        return Decision(assign=view.workers)

    def joined(self, view: View, worker: int) -> Decision:
        idle = view.concurrency == 0
        return Decision(assign=(worker,) if idle else ())

    def arrived(self, view: View, answer: Answer) -> Decision:
        if answer.refusal is not None:
            return self._close_round(view, UseNot(answer.refusal))
        self.num_accumulated += 1
        return self._close_round(view, UseAccumulate(_SLOT))

    def lost(self, view: View, worker: int, job: int) -> Decision:
        return self._close_round(view, None)

    def _close_round(self, view: View, use: UseAccumulate | UseNot | None) -> Decision:
        if view.concurrency > 0 or not view.workers:
            return Decision(use)
        if self.num_accumulated == 0:
            return Decision(use, assign=view.workers)
        step = TakeStep(((_SLOT, 1.0 / self.num_accumulated),), view.step_size(0))
        self.num_accumulated = 0
        return Decision(use, step, assign=view.workers)

    def state(self) -> dict[str, Any]:
        return {"num_accumulated": self.num_accumulated}

    def restore(self, plain: dict[str, Any]) -> None:
        self.num_accumulated = plain["num_accumulated"]
