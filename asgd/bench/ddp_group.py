"""The ranks of one run on DistributedDataParallel: loads torch and the task once, then forks a process for each.

Started by `ddp.py` as `python -m asgd.bench.ddp_group`: a `Work` on the first line of standard input, a `DdpRun` or a
`Failed` as the one line of standard output.

Rank 0 has the clock and says when the training is over; the others are then killed wherever they are, as they hold
nothing that is wanted: nobody has to agree on the end, and no message is needed for it.

Nothing outlives this process: when its input ends (whoever waits is gone, or wants to stop) it kills the ranks, each by
its own id, and when it is killed itself the kernel kills them. It has one thread and touches no device, so that
forking is safe.
"""

from __future__ import annotations

import contextlib
import gc
import os
import selectors
import shutil
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import torch._dynamo  # noqa: F401 DDP imports it when it wraps a model, which takes seconds: once, before the forks

from asgd.bench.ddp import DdpRun, Work
from asgd.bench.ddp_rank import run_rank
from asgd.errors import AsgdError, ConfigError, RunError
from asgd.learn.flat import resolve_device
from asgd.run.processes import die_with, ending
from asgd.run.roles import Prepared, prepare
from asgd.sim.parallel import Failed


class Trained(msgspec.Struct, frozen=True, tag="trained"):
    """Rank 0 has made the last update: the others aren't needed any more."""


class Broken(msgspec.Struct, frozen=True, tag="broken"):
    """A rank could not go on without another; if that has died, its death is what should be told."""

    sentence: str


Said = Trained | DdpRun | Failed | Broken


@dataclass
class _Rank:
    """A process of the group, and the part of its next line that it has written."""

    rank: int
    pid: int
    written: bytes = b""


@dataclass
class Group:
    """All ranks of one run; `out` is the descriptor that the result is written to."""

    prepared: Prepared
    work: Work
    out: int
    ranks: dict[int, _Rank] = field(default_factory=dict)  # by the reading end of each one's pipe
    trained: bool = False

    def run(self) -> DdpRun | Failed | None:
        """Start them and hear what they say until there is a result; None when standard input has ended before."""
        with selectors.DefaultSelector() as selector:
            selector.register(0, selectors.EVENT_READ)
            for rank in range(self.prepared.config.cluster.num_workers):
                selector.register(self._start(rank), selectors.EVENT_READ)
            while True:
                ready = [key.fd for key, _ in selector.select()]
                if 0 in ready:
                    return None  # nothing comes after the first line but the end
                said = [(self.ranks[reading].rank, event) for reading in ready for event in self._hear(reading)]
                if (0, Trained()) in said:
                    for reading in [reading for reading, rank in self.ranks.items() if rank.rank != 0]:
                        selector.unregister(reading)
                        self._end(reading)
                    said = [(rank, event) for rank, event in said if rank == 0]
                result = _result([event for _, event in said])
                if result is not None:
                    return result

    def _start(self, rank: int) -> int:
        """Fork a rank; returns the reading end of its pipe."""
        reading, writing = os.pipe()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                die_with(parent, signal.SIGKILL)
                for descriptor in (reading, self.out, *self.ranks):
                    os.close(descriptor)  # or nobody would notice the parent's end while a child lives
                self._work(rank, writing)
            finally:
                os._exit(0)  # never back into the parent's code, and no clean-up of what is the parent's
        os.close(writing)
        self.ranks[reading] = _Rank(rank, pid)
        return reading

    def _work(self, rank: int, writing: int) -> None:
        """What a fresh fork does; its result, or why there is none, goes into the pipe."""
        try:
            ran = run_rank(self.prepared, self.work, rank, trained=lambda: _write(writing, Trained()))
        except BaseException as error:
            _write(writing, _told(error, rank))
        else:
            _write(writing, ran)

    def _hear(self, reading: int) -> list[Said]:
        """What a rank has said; one that ended before it had said anything has failed."""
        rank = self.ranks[reading]
        got = os.read(reading, 65536)
        if not got:
            _, status = os.waitpid(rank.pid, 0)
            rank.pid = 0
            return [Failed(f"rank {rank.rank} of DDP died: {ending(os.waitstatus_to_exitcode(status))}", 1)]
        *lines, rank.written = (rank.written + got).split(b"\n")
        return [msgspec.json.decode(line, type=Said) for line in lines]

    def _end(self, reading: int) -> None:
        """Kill a rank that isn't needed any more."""
        rank = self.ranks.pop(reading)
        os.close(reading)
        if rank.pid:
            os.kill(rank.pid, signal.SIGKILL)
            os.waitpid(rank.pid, 0)

    def end_all(self) -> None:
        for reading in list(self.ranks):
            self._end(reading)


def _told(error: BaseException, rank: int) -> Failed | Broken:
    """What a rank says of its error. Those of gloo, for which torch has no type, tell that another rank is gone or
    stands still; they come through the task's model, and may be told as an error of it.
    """
    for cause in (error, error.__cause__):
        if "/gloo/" in str(cause):
            what = str(cause).partition("/gloo/")[2].partition("] ")[2].partition("\n")[0]
            return Broken(f"rank {rank} of DDP lost the others, of which one is gone or stands still: {what[:200]}")
    if isinstance(error, AsgdError):
        return Failed.by(error)
    sentence = f"rank {rank} of DDP failed: {type(error).__name__}: {' '.join(str(error).split())[:400]}"
    return Failed(sentence, RunError.exit_status)


def _result(said: list[Said]) -> DdpRun | Failed | None:
    """The result among what was heard at once. Who dies closes its pipe before its sockets, and who fails says so
    before: so the first cause is heard no later than the ranks that broke by it, and goes before them.
    """
    for event in sorted(said, key=lambda event: isinstance(event, Broken)):
        if isinstance(event, Broken):
            return Failed(event.sentence, RunError.exit_status)
        if not isinstance(event, Trained):
            return event
    return None


def _write(descriptor: int, event: Said) -> None:
    """Write an event as a line; whoever should hear it may be gone."""
    with contextlib.suppress(BrokenPipeError):
        os.write(descriptor, msgspec.json.encode(event) + b"\n")


def main() -> int:
    out = os.dup(1)
    os.dup2(2, 1)  # what a task prints must not look like an event
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        return 0  # whoever wanted it is gone already
    work = msgspec.json.decode(line, type=Work)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"  # gloo would look for the machine's own name, which may lead anywhere
    result: DdpRun | Failed | None
    try:
        device = resolve_device(work.config.cluster.device)
        if device.type != "cpu":
            name = work.config.cluster.device
            raise ConfigError(f'cluster.device = "{name}" is {device}: the baseline on DDP computes on the CPU only')
        prepared = prepare(work.config, Path(work.data_root))
        gc.freeze()  # what is there already stays on pages that the ranks share
        group = Group(prepared, work, out)
        try:
            result = group.run()
        finally:
            group.end_all()
            shutil.rmtree(work.directory, ignore_errors=True)  # whoever made it may be gone
    except AsgdError as error:
        result = Failed.by(error)
    if result is not None:
        _write(out, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
