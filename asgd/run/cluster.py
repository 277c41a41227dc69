"""A whole cluster on this machine: starts the roles, watches them, restarts workers, and cleans up whatever happens.

This process imports no torch: it stays responsive and small. The roles are children of the launcher (see there),
which reports each death at once; the server's process decides everything about the training.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec

from asgd.config import Config
from asgd.errors import AsgdError, ConfigError, Interrupted, RunError
from asgd.run.channel import Channel
from asgd.run.display import Display
from asgd.run.files import reason_of
from asgd.run.processes import LEAVE_LIMIT_S, end, ending
from asgd.run.signals import StopRequests
from asgd.run.status import Status

# Importing torch takes seconds where the disk is cold; a launcher that needs longer than this hangs.
LAUNCH_LIMIT_S = 300.0
_STOOD_STILL_S = 1.0


@dataclass
class _Process:
    """A role's process as the supervisor knows it."""

    role: str
    worker: int


class Watcher(Protocol):
    """Who looks on while a cluster runs, and may do something to it; `turn_s`: how often it looks, at least."""

    turn_s: float

    def address(self, role: str, worker: int, address: str) -> str:
        """Where a client (a "worker", or the "evaluator" with number -1) finds the server that listens at `address`."""

    def look(self, cluster: Cluster) -> None:
        """Called in every turn; an error ends the run."""


