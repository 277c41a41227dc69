"""Bit-exact replay: a run computed again in one process from its configuration, its seeds and its journal.

Legend of the suffixes: _S parameters and buffers in one flat vector with padding.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from asgd.config import Config, load_config
from asgd.core.trace import TraceRow
from asgd.errors import ConfigError, RunError
from asgd.learn.flat import FlatModel
from asgd.run.build import make_state
from asgd.run.compute import TaskCompute
from asgd.run.formats import Summary
from asgd.run.journal import Opened, check, entries, header_of
from asgd.run.recompute import Difference, Recomputation, header_for, same
from asgd.run.records import CONFIG, JOURNAL, RunDirectory
from asgd.run.result import plain_module, write_named
from asgd.run.roles import prepare
from asgd.run.summary import environment_now

FIELDS = tuple(TraceRow.__slots__)
MOST_KEPT = 100


@dataclass
class Replay:
    """What a replay gave, and where it differs from the record.

    Attributes: run: its directory; arrivals: lines of the trace that were made again and compared; version: reached;
    jobs: gradients computed; restarts: of the server; until: where it stopped, None for the end;
    parameters_sha256: of the parameters at the end of the replay; recorded_sha256: of the run's end, None when the
    replay ended before or the run has no summary; differences: the first of them, in their order; num_differences: all;
    notes: what was odd about the record; environment: what is otherwise here than where the run was made; seconds: what
    it took; flat: the model.
    """

    run: str
    flat: FlatModel = field(repr=False)
    until: int | None = None
    arrivals: int = 0
    version: int = 0
    jobs: int = 0
    restarts: int = 0
    parameters_sha256: str = ""
    recorded_sha256: str | None = None
    differences: list[Difference] = field(default_factory=list)
    num_differences: int = 0
    notes: list[str] = field(default_factory=list)
    environment: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def is_exact(self) -> bool:
        """Whether all that was compared is the same to the bit."""
        return self.num_differences == 0

    def differs(self, difference: Difference) -> None:
        self.num_differences += 1
        if len(self.differences) < MOST_KEPT:
            self.differences.append(difference)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the model, as plain values for JSON."""
        plain = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "flat"}
        plain["differences"] = [difference._asdict() for difference in self.differences]
        return plain | {"exact": self.is_exact}

    def model(self) -> nn.Module:
        """The model at the version reached, in eval mode, as a plain torch module with tensors of its own."""
        return plain_module(self.flat, self.flat.state_S)

    def export(self, file: Path | str) -> Path:
        """Write the model's named parameters and buffers to a safetensors file; errors as of `result.export`."""
        task = load_config(Path(self.run) / CONFIG).task.function
        return write_named(Path(file), self.flat.named_tensors(), task, self.version)


def replay(
    run: Path | str,
    *,
    until: int | None = None,
    check_only: bool = False,
    data_root: Path | None = None,
    progress: Callable[[float], None] = lambda fraction: None,
) -> Replay:
    """Compute a run again and compare every line of its trace, and its final parameters, to the bit.

    Every gradient is computed at the parameters that its job was given, from (seed, worker, job); the core decides
    again on every event, in the recorded order.

    Arguments: run: its directory; until: the version to stop at, from 0; check_only: stop at the first difference;
    data_root: where data sets are; progress: takes the part of the journal that is done, 0 to 1.
    Errors: RunError when the run has no (whole) journal, ConfigError for a version that it doesn't reach.

    Source: the schedule of a run is the only thing that asynchrony decides; the rest is fixed by seeds.
    """
    began_s, path = time.monotonic(), Path(run)
    with RunDirectory.open(path) as directory:
        config = load_config(path / CONFIG)
        rows = directory.read_trace()
        summary = directory.read_summary() if directory.is_finished() else None
        notes = list(directory.notes)
    whole = _checked_journal(path, config, notes)
    prepared = prepare(config, data_root or Path())
    threads = torch.get_num_threads()
    torch.set_num_threads(config.cluster.threads_per_worker)
    try:
        compute = TaskCompute(prepared.config, prepared.task)
        result = Replay(str(path), compute.flat, until, notes=notes)
        result.environment = environment_differences(config, summary)
        ended = _drive(result, config, compute, rows, whole, check_only, progress)
        if ended:
            _compare_end(result, rows, summary)
    finally:
        torch.set_num_threads(threads)
    result.seconds = time.monotonic() - began_s
    return result


