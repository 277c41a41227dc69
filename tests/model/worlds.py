"""A moment of workers, network and server, never changed; and when two of them are the same.

A worker is a process: it may be there or not, and connected or not. What the server sends lies in its `inbox` until it
is delivered; `held` are the jobs that it computes one after the other; `kept` are answers of which it doesn't know that
they were received, which it sends again when it reconnects. What workers send lies in `network`, arrives in any order,
and may arrive after its sender's death, or after the connection that it was sent over was replaced. The server's view
of who is there is the core's (`members`), so it can be wrong about the dead until it notices.
"""

from __future__ import annotations

import marshal
from typing import NamedTuple

from model.cores import Cores
from model.history import History

from asgd.core.events import Arrival

ENDED = -1  # all jobs that have ended are alike


class Process(NamedTuple):
    alive: bool = False
    connected: bool = False
    inbox: tuple[tuple[str, int], ...] = ()  # ("job" or "cancel", number), in the order sent
    held: tuple[int, ...] = ()
    kept: tuple[int, ...] = ()

    @property
    def hands(self) -> set[int]:
        """The jobs that it will answer, or has answered and would answer again."""
        return {*self.held, *self.kept, *(job for what, job in self.inbox if what == "job")}


class Faults(NamedTuple):
    """How many of each may still happen."""

    deaths: int = 0
    cuts: int = 0  # a connection breaks: what the server has sent over it is lost
    broken: int = 0  # gradients that are not finite
    checkpoints: int = 0
    restarts: int = 0

    def less(self, what: str) -> Faults:
        return self._replace(**{what: getattr(self, what) - 1})


class World(NamedTuple):
    core: int  # number in `Cores`
    history: History
    processes: tuple[Process, ...]
    network: tuple[tuple[int, int], ...]  # (worker, job) of answers, sorted
    left: Faults
    saved: tuple[int, History] | None = None  # the newest checkpoint: the core and the trace up to it
    incarnation: int = 0


def key(world: World, cores: Cores, *, endless: bool = False) -> bytes:
    """The class of a world; `endless`: without what only bounds the exploration."""
    core = cores[world.core]
    rank = core.rank
    processes = [
        (
            process.alive,
            process.connected,
            [(what, rank.get(job, ENDED)) for what, job in process.inbox],
            [rank.get(job, ENDED) for job in process.held],
            sorted(rank.get(job, ENDED) for job in process.kept),
        )
        for process in world.processes
    ]
    network = sorted((worker, rank.get(job, ENDED)) for worker, job in world.network)
    if endless:
        return marshal.dumps([core.endless_key, processes, network], 2)
    saved = world.saved and cores[world.saved[0]].key
    return marshal.dumps([core.key, processes, network, saved, tuple(world.left)], 2)


def arrival(history: History, worker: int, job: int, *, finite: bool = True) -> Arrival:
    """The answer of a worker to a job that was given once."""
    given = history.jobs.get(job) or history.undone[job]
    return Arrival(worker, job, given.version, 1.0, 1, 1.0, 0.0, finite=finite, distance=0.0)


def changed(world: World, worker: int, process: Process) -> World:
    processes = world.processes
    return world._replace(processes=processes[:worker] + (process,) + processes[worker + 1 :])
