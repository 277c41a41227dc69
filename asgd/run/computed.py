"""What a job gave, as far as the core wants to know it."""

from __future__ import annotations

from typing import NamedTuple


class Result(NamedTuple):
    """What a job gave: loss, samples, whether all of its numbers are finite, how far the model has moved since it was
    given (for methods that need it), and the gradient's norm (for the norm guard).
    """

    loss: float
    samples: int
    finite: bool
    distance: float | None = None
    norm: float | None = None
