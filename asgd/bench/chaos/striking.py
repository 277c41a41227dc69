"""Does to a cluster what a script says, and measures how long it takes until training goes on.

It looks on from the supervisor (asgd.run.cluster), follows the run's journal, and strikes when a fault's version is
reached and what the fault before it did is over; nothing is slept for.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from asgd.bench.chaos.counting import Span
from asgd.bench.chaos.following import Follower
from asgd.bench.chaos.proxy import Proxy
from asgd.bench.chaos.script import UNTIL_LOST, UNTIL_NEXT, Fault
from asgd.config import Config
from asgd.core.events import Arrival, Event, Leave
from asgd.errors import RunError
from asgd.run.checkpoints import list_checkpoints
from asgd.run.cluster import Cluster
from asgd.run.journal import Opened
from asgd.run.records import CHECKPOINTS

GO_ON_LIMIT_S = 60.0  # after so long without an arrival the training counts as dead
TURN_S = 0.005


@dataclass
class Struck:
    """A fault that has struck: when (time.monotonic), at which line of the trace and version, and what came of it.

    checkpoint: the newest version that was saved; ended_s: when a fault that lasts was taken back; opened_s: when a new
    server had taken up the run; goes_on_s: when the next arrival was handled; back_s: when the next one of the worker
    that was hit was; over_rows: lines of the trace when all that was so; undone: updates that the new server goes back.
    """

    fault: Fault
    pid: int
    struck_s: float
    rows: int
    version: int
    incarnation: int
    checkpoint: int
    num_heard: int = 0
    lasts: bool = False
    lost: bool = False
    ended_s: float | None = None
    opened_s: float | None = None
    goes_on_s: float | None = None
    back_s: float | None = None
    over_rows: int | None = None
    undone: int = 0

    @property
    def is_over(self) -> bool:
        """Whether nothing of it is felt any more."""
        return not self.lasts and self.goes_on_s is not None and (self.fault.worker < 0 or self.back_s is not None)

    @property
    def span(self) -> Span:
        """Where in the trace it was felt."""
        killed = self.fault.worker if self.fault.kind == "kill" and self.fault.role == "worker" else None
        return Span(self.rows, self.over_rows, killed)

    @property
    def waits_for_server(self) -> bool:
        return self.fault.role == "server" and self.fault.kind == "kill"

    @property
    def away_s(self) -> float | None:
        """Seconds until training went on: from the strike, from its end if a server was stopped."""
        if self.goes_on_s is None:
            return None
        stopped = self.fault.role == "server" and self.fault.kind == "stop"
        return self.goes_on_s - (self.ended_s if stopped and self.ended_s is not None else self.struck_s)


class Striker:
    """Carries a script out; a watcher of `run_cluster`.

    Arguments: script: the faults; config: the run's; path: its directory; proxy: between workers and server; say: takes
    a line about each fault.
    Attributes: struck: the faults so far.
    Errors: RunError from `look` when the training doesn't go on.
    """

    turn_s = TURN_S

    def __init__(
        self,
        script: Sequence[Fault],
        config: Config,
        path: Path,
        proxy: Proxy,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.struck: list[Struck] = []
        self._script, self._proxy, self._say, self._path = list(script), proxy, say, path
        self._follower = Follower(config, path)
        self._servers: list[int] = []  # process ids, in their order
        self._reached = 0  # the version before the events at hand
        self._heard_s: float | None = None  # when the training was last seen to go on

    @property
    def num_left(self) -> int:
        """Faults that haven't struck."""
        return len(self._script) - len(self.struck)

    def address(self, role: str, worker: int, address: str) -> str:
        """Workers go through the proxy."""
        return self._proxy.address(worker, address) if role == "worker" else address

    def look(self, cluster: Cluster) -> None:
        """Take in what has happened, end what is due to end, strike what is due to strike."""
        now_s = time.monotonic()
        pids = [pid for pid, process in cluster.processes.items() if process.role == "server"]
        for pid in pids:
            if pid not in self._servers:
                self._servers.append(pid)
                self._heard_s = now_s
        for entry in self._follower.read():
            self._heard(entry.event, now_s)
        self._reached = max(self._reached, self._follower.state.version)
        self._end_faults(cluster, now_s)
        self._see_evaluator(cluster, now_s)
        if self._heard_s is not None and now_s - self._heard_s > GO_ON_LIMIT_S and not cluster.training_over:
            last = f" after: {self.struck[-1].fault.name}" if self.struck else ""
            raise RunError(f"the training did not go on within {GO_ON_LIMIT_S:g} s{last} (see {self._path / 'logs'})")
        if self.num_left and self._is_due(self._script[len(self.struck)], cluster):
            self._strike(self._script[len(self.struck)], cluster, now_s)

    def _heard(self, event: Event | Opened, now_s: float) -> None:
        for each in self.struck:
            if isinstance(event, Opened) and each.waits_for_server and event.incarnation > each.incarnation:
                if each.opened_s is None:
                    each.opened_s, each.undone = now_s, max(0, self._reached - event.version)
                    self._reached = event.version
                if each.fault.when in ("ending", "evaluating"):
                    each.goes_on_s = each.goes_on_s or now_s
            elif isinstance(event, Opened):
                each.lost = each.lost or not event.kept
            elif isinstance(event, Leave):
                each.lost = each.lost or event.worker == each.fault.worker
            elif isinstance(event, Arrival) and not (each.waits_for_server and each.opened_s is None):
                each.goes_on_s = each.goes_on_s or (None if self._holds_all(each) else now_s)
                if each.fault.worker == event.worker and not each.lasts:
                    each.back_s = each.back_s or now_s
            if each.over_rows is None and each.is_over:
                each.over_rows = self._follower.state.rows
        if isinstance(event, Arrival | Opened):
            self._heard_s = now_s

    def _holds_all(self, each: Struck) -> bool:
        return each.lasts and each.fault.role == "server"

    def _end_faults(self, cluster: Cluster, now_s: float) -> None:
        """End the faults that last and have lasted long enough."""
        for each in self.struck:
            if each.lasts and self._is_over(each, cluster):
                each.lasts, each.ended_s = False, now_s
                if each.fault.kind == "stop":
                    cluster.signal(each.pid, signal.SIGCONT)
                elif each.fault.kind == "delay":
                    self._proxy.slow(each.fault.worker, False)
                else:
                    self._proxy.cut(each.fault.worker, swallowed_only=True)
                if each.fault.role == "server":
                    self._heard_s = now_s

    def _see_evaluator(self, cluster: Cluster, now_s: float) -> None:
        """When the training has ended, what goes on after a fault of the evaluator is the evaluator."""
        for each in self.struck:
            if each.fault.role == "evaluator" and each.goes_on_s is None and cluster.training_over:
                there = each.fault.kind == "stop" or self._target(each.fault, cluster) is not None
                each.goes_on_s = now_s if there else None

    def _is_over(self, each: Struck, cluster: Cluster) -> bool:
        fault, state = each.fault, self._follower.state
        if fault.length == UNTIL_NEXT:
            return each is not self.struck[-1] or each.pid not in cluster.processes
        if fault.role == "server":
            return self._proxy.num_heard - each.num_heard >= fault.length or each.pid not in cluster.processes
        if cluster.training_over or each.pid not in cluster.processes:
            return True
        if fault.length == UNTIL_LOST:
            return each.lost or (state.rows > each.rows and fault.worker not in state.workers)
        return state.version >= each.version + fault.length or (each.lost and fault.kind == "stop")

    def _is_due(self, fault: Fault, cluster: Cluster) -> bool:
        server = self._servers[-1] if self._servers and self._servers[-1] in cluster.processes else None
        if any(each.pid == server for each in self.struck if each.waits_for_server):
            server = None  # it is dying
        if fault.when == "spawned":
            return server is not None
        if fault.when == "opened":
            struck_at = max((each.incarnation for each in self.struck if each.waits_for_server), default=-1)
            return server is not None and self._follower.incarnation > struck_at
        if any(each.goes_on_s is None and each.fault.length != UNTIL_NEXT for each in self.struck):
            return False
        if self._target(fault, cluster) is None or cluster.server_address is None:
            return False
        if fault.when == "ending":
            return cluster.training_over
        if fault.when == "evaluating":
            return cluster.status is not None and cluster.status.phase == "evaluating" and server is not None
        if cluster.training_over and fault.role != "evaluator":
            return False
        return self._follower.state.version >= fault.version and server is not None

    def _target(self, fault: Fault, cluster: Cluster) -> int | None:
        """The process to hit, if it is there and wasn't killed a moment ago."""
        killed = {each.pid for each in self.struck if each.fault.kind == "kill"}
        for pid, process in cluster.processes.items():
            if (process.role, process.worker) == (fault.role, fault.worker) and pid not in killed:
                return pid
        return None

    def _strike(self, fault: Fault, cluster: Cluster, now_s: float) -> None:
        pid = self._target(fault, cluster)
        assert pid is not None
        state = self._follower.state
        saved = list_checkpoints(self._path / CHECKPOINTS)
        struck = Struck(fault, pid, now_s, state.rows, state.version, self._follower.incarnation,
                        saved[-1][0] if saved else 0, self._proxy.num_heard)  # fmt: skip
        struck.lasts = fault.kind in ("stop", "delay", "half_open")
        self.struck.append(struck)
        match fault.kind:
            case "kill":
                cluster.signal(pid, signal.SIGKILL)
            case "stop":
                cluster.signal(pid, signal.SIGSTOP)
            case "delay":
                self._proxy.slow(fault.worker, True)
            case "cut":
                self._proxy.cut(fault.worker)
            case "half_open":
                self._proxy.swallow(fault.worker)
        who = fault.role + (f" {fault.worker}" if fault.worker >= 0 else "")
        self._say(f"{len(self.struck)} of {len(self._script)}, version {state.version}: {fault.name} ({who})")
