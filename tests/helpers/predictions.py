"""What the advice predicts of given speeds, simulated once: most of an advice's time goes there."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from asgd.sim.contenders import Option, predicted


@cache
def _predicted(times_N: tuple[tuple[float, ...], ...]) -> tuple[Option, ...]:
    return tuple(predicted(times_N))


def predicted_once(times_N: Sequence[Sequence[float]]) -> list[Option]:
    """`predicted`, which depends on its argument alone; what was asked before is remembered."""
    return list(_predicted(tuple(tuple(times) for times in times_N)))
