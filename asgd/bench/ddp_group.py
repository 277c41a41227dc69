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

import gc
import os
import selectors
import shutil
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from asgd.bench.ddp import DdpRun, Work
from asgd.bench.ddp_rank import run_rank
from asgd.errors import AsgdError, ConfigError, RunError
from asgd.learn.flat import resolve_device
from asgd.run.processes import die_with, ending, take_output, take_work, tell
from asgd.run.roles import Prepared, prepare
from asgd.sim.parallel import Failed

CAUSE_LIMIT_S = 2.0  # how long the death by which a rank broke is waited for


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
    is_done: bool = False  # it has said its last word


@dataclass
class Group:
    """All ranks of one run; `out` is the descriptor that the result is written to."""

    prepared: Prepared
    work: Work
    out: int
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    ranks: dict[int, _Rank] = field(default_factory=dict)  # by the reading end of each one's pipe

    def run(self) -> DdpRun | Failed | None:
        """Start them and hear what they say until there is a result; None when standard input has ended before."""
        self.selector.register(0, selectors.EVENT_READ)
        for rank in range(self.prepared.config.cluster.num_workers):
            self._start(rank)
        said: list[tuple[int, Said]] = []
        decided_s: float | None = None  # when it is enough to know that somebody broke
        while True:
            left_s = None if decided_s is None else max(0.0, decided_s - time.monotonic())
            for key, _ in self.selector.select(left_s):
                if key.fd == 0:
                    return None  # nothing comes after the first line but the end
                if key.fd in self.ranks:  # and not ended a moment ago
                    said += self._hear(key.fd)
            if (0, Trained()) in said:
                self.end_all(but=0)
                said = [(rank, event) for rank, event in said if rank == 0]
            if decided_s is None and any(isinstance(event, Broken) for _, event in said):
                decided_s = time.monotonic() + CAUSE_LIMIT_S
            result = _result([event for _, event in said], decided_s is not None and time.monotonic() >= decided_s)
            if result is not None:
                return result

    def _start(self, rank: int) -> None:
        """Fork a rank."""
        reading, writing = os.pipe()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                die_with(parent, signal.SIGKILL)
                self.selector.close()
                for descriptor in (reading, self.out, *self.ranks):
                    os.close(descriptor)  # or nobody would notice the parent's end while a child lives
                self._work(rank, writing)
            finally:
                os._exit(0)  # never back into the parent's code, and no clean-up of what is the parent's
        os.close(writing)
        self.ranks[reading] = _Rank(rank, pid)
        self.selector.register(reading, selectors.EVENT_READ)

    def _work(self, rank: int, writing: int) -> None:
        """What a fresh fork does; its result, or why there is none, goes into the pipe."""
        try:
            ran = run_rank(self.prepared, self.work, rank, trained=lambda: tell(writing, Trained()))
        except BaseException as error:
            tell(writing, _told(error, rank))
        else:
            tell(writing, ran)

    def _hear(self, reading: int) -> list[tuple[int, Said]]:
        """What a rank has said, with its number; one that ended without a last word has died."""
        rank = self.ranks[reading]
        got = os.read(reading, 65536)
        if got:
            *lines, rank.written = (rank.written + got).split(b"\n")
            events = [msgspec.json.decode(line, type=Said) for line in lines]
            rank.is_done |= any(not isinstance(event, Trained) for event in events)
            return [(rank.rank, event) for event in events]
        status = self._end(reading)
        if rank.is_done:
            return []
        return [(rank.rank, Failed(f"rank {rank.rank} of DDP died: {ending(status)}", RunError.exit_status))]

    def _end(self, reading: int) -> int:
        """Kill a rank, if it isn't ending anyway, and forget it; returns how it ended."""
        rank = self.ranks.pop(reading)
        self.selector.unregister(reading)
        os.close(reading)
        os.kill(rank.pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(rank.pid, 0)[1])

    def end_all(self, but: int | None = None) -> None:
        """Kill every rank, or every other."""
        for reading in [reading for reading, rank in self.ranks.items() if rank.rank != but]:
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


def _result(said: list[Said], no_more: bool) -> DdpRun | Failed | None:
    """The result among what was said so far; that a rank broke is one if nothing more is to be waited for.

    Whoever broke by another's death may be heard before it: in which order the kernel closes a process's pipe and
    sockets isn't promised.
    """
    for event in said:
        if isinstance(event, DdpRun | Failed):
            return event
    broken = [Failed(event.sentence, RunError.exit_status) for event in said if isinstance(event, Broken)]
    return broken[0] if broken and no_more else None


def main() -> int:
    out = take_output()
    work = take_work(Work)
    if work is None:
        return 0
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"  # gloo would look for the machine's own name, which may lead anywhere
    result: DdpRun | Failed | None
    try:
        device = resolve_device(work.config.cluster.device)
        if device.type != "cpu":
            name = work.config.cluster.device
            raise ConfigError(f'cluster.device = "{name}" is {device}: the baseline on DDP computes on the CPU only')
        import torch._dynamo  # noqa: F401 DDP does when it wraps a model, which takes seconds: once, before the forks

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
        tell(out, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
