"""What a run under faults came to: its numbers, its verdict, and the table that a person reads."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table

from asgd.bench.chaos.counting import Deaths
from asgd.bench.chaos.striking import Struck


@dataclass(frozen=True)
class Spread:
    """The median and the largest of some times, in seconds."""

    median_s: float
    max_s: float


@dataclass(frozen=True)
class Survived:
    """The faults of one kind. `goes_on`: until the next arrival was handled (a stopped server: from its SIGCONT);
    `coming_up`: how much of that until a new server had taken up the run; `back`: until the next arrival of the
    worker that was hit; None where nothing of the kind was seen.
    """

    name: str
    num: int
    goes_on: Spread | None
    coming_up: Spread | None
    back: Spread | None


@dataclass
class Survival:
    """What came of it; see `asgd.bench.chaos.running.run_chaos`.

    kills, server_kills: that struck; num_left: faults of the script that didn't; lost, refused: jobs and answers;
    recomputed, undone: updates after the last checkpoint that restarts computed again, or took back; doubled: jobs that
    were used twice; differing: jobs used in the trace and not in the journal, or the other way round; problems: of the
    books; exact: whether the replay is the same to the bit; error: why the run failed; went_on: whether training did
    after each fault.
    """

    run: str
    method: str
    mode: str
    seed: int
    kills: int
    server_kills: int
    num_left: int
    versions: int = 0
    arrivals: int = 0
    wall_s: float = 0.0
    lost: int = 0
    refused: int = 0
    restarts: int = 0
    server_restarts: int = 0
    recomputed: int = 0
    undone: int = 0
    doubled: int = 0
    differing: int = 0
    problems: list[str] = field(default_factory=list)
    exact: bool = False
    replay_s: float = 0.0
    difference: str | None = None
    parameters_sha256: str = ""
    error: str | None = None
    went_on: bool = False
    deaths: Deaths | None = None
    faults: list[Survived] = field(default_factory=list)
    machine: dict[str, str | int] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether nothing was lost or doubled and everything went on."""
        clean = not (self.error or self.problems or self.doubled or self.differing or self.num_left)
        return clean and self.exact and self.went_on

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        plain = asdict(self)
        return plain | {"deaths": self.deaths and self.deaths._asdict(), "passed": self.passed}


def survived(struck: Sequence[Struck]) -> list[Survived]:
    """The faults by kind, in alphabetical order."""
    by_name: dict[str, list[Struck]] = {}
    for each in struck:
        by_name.setdefault(each.fault.name, []).append(each)
    return [
        Survived(
            name,
            len(those),
            _spread([each.away_s for each in those]),
            _spread([each.opened_s - each.struck_s for each in those if each.opened_s is not None]),
            _spread([each.back_s - (each.ended_s or each.struck_s) for each in those if each.back_s is not None]),
        )
        for name, those in sorted(by_name.items())
    ]


def _spread(times_s: Sequence[float | None]) -> Spread | None:
    known = [time_s for time_s in times_s if time_s is not None]
    return Spread(statistics.median(known), max(known)) if known else None


def fault_table(result: Survival) -> Table:
    """The faults by kind and how long each was felt."""
    heads = (
        "seconds, median and largest, until:",
        "",
        "training went on",
        "a new server was up",
        "the worker was back",
    )
    table = Table(*heads, box=None)
    for row in result.faults:
        table.add_row(row.name, f"{row.num}", _shown(row.goes_on), _shown(row.coming_up), _shown(row.back))
    return table


def _shown(spread: Spread | None) -> str:
    return "" if spread is None else f"{spread.median_s:.2f}, {spread.max_s:.2f}"


def verdict_table(result: Survival) -> Table:
    """What became of the jobs, and the verdicts."""
    table = Table("", "", box=None, show_header=False)
    deaths = result.deaths
    rows = {
        "kills (SIGKILL)": f"{result.kills}, {result.server_kills} of them of the server",
        "updates, arrivals": f"{result.versions:,}, {result.arrivals:,} in {result.wall_s:.0f} s",
        "updates computed again": f"{result.recomputed:,}",
        "updates undone": f"{result.undone:,}",
        "jobs lost (recorded)": f"{result.lost:,}",
        "answers refused": f"{result.refused:,}",
        "jobs DOUBLED": f"{result.doubled}",
        "jobs in trace or journal alone": f"{result.differing}",
        "the books": result.problems[0] if result.problems else "balance (conservation law exact)",
        "replay": (
            f"the same to the bit (in {result.replay_s:.0f} s)" if result.exact else result.difference or "not made"
        ),
        "others' arrivals/s, one dead": (
            "not measured"
            if deaths is None
            else f"{deaths.ratio:.2f} times those before [{deaths.low:.2f}, {deaths.high:.2f}] ({deaths.num} deaths)"
        ),
    }
    if result.num_left:
        rows["faults that never struck"] = f"{result.num_left}"
    if result.error:
        rows["the run FAILED"] = result.error
    for name, value in rows.items():
        table.add_row(name, value)
    return table