@dataclass
class Cluster:
    """The supervisor of one local run; see `run_cluster`."""

    config: Config
    path: Path
    address: str
    launcher: subprocess.Popen[bytes]
    channel: Channel
    display: Display
    stops: StopRequests
    processes: dict[int, _Process] = field(default_factory=dict)
    restarts: dict[int, int] = field(default_factory=dict)
    server_restarts: int = 0
    server_address: str | None = None
    server_status: int | None = None
    error: AsgdError | None = None
    stop_requests: int = 0
    spawning: int = 0  # workers that were asked for and are not there yet
    num_messages: int = 0  # of servers that died
    status: Status | None = None
    training_over: bool = False
    watcher: Watcher | None = None
    nothing_left: bool = False  # the server has found the run at its end
    quarantined: set[int] = field(default_factory=set)  # workers that the server doesn't let in again
    stop_reason: str | None = None
    turned_s: float = field(default_factory=time.monotonic)  # when we last looked
    heard_s: float | None = None  # when the server was heard, or we stood still ourselves; None: it needn't be
    _launcher_lines: bytes = b""

    def supervise(self) -> None:
        """Run to the end of the server's process; raises what made the run fail."""
        ready_by_s = time.monotonic() + LAUNCH_LIMIT_S
        assert self.launcher.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.launcher.stdout, selectors.EVENT_READ)
            selector.register(self.channel, selectors.EVENT_READ)
            while self.server_status is None:
                for key, _ in selector.select(timeout=0.1 if self.watcher is None else self.watcher.turn_s):
                    if key.fileobj is self.channel:
                        self._hear_server()
                        if self.channel.closed:
                            selector.unregister(self.channel)
                    elif not self._hear_launcher():
                        raise self.error or RunError(f"the launcher died (its output is in {self.path / 'logs'})")
                if self.server_address is None and time.monotonic() > ready_by_s:
                    raise RunError(f"the server was not ready within {LAUNCH_LIMIT_S:g} s (see {self.path / 'logs'})")
                self._pass_on_stops()
                self._watch_server()
                if self.watcher is not None:
                    self.watcher.look(self)
        self._hear_server()
        if self.server_status != 0 and self.error is None:
            again = f" again after {self.server_restarts} restarts" if self.server_restarts else ""
            self.error = RunError(
                f"the server died{again}: {ending(self.server_status)} (see {self.path / 'logs' / 'server.log'}); "
                f"`asgd train --resume --run-dir {self.path}` goes on from the last checkpoint, if there is one"
            )
        if self.error is not None:
            raise self.error

    def _watch_server(self) -> None:
        """Kill a server that has stood still for so long that its clients have given it up: it is started again."""
        now_s, limit_s = time.monotonic(), self.config.cluster.server_timeout_s
        stood_still_s, self.turned_s = now_s - self.turned_s, now_s
        if self.heard_s is None:
            return
        if stood_still_s > _STOOD_STILL_S:  # we were stopped, and perhaps the server with us
            self.heard_s += stood_still_s
        if now_s - self.heard_s <= limit_s:
            return
        self.heard_s = None
        self.display.note(f"the server has said nothing for {limit_s:g} s: it is killed")
        for pid in [pid for pid, process in self.processes.items() if process.role == "server"]:
            self.signal(pid, signal.SIGKILL)

    def _pass_on_stops(self) -> None:
        reason = self.stops.take()
        if reason is None:
            return
        self.stop_requests, self.stop_reason = self.stop_requests + 1, reason
        if self.server_address is None or self.stop_requests > 2:
            raise Interrupted(reason)
        hint = (
            "stopping: checkpoint and summary are being written"
            if self.stop_requests == 1
            else "stopping without evaluation"
        )
        self.display.note(hint)
        self.channel.send({"stop": reason})

    def _command(self, command: dict[str, Any]) -> None:
        assert self.launcher.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.launcher.stdin.write(msgspec.json.encode(command) + b"\n")
            self.launcher.stdin.flush()

    def signal(self, pid: int, number: int) -> None:
        """Send a signal to a role's process; one that has ended gets none."""
        self._command({"signal": pid, "number": number})

    def _spawn(self, role: str, worker: int = -1, address: str | None = None) -> None:
        self.spawning += role == "worker"
        if address is None:
            assert self.server_address is not None
            address = self.server_address
            if self.watcher is not None:
                address = self.watcher.address(role, worker, address)
        self._command({"spawn": role, "worker": worker, "address": address})

    def _hear_server(self) -> None:
        for message in self.channel.receive():
            if "address" in message and self.server_address is None:
                self.server_address = message["address"]
                if self.config.evaluation.evaluate != "never":
                    self._spawn("evaluator")
                for worker in range(self.config.cluster.num_workers):
                    self._spawn("worker", worker)
            elif "ending" in message:
                self.training_over, self.heard_s = True, None  # it saves, and says nothing meanwhile
            elif "quarantined" in message:
                self.quarantined = set(message["quarantined"])
            elif "nothing_left" in message:
                self.nothing_left = True
            elif "status" in message:
                self.heard_s = time.monotonic()
                self.status = msgspec.convert(message["status"], Status)
                self.status = msgspec.structs.replace(
                    self.status, first_message=self.num_messages + self.status.first_message
                )
                self.display.update(self.status)

    def _hear_launcher(self) -> bool:
        """Take the launcher's events; False when it is gone."""
        assert self.launcher.stdout is not None
        got = os.read(self.launcher.stdout.fileno(), 65536)
        *lines, self._launcher_lines = (self._launcher_lines + got).split(b"\n")
        for line in lines:
            event = msgspec.json.decode(line)
            if "ready" in event:
                self._spawn("server", address=self.address)
            elif "spawned" in event:
                self.processes[event["spawned"]] = _Process(event["role"], event["worker"])
                self.spawning -= event["role"] == "worker"
            elif "exited" in event:
                self._exited(event)
            elif "failed" in event:
                self.error = _error(event)
        return bool(got)

    def _exited(self, event: dict[str, Any]) -> None:
        process = self.processes.pop(event["exited"])
        status = event["status"]
        if process.role == "server":
            self._server_exited(event)
            return
        self._hear_server()  # it says that it is ending before it dismisses the others
        if self.server_status is not None or (status == 0 and (self.training_over or process.role == "evaluator")):
            return
        reason = event["error"] or ending(status)
        # What is wrong with the configuration or the task's code is wrong again after a restart.
        hopeless = event["error"] is not None and event["exit_status"] == ConfigError.exit_status
        restarts = self.restarts.get(process.worker, 0)  # the evaluator has number -1
        again = restarts < self.config.cluster.max_restarts and not hopeless
        if process.role == "evaluator":
            self.channel.send({"evaluator_died": reason, "pid": event["exited"], "again": again})
        else:
            self.channel.send({"died": process.worker, "pid": event["exited"], "reason": reason})
            again = again and not self.training_over and process.worker not in self.quarantined
        if hopeless:
            self.error = self.error or _error(event)
            self.channel.send({"stop": reason, "failed": True})
        elif again:
            self.restarts[process.worker] = restarts + 1
            if process.role == "worker":
                self.channel.send({"restarted": process.worker})
            self._spawn(process.role, process.worker)
        elif process.role == "worker" and not self._has_workers() and not self.training_over:
            self.channel.send({"no_worker_left": f"the last worker died: {reason}"})

    def _server_exited(self, event: dict[str, Any]) -> None:
        """Start the server again if it was killed or crashed; what it found wrong itself is wrong the next time too."""
        self._hear_server()
        self.heard_s = None
        # One that crashes before it listens does so again; one that is killed then has nothing wrong.
        died = event["status"] < 0 or (event["crashed"] and self.server_address is not None)
        limit = self.config.cluster.max_server_restarts
        if not died or self.server_restarts >= limit:
            self.server_status = event["status"]
            if event["error"]:
                self.error = self.error or _error(event)
            return
        self.server_restarts += 1
        reason = event["error"] or ending(event["status"])
        self.display.note(f"the server died: {reason}; it is started again ({self.server_restarts} of {limit} times)")
        if self.status is not None:
            self.num_messages = self.status.first_message + len(self.status.messages)
        self.channel.forget_half_a_line()
        restarts = {worker: number for worker, number in self.restarts.items() if worker >= 0}
        told = {"server_died": reason, "server_restarts": self.server_restarts, "restarts": restarts}
        self.channel.send(told | {"others": self.server_address is not None})
        if self.stop_reason is not None:  # it died while it was ending
            self.channel.send({"stop": self.stop_reason})
        self._spawn("server", address=self.server_address or self.address)
        if self.training_over:  # it was saving the end, and may have to go back: it needs those that it has dismissed
            self.training_over = False
            there = {process.worker for process in self.processes.values() if process.role == "worker"}
            for worker in set(range(self.config.cluster.num_workers)) - there:
                self._spawn("worker", worker)

    def _has_workers(self) -> bool:
        """Whether a worker is there or being started."""
        return self.spawning > 0 or any(process.role == "worker" for process in self.processes.values())

    def leave(self) -> None:
        """Stop what is still there: politely, then by the launcher, which leaves nothing behind."""
        deadline = time.monotonic() + LEAVE_LIMIT_S
        assert self.launcher.stdout is not None
        if self.server_status == 0 and not self.nothing_left:
            # The server has told its workers to stop: give them the time to leave by themselves. An evaluator that is
            # still there is at an evaluation that nobody waits for.
            while self._has_workers() and time.monotonic() < deadline and _readable(self.launcher.stdout, deadline):
                if not self._hear_launcher():
                    break
        end(self.launcher, 3 * LEAVE_LIMIT_S)


