"""What is explored: a method with its options, the workers, the budget and the faults."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from helpers.core_driver import make_state
from model.cores import Cores
from model.explore import Explored, explore
from model.fairness import Fairness
from model.network import Protocol
from model.worlds import Faults

from asgd.core.budget import Budget
from asgd.core.state import ServerState

NO_FAULTS = Faults()


@dataclass(frozen=True)
class Setting:
    """One exploration: the run ends after `gradients` arrivals; `exact`: how a server is restarted."""

    method: str
    options: Mapping[str, object] = field(default_factory=dict)
    workers: int = 2
    gradients: int = 3
    faults: Faults = NO_FAULTS
    exact: bool = False
    rule: str = "scale"
    jobs_per_worker: int = 1
    compares: bool = True

    def run(self, change: Callable[[ServerState], ServerState] = lambda state: state) -> Explored:
        """Visit every state; `change` makes a core faulty, to see that it is found out."""
        cores = Cores(lambda: change(self.make_core()))
        return explore(self.protocol(cores), self.workers, self.faults, self.fairness(change))

    def protocol(self, cores: Cores) -> Protocol:
        return Protocol(cores, self.exact, self.compares)

    def fairness(self, change: Callable[[ServerState], ServerState] = lambda state: state) -> Fairness:
        """Continuations of this setting without an end, the workers having their turns upwards or downwards."""
        endless = replace(self, gradients=10**9)
        upwards = tuple(range(self.workers))
        return Fairness(self.protocol(Cores(lambda: change(endless.make_core()))), [upwards, upwards[::-1]])

    def make_core(self) -> ServerState:
        return make_state(
            self.method,
            self.rule,
            workers=self.workers,
            budget=Budget(gradients=self.gradients),
            method_options=dict(self.options),
            jobs_per_worker=self.jobs_per_worker,
        )