def _checked_journal(path: Path, config: Config, notes: list[str]) -> int:
    """The length of the good part of a run's journal."""
    journal = path / JOURNAL
    if not journal.exists():
        raise RunError(f"{path} has no {JOURNAL}: the run was made before runs had one, and can't be replayed")
    whole, torn = check(journal)
    if torn:
        notes.append(f"The last {torn} bytes of {journal} are damaged or torn and are left out.")
    if not whole:
        raise RunError(f"{journal} has nothing in it")
    header = header_of(journal)
    if header[:3] != header_for(config, 0)[:3]:
        raise RunError(f"{journal} belongs to another configuration than {path / CONFIG}: it says {header}")
    return whole


def _drive(
    result: Replay,
    config: Config,
    compute: TaskCompute,
    rows: list[TraceRow],
    whole: int,
    check_only: bool,
    progress: Callable[[float], None],
) -> bool:
    """Replay the journal; whether it came to its end."""

    def on_row(row: TraceRow) -> None:
        number = result.arrivals
        result.arrivals, result.version = number + 1, row.version + row.steps
        if number < len(rows) and rows[number] != row:
            for key in FIELDS:
                recorded, recomputed = getattr(rows[number], key), getattr(row, key)
                if not same(recorded, recomputed):
                    result.differs(Difference(row.arrival, key, recorded, recomputed))

    again = Recomputation(config, compute, make_state(config), on_row)
    ended = result.until is None
    for number, entry in enumerate(entries(Path(result.run) / JOURNAL)):
        if result.until is not None and again.state.version >= result.until:
            break
        if number % 100 == 0:
            progress(entry.offset / whole)
        again.take(entry)
        if isinstance(entry.event, Opened):
            result.restarts += entry.event.incarnation > 0
        for difference in again.differences:
            result.differs(difference)
        again.differences.clear()
        if check_only and result.num_differences:
            ended = False
            break
    else:
        if result.until is not None and again.state.version < result.until:
            raise ConfigError(f"--until {result.until}: the run ends with version {again.state.version}")
    result.jobs = again.num_computed
    result.parameters_sha256 = result.flat.parameters_sha256()
    return ended


def _compare_end(result: Replay, rows: list[TraceRow], summary: Summary | None) -> None:
    if len(rows) > result.arrivals:
        result.differs(Difference(result.arrivals, "arrivals", len(rows), result.arrivals))
    elif len(rows) < result.arrivals and summary is not None:
        result.differs(Difference(len(rows), "arrivals", len(rows), result.arrivals))
    elif len(rows) < result.arrivals:
        missing = result.arrivals - len(rows)
        result.notes.append(f"The journal has {missing} arrivals that the trace doesn't have (yet): not compared.")
    if summary is None:
        result.notes.append("The run has no summary: the final parameters are not compared.")
        return
    result.recorded_sha256 = summary.parameters_sha256
    for key, recomputed in (("versions", result.version), ("parameters_sha256", result.parameters_sha256)):
        if getattr(summary, key) != recomputed:
            result.differs(Difference(result.arrivals, key, getattr(summary, key), recomputed))


def environment_differences(config: Config, summary: Summary | None) -> list[str]:
    """Sentences about what is otherwise here than where a run was made: the last bits may depend on it."""
    found = []
    if summary is not None:
        then, now = summary.environment, environment_now()
        for what in ("torch", "platform", "cores"):
            if getattr(then, what) != getattr(now, what):
                found.append(f"{what}: {getattr(then, what)} then, {getattr(now, what)} now")
    if config.cluster.device.startswith("cuda") or (config.cluster.device == "auto" and torch.cuda.is_available()):
        found.append(f"device: {config.cluster.device} then, cpu now")
    return found
