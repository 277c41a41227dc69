"""The fork server of a local cluster: imports torch and loads the task once, then brings each role up by a fork.

Started by `cluster.py` as `python -m asgd.run.launcher`, one JSON object a line: commands on standard input, events
on standard output.

    commands   {"spawn": "server"|"evaluator"|"worker", "worker": i, "address": ...}   {"signal": pid, "number": n}
               a server that is spawned again goes on from what the one before it has saved
    events     {"ready": seconds}   {"spawned": pid, "role": ..., "worker": i}
               {"exited": pid, "status": exit status or -signal, "error": sentence or null, "exit_status": n,
                "crashed": whether the error was one that nobody foresaw}
               {"failed": sentence, "exit_status": n} when the task can't be loaded

Nothing outlives it: when its input ends (the supervisor is gone) it stops its children, each by its own id; when it
is killed itself the kernel stops them. It has one thread and touches no device, so that forking is safe.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import select
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from asgd.config import load_config
from asgd.errors import AsgdError, RunError
from asgd.run.channel import Channel
from asgd.run.checkpoints import list_checkpoints
from asgd.run.files import reason_of
from asgd.run.processes import die_with, take_output, tell
from asgd.run.roles import Prepared, evaluator_role, prepare, server_role, worker_role
from asgd.run.signals import StopRequests, stopping_by_signals

GRACE_S = 10.0


@dataclass
class Launcher:
    """The children of one cluster; `errors` holds the reading end of each one's pipe for its last sentence."""

    prepared: Prepared
    path: Path
    server_end: socket.socket
    resume: bool
    started_s: float
    events: int  # the descriptor that events are written to
    has_served: bool = False  # whether a server was there before
    errors: dict[int, int] = field(default_factory=dict)

    def spawn(self, role: str, worker: int, address: str) -> int:
        """Fork a role; returns its process id."""
        if role == "server" and self.has_served:
            # Without a checkpoint it was killed before the first job: it begins as it did.
            self.resume = self.resume or bool(list_checkpoints(self.path / "checkpoints"))
            self.started_s = time.monotonic()
        self.has_served = self.has_served or role == "server"
        reading, writing = os.pipe()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            status = 70
            try:
                for descriptor in (reading, self.events, *self.errors.values()):
                    os.close(descriptor)  # or nobody would notice the parent's end while a child lives
                status = self._child(role, worker, address, parent, writing)
            finally:
                os._exit(status)  # never back into the parent's code, and no clean-up of what is the parent's
        os.close(writing)
        self.errors[pid] = reading
        return pid

    def _child(self, role: str, worker: int, address: str, parent: int, writing: int) -> int:
        """Run a role in a fresh fork; returns its exit status after having written its last sentence to the pipe."""
        # Where the kernel can't do that, the server's silence ends a role.
        die_with(parent, signal.SIGTERM if role == "server" else signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        name = role if worker < 0 else f"{role}-{worker}"
        try:
            _redirect(self.path / "logs" / f"{name}.log")
            self._role(role, worker, address)
        except AsgdError as error:
            traceback.print_exc()
            os.write(writing, msgspec.json.encode({"error": str(error), "exit_status": error.exit_status})[:4000])
            return error.exit_status
        except BaseException as error:
            traceback.print_exc()
            sentence = f"{name} failed: {type(error).__name__}: {error} (traceback in {self.path / 'logs' / name}.log)"
            os.write(writing, msgspec.json.encode({"error": sentence[:3000], "exit_status": 1, "crashed": True}))
            return 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
        return 0

    def _role(self, role: str, worker: int, address: str) -> None:
        if role == "server":
            # Interrupts of the terminal go to the supervisor, which tells the server; SIGTERM stops it in good order.
            with stopping_by_signals() as stops:
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                self._serve(address, stops)
            return
        self.server_end.close()
        if role == "worker":
            worker_role(self.prepared, address, worker, StopRequests(), _say)
        else:
            evaluator_role(self.prepared, address, StopRequests(), _say)

    def _serve(self, address: str, stops: StopRequests) -> None:
        channel = Channel(self.server_end)
        try:
            server_role(self.prepared, self.path, address, self.resume, channel, stops, _say, self.started_s)
        finally:
            channel.finish(2.0)

    def reap(self) -> list[dict[str, Any]]:
        """The events of children that have ended."""
        events = []
        while self.errors:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            reading = self.errors.pop(pid)
            os.set_blocking(reading, False)  # a grandchild may still hold the other end
            last = b""
            with contextlib.suppress(BlockingIOError):
                last = os.read(reading, 4096)
            os.close(reading)
            told = {"error": None, "exit_status": 1, "crashed": False}
            with contextlib.suppress(msgspec.DecodeError):
                told |= msgspec.json.decode(last) if last else {}
            events.append({"exited": pid, "status": os.waitstatus_to_exitcode(status), **told})
        return events

    def stop_all(self) -> None:
        """Ask every child to stop, kill those that don't in time."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in self.errors:
                os.kill(pid, number)
            deadline = time.monotonic() + GRACE_S
            while self.errors and time.monotonic() < deadline:
                select.select([], [], [], 0.02) if not self.reap() else None


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def _redirect(log: Path) -> None:
    """Standard output and error go to the role's log, standard input is empty."""
    try:
        log.parent.mkdir(exist_ok=True)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        raise RunError(f"{log} cannot be written: {reason_of(error)}") from error
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    os.close(nothing)


def _loop(launcher: Launcher, emit: Callable[[dict[str, Any]], None]) -> None:
    """Follow commands until the supervisor is gone."""
    wake_reading, wake_writing = os.pipe()
    os.set_blocking(wake_reading, False)
    os.set_blocking(wake_writing, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(wake_writing, warn_on_full_buffer=False)
    waiting = b""
    while True:
        readable, _, _ = select.select([0, wake_reading], [], [])
        if wake_reading in readable:
            with contextlib.suppress(BlockingIOError):
                os.read(wake_reading, 4096)
            for event in launcher.reap():
                emit(event)
        if 0 not in readable:
            continue
        got = os.read(0, 65536)
        if not got:
            return
        *lines, waiting = (waiting + got).split(b"\n")
        for line in lines:
            command = msgspec.json.decode(line)
            if "spawn" in command:
                pid = launcher.spawn(command["spawn"], command["worker"], command["address"])
                emit({"spawned": pid, "role": command["spawn"], "worker": command["worker"]})
            elif command["signal"] in launcher.errors:
                os.kill(command["signal"], command["number"])


def main() -> int:
    parser = argparse.ArgumentParser(description="fork server of a local cluster; started by asgd itself")
    parser.add_argument("--path", type=Path, required=True)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--socket-directory", type=Path, required=True)
    parser.add_argument("--server-fd", type=int, required=True)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--started-s", type=float, required=True)
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the supervisor ends us by closing our input
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # and hears itself that the terminal was closed; so for our children
    out = take_output()

    def emit(event: dict[str, Any]) -> None:
        tell(out, event)

    try:
        config = load_config(arguments.path / "config.toml")
        prepared = prepare(config, arguments.data_root)
    except AsgdError as error:
        emit({"failed": str(error), "exit_status": error.exit_status})
        return error.exit_status
    end = socket.socket(fileno=arguments.server_fd)
    launcher = Launcher(prepared, arguments.path, end, arguments.resume, arguments.started_s, out)
    gc.freeze()  # what is there already stays on pages that the children share
    emit({"ready": time.monotonic() - arguments.started_s})
    try:
        _loop(launcher, emit)
    finally:
        launcher.stop_all()
        shutil.rmtree(arguments.socket_directory, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
