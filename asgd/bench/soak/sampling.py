"""What the processes of a run use, read from /proc (Linux): memory, open files, threads, CPU time.

The processes are found by a variable in their environment, which children inherit: none can hide by losing its parent.
What a process is, its standard error tells: the roles of a local cluster, and the workers that join, write to
RUN/logs/ROLE.log.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MARK = "ASGD_SOAK"
MB = 1e6
_TICKS = os.sysconf("SC_CLK_TCK")
_AMOUNT = re.compile(r"^(\w+):\s+(\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Reading:
    """One process at one moment.

    pid, born: its number, and when it was started (in the kernel's ticks), which together nobody else has. role: such
    as "server" or "worker-3". own_mb: its anonymous and shared memory, which nobody can take from it, in MB; pages that
    it still shares with the process that it was forked from count. rss_mb, pss_mb, private_mb: all that is resident;
    the same with shared pages divided by who shares them; without shared pages. cpu_s: used so far.
    """

    pid: int
    born: int
    role: str
    own_mb: float
    rss_mb: float
    pss_mb: float
    private_mb: float
    files: int
    threads: int
    cpu_s: float


def marked(mark: str) -> Iterator[int]:
    """The processes that carry a mark, by number; those that have ended and wait to be collected don't count."""
    wanted = f"{MARK}={mark}".encode()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                if wanted in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0"):
                    yield int(entry)


def read_all(mark: str) -> list[Reading]:
    """All processes that carry a mark, by their age."""
    found = [reading for pid in marked(mark) if (reading := read_one(pid)) is not None]
    return sorted(found, key=lambda reading: (reading.born, reading.pid))


def read_one(pid: int) -> Reading | None:
    """What a process uses now; None when it has ended."""
    folder = Path(f"/proc/{pid}")
    try:
        # The name, in parentheses, may hold anything; the state is the first field after it.
        stat = (folder / "stat").read_text().rpartition(")")[2].split()
        status = _amounts(folder / "status")
        rolled_up = _amounts(folder / "smaps_rollup")
        files = len(os.listdir(folder / "fd"))
        role = Path(os.readlink(folder / "fd" / "2")).stem
    except OSError:
        return None
    if not {"VmRSS", "RssAnon", "RssShmem"} <= status.keys():  # it is ending: its memory has gone already
        return None
    private_kb = rolled_up.get("Private_Clean", 0) + rolled_up.get("Private_Dirty", 0)
    return Reading(
        pid=pid,
        born=int(stat[19]),
        role=role,
        own_mb=_mb(status["RssAnon"] + status["RssShmem"]),
        rss_mb=_mb(status["VmRSS"]),
        pss_mb=_mb(rolled_up.get("Pss", 0)),
        private_mb=_mb(private_kb),
        files=files,
        threads=status["Threads"],
        cpu_s=(int(stat[11]) + int(stat[12])) / _TICKS,
    )


def _amounts(path: Path) -> dict[str, int]:
    """The numbers of a file of lines such as "VmRSS:   2216 kB"."""
    return {name: int(amount) for name, amount in _AMOUNT.findall(path.read_text())}


def _mb(kib: int) -> float:
    return round(kib * 1024 / MB, 3)


def file_sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file of a run, checkpoints together and logs together."""
    sizes: dict[str, int] = {}
    for path in sorted(folder.rglob("*")):
        with contextlib.suppress(OSError):  # a checkpoint that was replaced at this moment
            if path.is_file():
                inside = path.relative_to(folder).parts
                name = inside[0] + ("/" if len(inside) > 1 else "")
                sizes[name] = sizes.get(name, 0) + path.stat().st_size
    return sizes
