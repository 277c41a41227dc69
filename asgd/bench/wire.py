"""`asgd bench wire`: how many exchanges per second a parameter server makes over our transport (plain, and encrypted by
its keys), over PyTorch's RPC and over plain sockets, measured in one run.

One exchange: a worker sends a gradient of P float32, the server does x.add_(g, alpha=-eta), the worker receives x. Real
processes, a fresh group for each measurement; the contenders take turns within each round, and what is compared are
ratios within a round, so that a machine whose load changes between rounds disturbs all of them alike.

Legend: P parameters.
"""

from __future__ import annotations

import importlib.metadata
import multiprocessing
import os
import platform
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from statistics import median
from typing import Any

import torch
from rich.table import Table

from asgd.bench.wire_contenders import CONTENDERS, RPC, Plan
from asgd.errors import ConfigError, RunError
from asgd.net.transport import FRAME_BYTES

START_LIMIT_S = 120.0
END_LIMIT_S = 60.0


@dataclass(frozen=True)
class WireRow:
    """One contender at one size: median exchanges per second, median ratio to RPC in the same round, all rounds."""

    size_P: int
    contender: str
    exchanges_per_s: float
    ratio_to_rpc: float
    rounds: tuple[float, ...]

    @property
    def megabytes_per_s(self) -> float:
        """Payload in both directions, in 10**6 bytes per second."""
        return self.exchanges_per_s * self.size_P * 8 / 1e6


@dataclass(frozen=True)
class WireResult:
    """What a run measured, and on what."""

    rows: tuple[WireRow, ...]
    num_workers: int
    seconds: float
    machine: dict[str, str | int]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON."""
        return asdict(self)

    def table(self) -> Table:
        """The rows for people."""
        table = Table(title=f"Exchanges per second, one server and {self.num_workers} workers (medians)")
        for heading in ("parameters", "transport", "exchanges/s", "MB/s", "against RPC"):
            table.add_column(heading, justify="left" if heading == "transport" else "right")
        for row in self.rows:
            table.add_row(
                f"{row.size_P:,}",
                row.contender,
                f"{row.exchanges_per_s:,.1f}",
                f"{row.megabytes_per_s:,.0f}",
                f"{row.ratio_to_rpc:.2f}x",
                end_section=row.contender == list(CONTENDERS)[-1],
            )
        return table


def run(
    sizes: Sequence[int] = (11_170_000, 1_000),
    num_workers: int = 2,
    seconds: float = 2.0,
    rounds: int = 3,
    progress: Callable[[str], None] = lambda line: None,
) -> WireResult:
    """Measure all contenders at all sizes.

    Arguments: `sizes` numbers of float32 parameters, each at least 1; `num_workers` at least 1; `seconds` counted per
    measurement, above 0; `rounds` at least 1; `progress` is called with a line before each measurement.
    Raises ConfigError for other values, RunError when a contender fails. Takes about rounds * len(sizes) * 5 *
    (seconds + 2) seconds.

        print(asgd.bench.wire.run(sizes=(1_000,), seconds=1.0).to_dict())
    """
    if not sizes or min(sizes) < 1 or num_workers < 1 or not seconds > 0 or rounds < 1:
        raise ConfigError(
            f"cannot measure sizes {list(sizes)} with {num_workers} workers for {seconds} s in {rounds} rounds;"
            " allowed are sizes, workers and rounds of at least 1 and more than 0 s"
        )
    rates: dict[tuple[int, str], list[float]] = {(size_P, name): [] for size_P in sizes for name in CONTENDERS}
    for number in range(rounds):
        for size_P, name in rates:
            progress(f"round {number + 1} of {rounds}: {name}, {size_P:,} parameters")
            rates[size_P, name].append(_measure(name, size_P, num_workers, seconds))
    rows = tuple(
        WireRow(
            size_P=size_P,
            contender=name,
            exchanges_per_s=median(values),
            ratio_to_rpc=median(ours / theirs for ours, theirs in zip(values, rates[size_P, RPC], strict=True)),
            rounds=tuple(values),
        )
        for (size_P, name), values in rates.items()
    )
    machine: dict[str, str | int] = {
        "cpus": os.cpu_count() or 0,
        "system": platform.platform(),
        "torch": str(torch.__version__),
        "pyzmq": importlib.metadata.version("pyzmq"),
        "frame_bytes": FRAME_BYTES,
    }
    return WireResult(rows, num_workers, seconds, machine)


def _measure(name: str, size_P: int, num_workers: int, seconds: float) -> float:
    """Exchanges per second of one contender, with a fresh group of processes."""
    with tempfile.TemporaryDirectory(prefix="asgd-wire-") as directory, _processes() as start:
        plan = Plan(size_P, num_workers, warm_up=4 * num_workers, seconds=seconds, directory=directory)
        reports, theirs = multiprocessing.Pipe(duplex=False)
        with reports, theirs:
            start(_serve, (name, plan, theirs))
            theirs.close()
            address = _next_report(name, reports, START_LIMIT_S)
            for worker in range(num_workers):
                start(_work, (name, plan, worker, str(address)))
            return float(_next_report(name, reports, START_LIMIT_S + seconds + END_LIMIT_S))


def _next_report(name: str, reports: Connection, limit_s: float) -> str | float:
    deadline_s = time.monotonic() + limit_s
    if not reports.poll(deadline_s - time.monotonic()):
        raise RunError(f"{name} gave no result within {limit_s:.0f} s")
    try:
        kind, value = reports.recv()
    except EOFError:
        raise RunError(f"{name}: the server process ended without a result") from None
    if kind == "failed":
        raise RunError(f"{name}: {value}")
    return value


@contextmanager
def _processes() -> Iterator[Callable[[Callable[..., None], tuple[Any, ...]], None]]:
    """A way to start processes that have all ended, of themselves or not, when the block does."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["asgd.bench.wire_contenders"])  # torch is imported once, not once per process
    started: list[ForkServerProcess] = []

    def start(target: Callable[..., None], args: tuple[Any, ...]) -> None:
        process = context.Process(target=target, args=args, daemon=True)
        process.start()
        started.append(process)

    failed = True
    try:
        yield start
        failed = False
    finally:
        for process in started:
            if not failed:
                process.join(END_LIMIT_S)
            for end in (process.terminate, process.kill):
                if process.is_alive():
                    end()
                    process.join(5.0)
            process.close()


def _settle() -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its processes


def _serve(name: str, plan: Plan, reports: Connection) -> None:
    _settle()
    try:
        reports.send(("rate", CONTENDERS[name].serve(plan, lambda address: reports.send(("address", address)))))
    except Exception as error:  # whatever it is, the parent says it in one sentence
        reports.send(("failed", f"{type(error).__name__}: {error}"))


def _work(name: str, plan: Plan, worker: int, address: str) -> None:
    _settle()
    CONTENDERS[name].work(plan, worker, address)
