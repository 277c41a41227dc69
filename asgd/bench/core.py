"""`asgd bench core`: how long the deciding core takes for an arrival, and whether that grows with the number of
workers.

Nothing but the core: no tensors, no sockets, no clock. What is timed is `ServerState.handle` for arrivals, with all
that it answers (the line of the trace, cancelled jobs, the next jobs), and the loop around it that keeps the workers'
jobs in queues and makes the events. Half of the workers are 4 times slower than the others: their jobs are older, so
that rules and methods have something to decide. Times are CPU time of the process: others disturb them little.
"""

from __future__ import annotations

import gc
import os
import platform
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from rich.table import Table

from asgd.core.actions import Action, Assign, Cancel
from asgd.core.budget import Budget
from asgd.core.events import Arrival, Join
from asgd.core.methods import METHODS, make_method
from asgd.core.schedules import Schedule
from asgd.core.state import ServerState
from asgd.core.step_rules import make_rule
from asgd.errors import ConfigError

SIZES = (10, 100, 1_000, 10_000, 100_000)
# One that works arrival by arrival, one that works by rounds, one that draws at random, one that cancels whole rounds.
CHOSEN = ("asynchronous", "minibatch", "random_assignment", "throttle")
FASTER = 4  # arrivals of fast workers for one of a slow worker


@dataclass(frozen=True)
class CoreRow:
    """One method with n workers: medians over the rounds, and the ratio to the smallest n in the same round."""

    method: str
    num_workers: int
    us_per_arrival: float
    arrivals_per_s: float
    ratio: float
    rounds_us: tuple[float, ...]


@dataclass(frozen=True)
class CoreResult:
    """What a run measured, and on what; `ratio` is against `sizes[0]` workers."""

    rows: tuple[CoreRow, ...]
    rule: str
    sizes: tuple[int, ...]
    clock: str
    machine: dict[str, str | int]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON."""
        return asdict(self)

    def table(self) -> Table:
        """The rows for people."""
        table = Table(title=f"The core alone, rule {self.rule} (medians, CPU time)")
        for heading in ("method", "workers", "us/arrival", "arrivals/s", f"against {self.sizes[0]}"):
            table.add_column(heading, justify="left" if heading == "method" else "right")
        for row in self.rows:
            table.add_row(
                row.method,
                f"{row.num_workers:,}",
                f"{row.us_per_arrival:.2f}",
                f"{row.arrivals_per_s:,.0f}",
                f"{row.ratio:.2f}x",
                end_section=row.num_workers == self.sizes[-1],
            )
        return table


def run(
    methods: Sequence[str] = CHOSEN,
    sizes: Sequence[int] = SIZES,
    arrivals: int = 20_000,
    rounds: int = 5,
    rule: str = "scale",
    progress: Callable[[str], None] = lambda line: None,
) -> CoreResult:
    """Measure methods at all sizes; within a round they take turns, so that a change of the machine's speed hits all.

    Arguments: `methods` names of methods; `sizes` numbers of workers, each at least 1, rising; `arrivals` timed for
    each measurement, at least 1 (three for each worker where that is more, so that work done once per round of all
    workers counts in full); `rounds` at least 1; `rule` a step-size rule that needs no options; `progress` is called
    with a line before each measurement.
    Raises ConfigError for other values. The defaults take about a minute.

        print(asgd.bench.core.run(methods=["asynchronous"], sizes=(10, 1_000), rounds=1).to_dict())
    """
    if not methods or not sizes or min(sizes) < 1 or list(sizes) != sorted(set(sizes)) or arrivals < 1 or rounds < 1:
        raise ConfigError(
            f"cannot measure methods {list(methods)} with {list(sizes)} workers, {arrivals} arrivals, {rounds} rounds;"
            " allowed are one method or more, rising numbers of workers, and workers, arrivals, rounds of at least 1"
        )
    seconds: dict[tuple[str, int], list[float]] = {(method, size): [] for method in methods for size in sizes}
    for number in range(rounds):
        for method, size in seconds:
            progress(f"round {number + 1} of {rounds}: {method}, {size:,} workers")
            seconds[method, size].append(_measure(method, rule, size, max(arrivals, 3 * size)))
    rows = tuple(
        CoreRow(
            method=method,
            num_workers=size,
            us_per_arrival=1e6 * median(values),
            arrivals_per_s=1.0 / median(values),
            ratio=median(ours / least for ours, least in zip(values, seconds[method, sizes[0]], strict=True)),
            rounds_us=tuple(1e6 * value for value in values),
        )
        for (method, size), values in seconds.items()
    )
    machine: dict[str, str | int] = {
        "cpus": os.cpu_count() or 0,
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    return CoreResult(rows, rule, tuple(sizes), "CPU time of the process", machine)


class Workers:
    """Workers without content: each answers its jobs in order, FASTER times of the first half for once of the rest."""

    def __init__(self, num_workers: int) -> None:
        self._fast: deque[Assign] = deque()
        self._slow: deque[Assign] = deque()
        self._num_fast = num_workers - num_workers // 2
        self._cancelled: set[int] = set()
        self._turn = 0

    def take(self, actions: Sequence[Action]) -> None:
        """Put the jobs that were given into the queues."""
        for action in actions:
            if type(action) is Assign:
                (self._fast if action.worker < self._num_fast else self._slow).append(action)
            elif type(action) is Cancel:
                self._cancelled.add(action.job)

    def next(self) -> Assign:
        """The job that is done next."""
        while True:
            self._turn = (self._turn + 1) % (FASTER + 1)
            first, second = (self._fast, self._slow) if self._turn else (self._slow, self._fast)
            job = (first or second).popleft()
            if job.job not in self._cancelled:
                return job
            self._cancelled.remove(job.job)


def _measure(method: str, rule: str, num_workers: int, arrivals: int) -> float:
    """Seconds of CPU time per arrival, after every worker has got its first job."""
    state = ServerState(
        make_method(method),
        make_rule(rule),
        Schedule(0.1),
        Budget(gradients=arrivals),
        expected_workers=num_workers,
        queues=METHODS[method].queues,
    )
    workers = Workers(num_workers)
    for worker in range(num_workers):
        workers.take(state.handle(Join(worker, 0.0)))
    gc.collect()  # so that what an earlier measurement has left isn't collected in this one; collection itself stays on
    began_s = time.process_time()
    while state.finished is None:
        worker, job, version = workers.next()
        workers.take(state.handle(Arrival(worker, job, version, 1.0, 32, 0.01, 1.0, distance=1.0)))
    seconds = time.process_time() - began_s
    state.validate()
    return seconds / arrivals
