"""When a run has diverged: gradients that are not finite."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

# A run whose gradients are all non-finite never advances. It ends after this many in a row per worker, from every
# worker: one that is broken alone can't end it.
_DIVERGED_AFTER = 10


class Divergence:
    """Counts gradients that are not finite, and whose they were.

    Example:
        >>> divergence = Divergence()
        >>> for arrival in range(10):
        ...     divergence.heard(worker=0, finite=False)
        >>> divergence.is_certain({0: None}.keys()), divergence.is_certain({0: None, 1: None}.keys())
        (True, False)
    """

    def __init__(self) -> None:
        self.in_a_row = 0
        self._broken: set[int] = set()  # workers whose last gradient was not finite

    def heard(self, worker: int, finite: bool) -> None:
        if finite:
            self.in_a_row = 0
            self._broken.discard(worker)
        else:
            self.in_a_row += 1
            self._broken.add(worker)

    def is_certain(self, workers: Set[int]) -> bool:
        """Whether nothing but gradients that are not finite has come for long, from each of the workers there."""
        return self.in_a_row >= _DIVERGED_AFTER * len(workers) and self._broken >= workers

    def to_dict(self) -> dict[str, Any]:
        return {"in_a_row": self.in_a_row, "broken": sorted(self._broken)}

    def restore(self, plain: dict[str, Any]) -> None:
        self.in_a_row, self._broken = plain["in_a_row"], set(plain["broken"])
