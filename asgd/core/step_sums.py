"""How far the model has stepped since each outstanding job was given: sums of step sizes, exact, O(1) per operation."""

from __future__ import annotations

from typing import Any

# Every finite float is a whole number of these, so sums of floats are sums of integers: nothing is lost when a long
# run's total is subtracted from a later one.
_PER_UNIT = 1 << 1074


class StepSums:
    """For each outstanding job the sum of the step sizes of the updates since it was given.

    Formula: sum_{t = read version}^{version - 1} eta_t = total now - total when the job was given. The totals are
    integers in units of 2^-1074; the difference is rounded once, to the nearest float.

    Example:
        >>> sums = StepSums()
        >>> sums.given(7)
        >>> sums.stepped(0.1)
        >>> sums.stepped(1e-20)
        >>> sums.ended(7)
        0.1
    """

    def __init__(self) -> None:
        self._total = 0
        self._at: dict[int, int] = {}  # job -> the total when it was given

    def given(self, job: int) -> None:
        self._at[job] = self._total

    def stepped(self, step_size: float) -> None:
        """An update of this step size, finite and >= 0."""
        numerator, denominator = step_size.as_integer_ratio()  # a power of 2, at most 2^1074
        self._total += numerator * (_PER_UNIT // denominator)

    def ended(self, job: int) -> float:
        """Forget a job; returns its sum."""
        return (self._total - self._at.pop(job)) / _PER_UNIT

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint; the integers, which have hundreds of digits, in hexadecimal."""
        return {"total": hex(self._total), "at": [[job, hex(total)] for job, total in self._at.items()]}

    def restore(self, plain: dict[str, Any]) -> None:
        self._total = int(plain["total"], 16)
        self._at = {job: int(total, 16) for job, total in plain["at"]}
