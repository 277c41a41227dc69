"""What is explored of each method, by size."""

from __future__ import annotations

from collections.abc import Iterator

from model.setting import Setting
from model.worlds import Faults

# Every method, with options under which a few gradients go through all that it does.
CASES: list[tuple[str, dict[str, object]]] = [
    ("asynchronous", {}),
    ("minibatch", {}),
    ("random_assignment", {}),
    ("random_assignment", {"order": "shuffled"}),
    ("ringmaster", {"R": 1}),
    ("ringmaster", {"R": 1, "cancel": True}),
    ("clipped", {}),
    ("picky", {}),
    ("gap_aware", {}),
    ("dc_asgd", {}),
    ("throttle", {}),
    ("throttle", {"q": float("inf")}),
    ("m_synchronous", {}),
    ("m_synchronous", {"m": 1}),
    ("m_synchronous", {"m": 1, "cancel": False}),
    ("bounded_staleness", {"s": 0}),
    ("bounded_staleness", {"s": 1}),
    ("rennala", {"batch": 2}),
    ("malenia", {}),
    ("malenia", {"batch": 3}),
    ("fedbuff", {"buffer": 2}),
    ("fedasync", {}),
    ("rescaled", {}),
    ("ringleader", {}),
]

# What is added to the method in a setting of each size.
PLANS: dict[str, list[dict]] = {
    "fast": [{"gradients": 2, "faults": Faults(deaths=1)}],
    "slow": [
        {"gradients": 2, "faults": Faults(deaths=1, cuts=1)},
        {"gradients": 3, "faults": Faults(deaths=1, broken=1)},
        {"gradients": 2, "faults": Faults(deaths=1, checkpoints=1, restarts=1)},
        {"gradients": 2, "faults": Faults(deaths=1, restarts=1), "exact": True},
    ],
    "large": [
        {"gradients": 3, "faults": Faults(deaths=2, cuts=1)},
        {"gradients": 3, "faults": Faults(deaths=1, checkpoints=1, restarts=1)},
        {"gradients": 2, "faults": Faults(cuts=1, checkpoints=1, restarts=1)},
        {"gradients": 2, "faults": Faults(checkpoints=2, restarts=2)},
        {"gradients": 3, "faults": Faults(deaths=1, restarts=1), "exact": True},
        {"gradients": 2, "faults": Faults(deaths=1, cuts=1, restarts=1), "exact": True},
        {"gradients": 2, "faults": Faults(restarts=2), "exact": True},
        {"workers": 3, "gradients": 2, "faults": Faults(deaths=1)},
    ],
}


def settings(size: str, method: str, options: dict[str, object]) -> Iterator[Setting]:
    """What is explored of a method."""
    for added in PLANS[size]:
        yield Setting(method, options, **added)
