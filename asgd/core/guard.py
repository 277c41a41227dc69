"""Gradients that are out of the ordinary, and workers that keep sending such: decided from events alone.

`NormGuard` refuses a gradient whose norm is far above the others'. `Offenders` finds the worker whose gradients are
refused one after the other (not finite, or by the guard) at models at which other workers' are not.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from math import isfinite
from typing import Any, Final

WINDOW: Final = 101  # norms that the median is of
LEAST: Final = 21  # fewer are no ground to refuse anything


class NormGuard:
    """Refuses a gradient whose norm is over `factor` times the median of the last norms.

    Formula: refuse g iff factor > 0, at least LEAST norms are known, and |g| > factor * median(the last WINDOW norms).
    Every finite norm enters the window, a refused one too: where gradients really grow, the median follows within
    WINDOW / 2 arrivals, and a worker whose share of the arrivals is below one half can't move it.

    Args: factor: k >= 0; 0 refuses nothing and remembers nothing.

    Example:
        >>> guard = NormGuard(10.0)
        >>> [guard.refuses(norm) for norm in [1.0] * 21 + [9.0, 11.0]][-2:]
        [None, 'norm 11 is over 10 x the median 1']
    """

    def __init__(self, factor: float = 0.0) -> None:
        self.factor = factor
        self._last: deque[float] = deque()
        self._sorted: list[float] = []

    def refuses(self, norm: float | None) -> str | None:
        """Why a gradient of this norm is refused, None if it isn't; the norm is remembered for those to come."""
        if not self.factor or norm is None or not isfinite(norm):
            return None
        reason = None
        if len(self._last) >= LEAST:
            median = self._sorted[len(self._sorted) // 2]
            if norm > self.factor * median:
                reason = f"norm {norm:.3g} is over {self.factor:g} x the median {median:.3g}"
        if len(self._last) == WINDOW:
            del self._sorted[bisect_left(self._sorted, self._last.popleft())]
        self._last.append(norm)
        insort(self._sorted, norm)
        return reason

    def to_dict(self) -> dict[str, Any]:
        return {"last": list(self._last)}

    def restore(self, plain: dict[str, Any]) -> None:
        self._last = deque(plain["last"])
        self._sorted = sorted(self._last)


class Offenders:
    """Counts the gradients of each worker that were refused in a row, and says when it is the worker.

    A worker is an offender when its last `limit` gradients were refused, and another worker's gradient, of the same or
    a later version than the first of them, was not: then it isn't the model that has diverged.

    Args: limit: >= 0; 0 finds nobody.

    Example:
        >>> offenders = Offenders(2)
        >>> offenders.refused(0, 5), offenders.refused(0, 6)
        (False, False)
        >>> offenders.sound(1, 5)
        >>> offenders.refused(0, 6)
        True
    """

    def __init__(self, limit: int = 0) -> None:
        self.limit = limit
        self._row: dict[int, tuple[int, int]] = {}  # worker -> gradients refused in a row, version of the first
        self._newest: dict[int, int] = {}  # worker -> the newest version of its sound gradients

    def sound(self, worker: int, read_version: int) -> None:
        """A gradient of `worker` was not refused."""
        if self.limit:
            self._row.pop(worker, None)
            self._newest[worker] = max(read_version, self._newest.get(worker, 0))

    def refused(self, worker: int, read_version: int) -> bool:
        """A gradient of `worker` was refused; whether the worker is an offender. O(workers) once its row is long."""
        if not self.limit:
            return False
        count, first = self._row.get(worker, (0, read_version))
        self._row[worker] = count + 1, first
        return count + 1 >= self.limit and any(
            version >= first for other, version in self._newest.items() if other != worker
        )

    def forget(self, worker: int) -> None:
        """A worker has left: whoever comes under its number has a clean sheet."""
        self._row.pop(worker, None)

    def to_dict(self) -> dict[str, Any]:
        return {
            "row": [[worker, *row] for worker, row in self._row.items()],
            "newest": [list(item) for item in self._newest.items()],
        }

    def restore(self, plain: dict[str, Any]) -> None:
        self._row = {worker: (count, first) for worker, count, first in plain["row"]}
        self._newest = {worker: version for worker, version in plain["newest"]}
