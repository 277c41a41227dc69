"""What holds for every process that a command starts: it dies with its parent, tells what happens in lines on its
standard output, and how it ended can be said.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

LEAVE_LIMIT_S = 10.0
_PR_SET_PDEATHSIG = 1


@contextlib.contextmanager
def helping(module: str, work: bytes) -> Iterator[subprocess.Popen[bytes]]:
    """Run `python -m module` beside us, with `work` as the first line of its input; gone when the block ends.

    The module ends its own children and itself when its input ends. It is in a process group of its own: Ctrl-C on a
    terminal is for the command, which ends what it started.
    """
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0
    )
    assert process.stdin is not None
    try:
        with contextlib.suppress(BrokenPipeError):  # it has died, and its status says how
            process.stdin.write(work + b"\n")
            process.stdin.flush()
        yield process
    finally:
        end(process, LEAVE_LIMIT_S)


def end(process: subprocess.Popen[bytes], limit_s: float) -> None:
    """Close the input of a process, at which it ends what it has started and itself; kill it if that takes longer."""
    assert process.stdin is not None and process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(limit_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()


def take_output() -> int:
    """Keep standard output for events, in a helping process: returns its descriptor.

    What anything else prints, such as a task, goes to standard error: it must not look like an event.
    """
    out = os.dup(1)
    os.dup2(2, 1)
    return out


def take_work(kind: type[T]) -> T | None:
    """The first line of standard input in a helping process; None when whoever wanted the work is gone already."""
    line = sys.stdin.buffer.readline()
    return msgspec.json.decode(line, type=kind) if line.endswith(b"\n") else None


def tell(descriptor: int, event: Any) -> None:
    """Write an event as a line; whoever should hear it may be gone."""
    with contextlib.suppress(BrokenPipeError):
        os.write(descriptor, msgspec.json.encode(event) + b"\n")


def die_with(parent: int, number: int) -> None:
    """Have the kernel send us a signal when the parent dies (Linux); called in a fresh fork, with the parent's id."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os._exit(1)


def ending(status: int) -> str:
    """How a process ended, by its exit status or, below 0, the signal that killed it.

    Example:
        >>> ending(-9)
        'killed by SIGKILL'
    """
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"it exited with status {status}"
