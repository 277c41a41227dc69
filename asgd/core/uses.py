"""How a gradient is used: what the record says of it, and the action that carries it out."""

from __future__ import annotations

from asgd.core.actions import Accumulate, Action, Apply, Mix, StepSize, Store
from asgd.core.ledger import Ledger
from asgd.core.methods.base import Decision, UseAccumulate, UseApply, UseMix, UseNot, UseStore

# What is recorded (action, reason, step size), and the action that carries it out.
Use = tuple[str, str | None, StepSize | None, Action | None]


class Uses:
    """Turns what a method has decided of a gradient into its line in the record and an action.

    Formula: weight of the worker's statistics = 1 / tau_C, or 1 / k for the k-th gradient accumulated since the update.

    Args: method: its name, for sentences.

    Example:
        >>> from asgd.core.ledger import Ledger
        >>> ledger = Ledger()
        >>> ledger.give(worker=0, now_s=0.0).job
        0
        >>> Uses("minibatch").of(Decision(UseAccumulate(0, 1.0)), 0, ledger)
        ('accumulate', None, None, Accumulate(slot=0, weight=1.0, buffer_weight=1.0))
    """

    def __init__(self, method: str) -> None:
        self._method = method
        self.accumulated = 0  # gradients in slots since the last update

    def of(self, decision: Decision, worker: int, ledger: Ledger) -> Use:
        """The use of a gradient of `worker`; its weight is entered in the books. ValueError if it is none."""
        # Weight 1/tau_C: each worker's statistics enter as one of tau_C, and a single worker's replace the old ones. So
        # also where gradients are kept in a table, as Ringleader's: no step is the end of a mean over workers there.
        weight = 1.0 / ledger.max_concurrency
        match decision.use:
            case UseApply(size, clip, correction) if decision.step is None:
                ledger.add_weight(worker, size.value)
                return "apply", None, size, Apply(size, weight, clip, correction)
            case UseMix(share) if decision.step is None:
                ledger.add_weight(worker, share)
                return "apply", None, StepSize(share, share), Mix(share, weight)
            case UseAccumulate(slot, share, kept):
                ledger.put_in_slot(slot, worker, share)
                if not kept:  # so that the statistics after k gradients are the mean of the k workers'
                    self.accumulated += 1
                    weight = 1.0 / self.accumulated
                return "accumulate", None, None, Accumulate(slot, share, weight)
            case UseStore(slot):
                ledger.put_in_slot(slot, worker, 1.0, replace=True)
                return "accumulate", None, None, Store(slot, weight)
            case UseNot(reason):
                return "discard", reason, None, None
        raise ValueError(f"method {self._method} doesn't say how the gradient is used, or steps twice: {decision}")
