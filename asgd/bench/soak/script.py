"""Who joins a soak and who leaves it, and at which version: drawn from a seed, before anything is known of the run."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Literal, NamedTuple

MOST_GUESTS = 3  # at a time; 2 on average

Kind = Literal["join", "goodbye", "kill", "restart"]


class Step(NamedTuple):
    """Something that happens when a version is reached.

    kind: "join": a worker is started and joins; "goodbye": one that joined is interrupted and says goodbye; "kill": one
    that joined is killed; "restart": the local cluster's last worker is killed, which the cluster starts again.
    chance: in [0, 1), says which of those that joined it is.
    """

    version: int
    kind: Kind
    chance: float


def steps(seed: int, every: int) -> Iterator[Step]:
    """The script, without an end: a step about every `every` versions (half to one and a half times as many).

    Example:
        >>> from itertools import islice
        >>> [(step.version, step.kind) for step in islice(steps(seed=0, every=1000), 3)]
        [(1344, 'join'), (2265, 'goodbye'), (3068, 'join')]
    """
    chance = random.Random(seed)
    version, guests = 0, 0
    while True:
        version += round(every * (0.5 + chance.random()))
        kind = _kind(chance, guests)
        guests += {"join": 1, "restart": 0}.get(kind, -1)
        yield Step(version, kind, chance.random())


def _kind(chance: random.Random, guests: int) -> Kind:
    if guests and chance.random() < 0.1:
        return "restart"
    if guests == 0 or (guests < MOST_GUESTS and chance.random() < 0.5):
        return "join"
    return "kill" if chance.random() < 0.4 else "goodbye"
