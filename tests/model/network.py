"""Workers, the network and the server's restarts around the real core: every step that can happen next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from model.cores import RESUME, Cores
from model.history import EMPTY, History, after, check, require
from model.worlds import Faults, Process, World, arrival, changed

from asgd.core.actions import Assign, Cancel
from asgd.core.events import Begin, Event, Join, Leave

JOBS_PER_INCARNATION = 1000  # in the checkpoint mode, so that no number is used twice

Step = tuple  # ("what", worker or mode, job), for people


@dataclass
class Protocol:
    """Every step from a world to the next. `exact`: a restarted server has lost nothing, and a worker that reconnects
    goes on with its jobs; otherwise the server goes back to its checkpoint, and who reconnects is a newcomer.
    `compares`: in the exact mode, whether the server looks which jobs the worker has (it must).
    """

    cores: Cores
    exact: bool = False
    compares: bool = True
    _checked: dict[tuple[int, int, int], tuple[History, History, tuple]] = field(default_factory=dict)

    def start(self, workers: int, faults: Faults) -> World:
        return World(self.cores.first, EMPTY, (Process(),) * workers, (), faults)

    # Moments of the core.

    def _happens(self, world: World, event: Event) -> World:
        number, actions = self.cores.after(world.core, event)
        return self._carried_out(world._replace(core=number), event, actions, world.history)

    def _carried_out(self, world: World, event: Event, actions: tuple, history: History) -> World:
        history = self._entered(world.core, history, event, actions)
        processes = list(world.processes)
        for action in actions:
            match action:
                case Assign(worker, job, _):
                    sent = ("job", job)
                case Cancel(worker, job):
                    sent = ("cancel", job)
                case _:
                    continue
            process = processes[worker]
            if process.connected:  # otherwise it is lost on the way
                processes[worker] = process._replace(inbox=process.inbox + (sent,))
        return world._replace(history=history, processes=tuple(processes))

    def _entered(self, number: int, history: History, event: Event, actions: tuple) -> History:
        """The history after an event that led to the core's state `number`, checked; what was checked is remembered."""
        same = id(history), id(actions), number
        known = self._checked.get(same)
        if known is None:
            entered = after(history, event, actions)
            core = self.cores[number]
            check(entered, core.plain, core.finished)
            # With what has those ids, so that nothing else gets them.
            known = self._checked[same] = entered, history, actions
        return known[0]

    # What can happen to a world. No world is changed: each step makes a new one, when it is called.

    def steps(self, world: World) -> Iterator[tuple[Step, Callable[[], World]]]:
        """Everything that may happen next, faults included."""
        yield from self.fair_steps(world)
        core, left = self.cores[world.core], world.left
        for worker, process in enumerate(world.processes):
            if process.alive and left.deaths:
                yield ("die", worker), partial(self._die, world, worker)
            if process.connected and left.cuts:
                yield ("cut", worker), partial(self._cut, world, worker)
        if left.broken and not core.finished:
            for worker, job in dict.fromkeys(world.network):
                if job in core.rank:
                    yield ("not finite", worker, job), partial(self._broken, world, worker, job)
        if left.checkpoints and left.restarts and core.begun and not core.finished:
            yield ("checkpoint",), partial(self._checkpoint, world)
        if left.restarts and (self.exact or world.saved) and not core.finished:
            yield ("crash", "all sent is lost"), partial(self._crash, world, False)
            if any(process.inbox for process in world.processes):
                yield ("crash", "all sent arrives"), partial(self._crash, world, True)

    def fair_steps(self, world: World) -> Iterator[tuple[Step, Callable[[], World]]]:
        """What happens sooner or later by itself, if no fault prevents it."""
        core = self.cores[world.core]
        if not core.begun and core.members:
            yield ("begin",), partial(self.begin, world)
        for worker, process in enumerate(world.processes):
            if process.inbox:
                yield ("deliver", worker), partial(self.deliver, world, worker)
            if process.held:
                yield ("compute", worker), partial(self.compute, world, worker)
            if process.alive and not process.connected and not core.finished:
                yield ("reconnect", worker), partial(self.reconnect, world, worker)
            if worker in core.members and not process.connected:
                yield ("notice", worker), partial(self.notice, world, worker)
            if not process.alive and worker not in core.members and not core.finished:
                yield ("join", worker), partial(self._join, world, worker)
        for worker, job in dict.fromkeys(world.network):
            yield ("arrive", worker, job), partial(self.arrives, world, worker, job)

    def _die(self, world: World, worker: int) -> World:
        return changed(world, worker, Process())._replace(left=world.left.less("deaths"))

    def _cut(self, world: World, worker: int) -> World:
        cut = world.processes[worker]._replace(connected=False, inbox=())
        return changed(world, worker, cut)._replace(left=world.left.less("cuts"))

    def _broken(self, world: World, worker: int, job: int) -> World:
        return self.arrives(world._replace(left=world.left.less("broken")), worker, job, finite=False)

    def _checkpoint(self, world: World) -> World:
        return world._replace(saved=(world.core, world.history), left=world.left.less("checkpoints"))

    def _join(self, world: World, worker: int) -> World:
        process = Process(alive=True, connected=True)
        return self._happens(changed(world, worker, process), Join(worker, 0.0))

    def begin(self, world: World) -> World:
        return self._happens(world, Begin(0.0))

    def notice(self, world: World, worker: int) -> World:
        """The server finds out that a worker is dead, or has been silent for too long."""
        return self._happens(world, Leave(worker, "silent", 0.0))

    def deliver(self, world: World, worker: int) -> World:
        process = world.processes[worker]
        (what, job), inbox = process.inbox[0], process.inbox[1:]
        held = process.held + (job,) if what == "job" else tuple(h for h in process.held if h != job)
        return changed(world, worker, process._replace(inbox=inbox, held=held))

    def compute(self, world: World, worker: int) -> World:
        """The oldest job is computed, and its answer sent, if there is a connection."""
        process = world.processes[worker]
        job = process.held[0]
        computed = process._replace(held=process.held[1:], kept=process.kept + (job,))
        network = world.network + ((worker, job),) if process.connected else world.network
        return changed(world, worker, computed)._replace(network=tuple(sorted(network)))

    def arrives(self, world: World, worker: int, job: int, *, finite: bool = True) -> World:
        network = list(world.network)
        network.remove((worker, job))
        process = world.processes[worker]
        if process.connected:  # it will hear that its answer was received
            kept = tuple(k for k in process.kept if k != job)
            world = changed(world, worker, process._replace(kept=kept))
        world = world._replace(network=tuple(network))
        event = arrival(world.history, worker, job, finite=finite)
        if job in self.cores[world.core].rank:
            return self._happens(world, event)
        require(self.cores.refuses(world.core, event), f"an answer to job {job}, which has ended, has an effect")
        return world

    def reconnect(self, world: World, worker: int) -> World:
        process = world.processes[worker]
        core = self.cores[world.core]
        jobs = core.jobs_of.get(worker, frozenset())
        goes_on = self.exact and worker in core.members and (jobs <= process.hands or not self.compares)
        if worker in core.members and not goes_on:
            world = self._happens(world, Leave(worker, "reconnected", 0.0))
        again = tuple(sorted(world.network + tuple((worker, job) for job in process.kept)))
        world = changed(world, worker, process._replace(connected=True))._replace(network=again)
        return world if goes_on else self._happens(world, Join(worker, 0.0))

    def _crash(self, world: World, inbox_kept: bool) -> World:
        """The server dies and starts again: what was on its way to it is lost, what it had sent may be."""
        processes = tuple(p._replace(connected=False, inbox=p.inbox if inbox_kept else ()) for p in world.processes)
        incarnation = world.incarnation + 1
        world = world._replace(
            processes=processes, network=(), left=world.left.less("restarts"), incarnation=incarnation
        )
        if self.exact:
            return world
        assert world.saved is not None
        number, actions = self.cores.restarted(world.saved[0], incarnation * JOBS_PER_INCARNATION)
        history = world.history.went_back_to(world.saved[1])
        if not world.left.restarts:
            world = world._replace(saved=None)  # never asked for again
        return self._carried_out(world._replace(core=number), RESUME, actions, history)
