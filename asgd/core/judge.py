"""The judgement of gradients, whatever the method: which are refused, when the run has diverged, who is quarantined."""

from __future__ import annotations

from collections.abc import Set
from math import isfinite
from typing import Any

from asgd.core.divergence import Divergence
from asgd.core.events import Arrival
from asgd.core.guard import NormGuard, Offenders

NOT_FINITE = "not finite"


class Judge:
    """What `Divergence`, `NormGuard` and `Offenders` say of the gradients, in one place.

    Args:
        norm_guard: k of the `NormGuard`, >= 0; 0: none.
        quarantine_after: limit of the `Offenders`, >= 0; 0: nobody is quarantined.

    Example:
        >>> judge = Judge()
        >>> judge.refusal(Arrival(worker=0, job=0, version=0, loss=float("nan"), samples=1, compute_s=1.0, now_s=1.0))
        'not finite'
    """

    def __init__(self, norm_guard: float = 0.0, quarantine_after: int = 0) -> None:
        self._divergence = Divergence()
        self._guard = NormGuard(norm_guard)
        self._offenders = Offenders(quarantine_after)
        self.quarantined: dict[int, str] = {}  # worker -> why

    def refusal(self, event: Arrival) -> str | None:
        """Why the gradient must not be used, None if it may be; it is remembered for those to come."""
        finite = event.finite and isfinite(event.loss)
        self._divergence.heard(event.worker, finite)
        return self._guard.refuses(event.norm) if finite else NOT_FINITE

    def divergence(self, workers: Set[int]) -> str | None:
        """Why the run has diverged with these workers there, None if it hasn't."""
        if self._divergence.is_certain(workers):
            return f"diverged: the last {self._divergence.in_a_row} gradients were not finite"
        return None

    def offence(self, worker: int, read_version: int, refusal: str | None) -> str | None:
        """After a gradient of `worker` with that refusal: why the worker must be quarantined, None if it needn't."""
        if refusal is None:
            self._offenders.sound(worker, read_version)
        elif self._offenders.refused(worker, read_version):
            return f"quarantined: {self._offenders.limit} of its gradients in a row were refused ({refusal})"
        return None

    def forget(self, worker: int) -> None:
        """A worker has left: whoever comes under its number has a clean sheet."""
        self._offenders.forget(worker)

    def to_dict(self) -> dict[str, Any]:
        return {
            "divergence": self._divergence.to_dict(),
            "guard": self._guard.to_dict(),
            "offenders": self._offenders.to_dict(),
            "quarantined": list(self.quarantined.items()),
        }

    def restore(self, plain: dict[str, Any]) -> None:
        self._divergence.restore(plain["divergence"])
        if "guard" in plain:  # not in checkpoints from before there was one
            self._guard.restore(plain["guard"])
            self._offenders.restore(plain["offenders"])
            self.quarantined = {worker: reason for worker, reason in plain["quarantined"]}
