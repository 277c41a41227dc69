"""What a benchmark has found so far, as it is kept in results.json: simulations, real runs, and the table's rows."""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from asgd.bench.minibatch.plan import Plan, Protocol
from asgd.config import load_config
from asgd.errors import ConfigError
from asgd.run.files import reason_of
from asgd.sim.result_files import read_result, refuse_another, write_result
from asgd.sim.tuning import Goal, Values, cell_key

RESULTS = "results.json"
Purpose = Literal["tune", "confirm", "measure"]
LAST_PART = 0.9


class Look(NamedTuple):
    """One evaluation of a run: when the evaluated version came to be, and the metric (None if it isn't finite)."""

    time_s: float
    samples: int
    value: float | None


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One run of tuning, in virtual time or for real: a point of the grid with a seed.

    Attributes: score: of the goal, None for a run that diverged or didn't reach the target; final: the mean of the
    metric over the last 10% of the budget, None for a run that didn't get there.
    """

    setting: str
    contender: str
    values: Values
    seed: int
    score: float | None
    final: float | None
    diverged: bool
    gradients: int
    time_s: float


class RealRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run on real processes.

    Attributes:
        looks: its evaluations, in order; gradients, samples: that arrived, used or not; used: applied or accumulated.
        wall_s: seconds of training, with the message that ended it; delay_mean, delay_max, server_busy: None where
            there is no server.
        seconds_N: each worker's mean seconds per job; round_s: the mean of the longest of the jobs that were given at
            one version, as mini-batch SGD waits for it; both from what the workers measured, None without them.
        lost, restarts, evaluations_missing: what should be 0.
        load_before, load_after: the machine's load average over a minute when it began and ended; None if unknown.
    """

    setting: str
    contender: str
    values: Values
    seed: int
    purpose: Purpose
    budget_s: float
    diverged: bool = False
    looks: list[Look] = []
    gradients: int = 0
    used: int = 0
    discarded: int = 0
    samples: int = 0
    versions: int = 0
    wall_s: float = 0.0
    delay_mean: float | None = None
    delay_max: int | None = None
    server_busy: float | None = None
    seconds_N: list[float] | None = None
    round_s: float | None = None
    lost: int = 0
    restarts: int = 0
    evaluations_missing: int = 0
    load_before: float | None = None
    load_after: float | None = None

    @property
    def counted_s(self) -> float:
        """The seconds in which what arrived counted: what came after the budget was too late, however long it took."""
        return min(self.wall_s, self.budget_s)

    def reached(self, goal: Goal) -> Look | None:
        """The first evaluation at the target or better; None if there is none.

        Nothing counts after the budget, so a version that was kept a moment later had come to be by its end.
        """
        if goal.target is None:
            return None
        look = next((look for look in self.looks if look.value is not None and goal.reached(look.value)), None)
        return look and look._replace(time_s=min(look.time_s, self.budget_s))

    @property
    def final(self) -> float | None:
        """The metric of the model that the run ended with."""
        return self.looks[-1].value if self.looks and not self.diverged else None

    @property
    def last_part(self) -> float | None:
        """The mean of the metric over the last 10% of the budget; a model that wasn't updated there counts as it was
        left. None when the run diverged, or one of the values isn't finite.
        """
        if self.diverged or not self.looks:
            return None
        late = [look.value for look in self.looks if look.time_s >= LAST_PART * self.budget_s] or [self.looks[-1].value]
        finite = [value for value in late if value is not None]
        return math.fsum(finite) / len(finite) if len(finite) == len(late) else None

    def after(self, samples: int) -> float | None:
        """The metric at the last evaluation that no more than so many samples had gone into."""
        before = [look for look in self.looks if look.samples <= samples]
        return before[-1].value if before and not self.diverged else None

    def cell(self, goal: Goal) -> Cell:
        """The run as one of tuning."""
        reached = self.reached(goal)
        time_s = reached.time_s if reached else None
        return Cell(
            setting=self.setting,
            contender=self.contender,
            values=self.values,
            seed=self.seed,
            score=self.last_part if goal.score == "final" else time_s,
            final=None if reached else self.last_part,
            diverged=self.diverged,
            gradients=self.gradients,
            time_s=self.wall_s,
        )


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What the benchmark ran on, when, and by which command; `asgd` is the version that began it ("" if unknown)."""

    cores: int
    processor: str
    python: str
    torch: str
    system: str
    started: str
    commands: list[str]
    asgd: str = ""


class Record(msgspec.Struct, kw_only=True, dict=True):
    """The content of results.json: all that was found, and, once it is complete, what it comes to.

    `plan` says of what; `seconds` counts the time of all calls of the command that have added to it.
    """

    plan: dict[str, Any]
    machine: Machine
    seconds: float = 0.0
    cells: list[Cell] = []
    runs: list[RealRun] = []
    complete: bool = False
    protocol: list[str] = []
    warnings: list[str] = []
    rows: list[dict[str, Any]] = []

    def cell(self, setting: str, contender: str, values: Values, seed: int) -> Cell | None:
        if len(self._cells) != len(self.cells):
            self.__dict__["_cells"] = {_key(c.setting, c.contender, c.values, c.seed): c for c in self.cells}
        return self._cells.get(_key(setting, contender, values, seed))

    def run(self, purpose: Purpose, setting: str, contender: str, values: Values, seed: int) -> RealRun | None:
        wanted = _key(setting, contender, values, seed)
        runs = (run for run in self.runs if run.purpose == purpose and run.setting == setting)
        return next((run for run in runs if _key(setting, run.contender, run.values, run.seed) == wanted), None)

    @cached_property
    def _cells(self) -> dict[tuple[str, str, bytes], Cell]:
        return {}

    def measured(self, setting: str, contender: str) -> list[RealRun]:
        """The measured runs of a contender, one for each seed, in the order of the seeds."""
        found = [r for r in self.runs if (r.purpose, r.setting, r.contender) == ("measure", setting, contender)]
        return sorted(found, key=lambda run: run.seed)


def _key(setting: str, contender: str, values: Values, seed: int) -> tuple[str, str, bytes]:
    return setting, contender, cell_key(values, seed)


def plain(plan: Plan) -> dict[str, Any]:
    """A plan as results.json says it."""
    parts = {"name": plan.name, "config": plan.config, "benchmark": plan.protocol}
    return {key: msgspec.json.decode(msgspec.json.encode(part)) for key, part in parts.items()}


def open_record(folder: Path, plan: Plan, machine: Machine) -> Record:
    """What is in `folder` already, to go on with, or an empty record.

    Errors: ConfigError when the folder can't be made, its file is no result, or it is another plan's.
    """
    file = folder / RESULTS
    now = plain(plan)
    if not file.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--out {folder}: the folder can't be made: {reason_of(error)}") from error
        record = Record(plan=now, machine=machine)
        write_result(file, record)  # a folder that can't be written is found out now, and not after hours
        return record
    record = read_result(file, Record, "asgd bench minibatch")
    if not record.cells and not record.runs:  # nothing is lost
        return Record(plan=now, machine=machine)
    refuse_another(file, _defaults_filled_in(record.plan), {key: now[key] for key in ("config", "benchmark")})
    record.machine = msgspec.structs.replace(
        record.machine, commands=list(dict.fromkeys([*record.machine.commands, *machine.commands]))
    )
    return record


def _defaults_filled_in(plan: dict[str, Any]) -> dict[str, Any]:
    """A stored plan as this version would store it: keys that came since then have their defaults."""
    config, protocol = plan.get("config"), plan.get("benchmark")
    try:
        parts = {"config": load_config(config or {}), "benchmark": msgspec.convert(protocol, Protocol)}
    except (ConfigError, msgspec.ValidationError):  # keys that went since then: the comparison says which
        return {"config": config, "benchmark": protocol}
    return {key: msgspec.json.decode(msgspec.json.encode(part)) for key, part in parts.items()}