def _readable(stream: Any, deadline: float) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        return bool(selector.select(max(0.0, deadline - time.monotonic())))


def _error(event: dict[str, Any]) -> AsgdError:
    sentence = event.get("failed") or event["error"]
    return ConfigError(sentence) if event["exit_status"] == ConfigError.exit_status else RunError(sentence)


@contextlib.contextmanager
def _private_directory() -> Iterator[Path]:
    """A directory that only we can enter, for the cluster's sockets."""
    directory = Path(tempfile.mkdtemp(prefix="asgd-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def run_cluster(
    config: Config,
    path: Path,
    data_root: Path,
    display: Display,
    stops: StopRequests,
    resume: bool = False,
    watcher: Watcher | None = None,
) -> None:
    """Train as configured with all roles on this machine, in the run directory `path` (made, with its config.toml in
    it).

    Arguments: config: resolved; data_root: where data sets are; display: shows the run; stops: requests to stop;
    watcher: looks on.
    Errors: RunError or ConfigError, one sentence, for whatever made the run fail; its files are then those of an
    unfinished run.
    """
    from asgd.run.security import check_binding, client_keys  # loads the sockets' library, which not everybody needs

    check_binding(config, config.cluster.address)
    client_keys(config)
    ours, servers = socket.socketpair()
    with _private_directory() as sockets, contextlib.ExitStack() as stack:
        address = f"ipc://{sockets}/server" if config.cluster.address == "ipc" else config.cluster.address
        command = [sys.executable, "-P", "-m", "asgd.run.launcher", "--path", str(path), "--data-root", str(data_root)]
        command += ["--socket-directory", str(sockets), "--server-fd", str(servers.fileno())]
        command += ["--started-s", str(time.monotonic())] + (["--resume"] if resume else [])
        try:
            (path / "logs").mkdir(exist_ok=True)
            log = stack.enter_context((path / "logs" / "launcher.log").open("ab"))
        except OSError as error:
            raise RunError(f"{path / 'logs'} cannot be written: {reason_of(error)}") from error
        launcher = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, pass_fds=[servers.fileno()]
        )
        servers.close()
        cluster = Cluster(config, path, address, launcher, Channel(ours), display, stops, watcher=watcher)
        try:
            cluster.supervise()
        finally:
            cluster.leave()
            ours.close()
