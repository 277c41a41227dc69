"""How much work goes into checking the claims, and on how many processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from asgd.errors import RunError

T = TypeVar("T")
INTERRUPTS = {signal.SIGINT, signal.SIGTERM}


@dataclass(frozen=True)
class Effort:
    """Arguments: quick: smaller settings and fewer seeds, to see that everything works; real: whether the claims that
    are also checked on real processes are; jobs: processes at once; say: takes a line about what is going on.
    """

    quick: bool = False
    real: bool = True
    jobs: int = 1
    say: Callable[[str], None] = lambda line: None

    def seeds(self, full: int, quick: int = 2) -> list[int]:
        """Seeds of the noise, as many as the effort allows."""
        return list(range(quick if self.quick else full))

    def map(self, function: Callable[..., T], cells: Iterable[tuple[Any, ...]]) -> list[T]:
        """Call a function for each cell's arguments, in parallel; the results in the order of the cells.

        The processes are forked from a server that has imported the simulator and has no threads. None is left when
        this ends, however it does.
        Errors: RunError when one of them dies.
        """
        cells = list(cells)
        if self.jobs == 1:
            return [function(*cell) for cell in cells]
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["asgd.bench.claims"])
        processes = min(self.jobs, len(cells))
        # Nobody writes into it: it ends when this process does, whatever killed it.
        theirs, ours = context.Pipe(duplex=False)
        with theirs, ours, ProcessPoolExecutor(processes, context, _begin, (theirs,)) as pool:
            try:
                # What is started here has interrupts blocked for good: they are for this process.
                signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)
                try:
                    futures = [pool.submit(function, *cell) for cell in cells]
                finally:
                    signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTS)
                return [future.result() for future in futures]
            except BrokenProcessPool as error:
                raise RunError("a process that computes a part of a claim died (out of memory?)") from error
            except BaseException:
                for child in multiprocessing.active_children():
                    child.kill()
                raise


def _begin(parent: Connection) -> None:
    """End with the parent."""
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Connection) -> None:
    with contextlib.suppress(EOFError, OSError):
        parent.recv()
    os._exit(1)
