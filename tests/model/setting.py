"""What is explored: a method with its options, the workers, the budget and the faults."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import permutations

from helpers.core_driver import make_state
from model.cores import Cores
from model.explore import Explored, explore
from model.fairness import Fairness
from model.network import Protocol
from model.worlds import Faults

from asgd.core.budget import Budget
from asgd.core.state import ServerState


@dataclass(frozen=True)
class Setting:
    """One exploration: the run ends after `gradients` arrivals; `exact`: how a server is restarted."""

    method: str
    options: Mapping[str, object] = field(default_factory=dict)
    workers: int = 2
    gradients: int = 3
    faults: Faults = Faults()
    exact: bool = False
    rule: str = "scale"
    jobs_per_worker: int = 1
    compares: bool = True

    def run(self, change: Callable[[ServerState], ServerState] = lambda state: state) -> Explored:
        """Visit every state; `change` makes a core faulty, to see that it is found out."""

        def cores(gradients: int) -> Cores:
            return Cores(lambda: change(self._make(gradients)))

        protocol = Protocol(cores(self.gradients), self.exact, self.compares)
        orders = list(permutations(range(self.workers)))
        fairness = Fairness(Protocol(cores(10**9), self.exact, self.compares), [orders[0], orders[-1]])
        return explore(protocol, self.workers, self.faults, fairness)

    def _make(self, gradients: int) -> ServerState:
        return make_state(
            self.method,
            self.rule,
            workers=self.workers,
            budget=Budget(gradients=gradients),
            method_options=dict(self.options),
            jobs_per_worker=self.jobs_per_worker,
        )


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
