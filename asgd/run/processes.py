"""What holds for every process that a command starts: it dies with its parent, and how it ended can be said."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


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
