"""Nobody who lives stays without work for ever, and the model moves on.

From a state the run is continued without faults and without an end: whoever is disconnected reconnects, the dead are
noticed, all that was sent is delivered, all that was given is computed. In each round this happens to every worker
once, in a fixed order; several orders are tried.
"""

from __future__ import annotations

from typing import Any

from model.history import require
from model.network import Protocol
from model.worlds import World, key

ROUNDS = 64  # far more than any method needs; a worker that is drawn at random may need some


class Fairness:
    """Remembers from which states all was well. `protocol`: the explored one, but with a budget that has no end;
    `orders`: in which workers have their turns.
    """

    def __init__(self, protocol: Protocol, orders: list[tuple[int, ...]]) -> None:
        self._protocol, self._orders = protocol, orders
        self._well: set[tuple[tuple[int, ...], bytes]] = set()
        self.followed = 0

    def check(self, world: World, plain: dict[str, Any]) -> None:
        """Violation if somebody who is alive in `world`, whose core is `plain`, gets no work any more, or if the
        version grows no more.
        """
        alive = {worker for worker, process in enumerate(world.processes) if process.alive}
        if plain["finished"] is not None or not alive:
            return
        world = world._replace(core=self._protocol.cores.number_of(plain), saved=None)
        for order in self._orders:
            self._follow(world, order, alive)

    def _follow(self, world: World, order: tuple[int, ...], alive: set[int]) -> None:
        start = order, key(world, self._protocol.cores, endless=True)
        if start in self._well:
            return
        self.followed += 1
        worked: set[int] = set()
        first = world.history.version
        for _ in range(ROUNDS):
            for worker in order:
                world = self._turn(world, worker, worked)
            if not self._protocol.cores[world.core].begun:
                world = self._protocol.begin(world)
            # What sooner or later is well from here on was so from the start on.
            here = order, key(world, self._protocol.cores, endless=True)
            if (worked >= alive and world.history.version > first) or here in self._well:
                self._well.add(start)
                return
        idle = sorted(alive - worked)
        require(not idle, f"workers {idle} get no work any more, with turns in the order {order}")
        require(False, f"the version stays {first}, with turns in the order {order}")

    def _turn(self, world: World, worker: int, worked: set[int]) -> World:
        """All that waits to happen to a worker."""
        protocol = self._protocol
        cores = protocol.cores
        process = world.processes[worker]
        if process.alive and not process.connected:
            world = protocol.reconnect(world, worker)
        elif not process.alive and worker in cores[world.core].members:
            world = protocol.notice(world, worker)
        if world.processes[worker].hands & cores[world.core].jobs_of.get(worker, frozenset()):
            worked.add(worker)
        while world.processes[worker].inbox:
            world = protocol.deliver(world, worker)
        while world.processes[worker].held:
            world = protocol.compute(world, worker)
        for whose, job in world.network:
            if whose == worker:
                world = protocol.arrives(world, worker, job)
        return world
