"""Many simulations in parallel, from the side that waits for them; `forks.py` is the other side.

This process imports no torch: it stays responsive, and may have threads.
"""

from __future__ import annotations

import os
import selectors
from collections.abc import Generator

import msgspec

from asgd.errors import AsgdError, ConfigError, RunError
from asgd.run.processes import ending, helping
from asgd.run.signals import StopRequests
from asgd.sim.tuning import Goal, Measured


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be simulated: `config` (TOML) with each of these overrides, `jobs` at a time, scored by `goal`."""

    config: str
    overrides: list[list[str]]
    goal: Goal
    data_root: str
    jobs: int


class Done(msgspec.Struct, frozen=True, tag="done"):
    """A simulation has ended; its place in `Work.overrides` and its result."""

    index: int
    measured: Measured


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """There is no going on: one sentence, and the exit status of its error."""

    sentence: str
    exit_status: int

    @classmethod
    def by(cls, error: AsgdError, what: str = "") -> Failed:
        """The message for an error, in front of it what failed."""
        return cls(f"{what}: {error}" if what else str(error), error.exit_status)

    def error(self) -> AsgdError:
        """The error that was told."""
        return (ConfigError if self.exit_status == ConfigError.exit_status else RunError)(self.sentence)


def simulate_all(work: Work, stops: StopRequests) -> Generator[Done, None, None]:
    """Yield each simulation's result when it has ended, in whatever order that is; fewer when asked to stop.

    Once it has ended, failed or been closed (`contextlib.closing`), no process is left.
    Errors: what a simulation failed with, ConfigError or RunError in one sentence; RunError when a process died.
    """
    if stops.asked:
        return
    with helping("asgd.sim.forks", msgspec.json.encode(work)) as process:
        assert process.stdout is not None
        lines = b""
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while not stops.asked:
                if not selector.select(timeout=0.1):
                    continue
                got = os.read(process.stdout.fileno(), 65536)
                if not got:
                    break
                *whole, lines = (lines + got).split(b"\n")
                for line in whole:
                    event = msgspec.json.decode(line, type=Done | Failed)
                    if isinstance(event, Failed):
                        raise event.error()
                    yield event
        if not stops.asked and (status := process.wait()) != 0:
            raise RunError(f"the process that runs the simulations died: {ending(status)}")
