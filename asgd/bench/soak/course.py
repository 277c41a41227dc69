"""The soak itself: starts the cluster and the workers that join it, follows the script, and samples."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from asgd.bench.soak.sampling import MARK, Reading, file_sizes, read_all
from asgd.bench.soak.script import Step
from asgd.core.trace import TraceRow
from asgd.errors import Interrupted, RunError
from asgd.run.cluster import LAUNCH_LIMIT_S
from asgd.run.files import decode_line, lines_back_to
from asgd.run.processes import ending
from asgd.run.records import TRACE
from asgd.run.signals import StopRequests

SAMPLES = "soak.jsonl"
LEAVE_LIMIT_S = 60.0
_LOOK_EVERY_S = 0.2
_SAID_EVERY_S = 60.0


class Sample(NamedTuple):
    """The run at one moment: seconds since its command was started, version, workers that joined and are alive."""

    time_s: float
    version: int
    guests: int
    processes: list[Reading]
    file_bytes: dict[str, int]


@dataclass
class Guest:
    """A worker that joins from outside the cluster's own; `told`: how it was made to leave, if it was."""

    process: subprocess.Popen[bytes]
    log: Path
    told: str = "end"
    joined: bool = False

    def has_joined(self) -> bool:
        """Whether the server has let it in; before that it may not know yet how to say goodbye."""
        self.joined = self.joined or b" of run " in self.log.read_bytes()
        return self.joined

    def fault(self) -> str | None:
        """What is wrong with how it ended, if it has."""
        status = self.process.poll()
        if (
            self.told == "late"
        ):  # it came to a server that was about to end, or had ended: what it says of that may vary
            return None
        right = {"end": 0, "goodbye": Interrupted.exit_status, "kill": -signal.SIGKILL}[self.told]
        if status is None or status == right:
            return None
        return f"{self.log.stem} ({self.told}): {ending(status)} (see {self.log})"


def version_reached(trace: Path) -> int:
    """The version that a run has reached, from the last whole line of its trace, which may not be there yet."""
    lines = lines_back_to(trace, lambda line: True).splitlines()
    if not lines:
        return 0
    row = decode_line(trace, len(lines), lines[-1], TraceRow)
    return row.version + row.steps


@dataclass
class Course:
    """One soak while it goes on.

    Arguments: path: the run's directory; config: the file that cluster and workers are started with; address: where the
    server listens; mark, temporary: what the processes carry in their environment, and their directory for temporary
    files; script: who joins and leaves; every_s: between samples; limit_s: the run must have ended after so long.
    Attributes: samples; done: what of the script was done, with the version at which it was; guests: all so far.
    """

    path: Path
    config: Path
    address: str
    mark: str
    temporary: Path
    script: Iterator[Step]
    every_s: float
    limit_s: float
    say: Callable[[str], None]
    stops: StopRequests
    samples: list[Sample] = field(default_factory=list)
    done: list[Step] = field(default_factory=list)
    guests: list[Guest] = field(default_factory=list)
    train: subprocess.Popen[bytes] | None = None
    status: int | None = None
    _began_s: float = 0.0
    _said_s: float = 0.0

    def run(self) -> None:
        """From the start of the cluster to the end of all processes; RunError when it fails or hangs."""
        log = self.config.parent / "train.log"
        self._began_s = time.monotonic()
        self.train = self._start(log, "train", str(self.config), "--run-dir", str(self.path))
        try:
            self._follow()
            for guest in self.guests:
                if not guest.has_joined():
                    guest.told = "late"
                    guest.process.kill()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    guest.process.wait(LEAVE_LIMIT_S)
        finally:
            self._end_all()
        if self.status != 0:
            raise RunError(f"the training ended badly: {ending(self.status or 0)}; it said last: {_last_line(log)}")

    def _start(self, log: Path, *arguments: str) -> subprocess.Popen[bytes]:
        """A command of this program, in a group of its own: Ctrl-C is for us, who end what we started."""
        environment = os.environ | {MARK: self.mark, "TMPDIR": str(self.temporary)}
        with log.open("wb") as file:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "asgd", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=environment,
                process_group=0,
            )

    def _follow(self) -> None:
        assert self.train is not None
        next_sample_s, due = time.monotonic(), next(self.script)
        while self.status is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.status = self.train.wait(_LOOK_EVERY_S)
                return
            now_s = time.monotonic()
            version = version_reached(self.path / TRACE)
            while due.version <= version and self._do(due, version):
                due = next(self.script)
            if now_s >= next_sample_s:
                next_sample_s = max(now_s, next_sample_s + self.every_s)
                self._sample(now_s - self._began_s, version)
            if self.stops.asked:
                raise Interrupted(self.stops.take() or "interrupted")
            if now_s - self._began_s > self.limit_s + LAUNCH_LIMIT_S:
                raise RunError(f"the training has not ended after {now_s - self._began_s:.0f} s (see {self.path})")

    def _do(self, step: Step, version: int) -> bool:
        """Do a step of the script; False when it isn't possible yet, because nobody who could leave has joined yet."""
        if step.kind == "join":
            log = self.path / "logs" / f"guest-{len(self.guests)}.log"
            process = self._start(log, "worker", str(self.config), "--connect", self.address)
            self.guests.append(Guest(process, log))
        elif step.kind == "restart":
            pid = self._last_local_worker()
            if pid is None:
                return False
            os.kill(pid, signal.SIGKILL)
        else:
            staying = [guest for guest in self.guests if guest.process.poll() is None and guest.told == "end"]
            there = [guest for guest in staying if guest.has_joined()]
            if not there:
                return not staying  # with nobody who may still join there is nothing to wait for
            guest = there[int(step.chance * len(there))]
            guest.told = step.kind
            guest.process.send_signal(signal.SIGKILL if step.kind == "kill" else signal.SIGINT)
        self.done.append(step._replace(version=version))
        return True

    def _last_local_worker(self) -> int | None:
        """The process of the local cluster's last worker, from the latest sample."""
        processes = self.samples[-1].processes if self.samples else []
        local = [(int(p.role.rpartition("-")[2]), p.born, p.pid) for p in processes if p.role.startswith("worker-")]
        alive = {p.pid for p in read_all(self.mark)}
        return max(local)[2] if local and max(local)[2] in alive else None

    def _sample(self, time_s: float, version: int) -> None:
        readings = read_all(self.mark)
        guests = sum(guest.process.poll() is None and guest.has_joined() for guest in self.guests)
        sample = Sample(round(time_s, 3), version, guests, readings, file_sizes(self.path))
        self.samples.append(sample)
        if self.path.is_dir():
            with (self.path / SAMPLES).open("ab") as file:
                file.write(msgspec.json.encode(sample) + b"\n")
        if time_s - self._said_s >= _SAID_EVERY_S:
            self._said_s = time_s
            server = next((p for p in readings if p.role == "server"), None)
            told = f"{server.own_mb:.1f} MB, {server.files} files" if server else "none"
            self.say(f"{time_s:.0f} s: version {version:,}, {guests} joined workers; the server: {told}")

    def _end_all(self) -> None:
        """Nothing stays: politely, then by force."""
        processes = [guest.process for guest in self.guests] + ([self.train] if self.train is not None else [])
        for number, limit_s in ((signal.SIGINT, LEAVE_LIMIT_S), (signal.SIGKILL, LEAVE_LIMIT_S)):
            for process in processes:
                if process.poll() is None:
                    process.send_signal(number)
            for process in processes:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(limit_s)

    def faults(self) -> list[str]:
        """What is wrong with how the workers that joined have ended."""
        return [fault for guest in self.guests if (fault := guest.fault()) is not None]


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "nothing"


def read_samples(path: Path) -> list[Sample]:
    """The samples of a run's directory."""
    lines = (path / SAMPLES).read_bytes().splitlines()
    decode: Any = msgspec.json.Decoder(Sample).decode
    return [decode(line) for line in lines]
