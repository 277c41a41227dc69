"""A soak from its configuration to its result: the run, what is left after it, its books, its replay."""

from __future__ import annotations

import os
import platform
import secrets
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
from rich.table import Table

from asgd.api import replay
from asgd.bench.soak.course import Course, Sample
from asgd.bench.soak.sampling import Reading, file_sizes, marked
from asgd.bench.soak.script import steps
from asgd.bench.soak.verdict import Flat, Pace, judge, pace, training
from asgd.config import Config, to_toml
from asgd.errors import ConfigError
from asgd.run.ledger import check_trace
from asgd.run.result import Run
from asgd.run.signals import StopRequests

BOUND_MB_PER_H = 4.0
EVERY = 5000
SHOWN = 240  # samples that a result keeps, for its figure
LONG_LIVED = ("train", "launcher", "server", "evaluator")  # "train": the supervisor
_SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class SoakResult:
    """What a soak found. `problems`: everything that doesn't hold, none when all does; `flat`: the processes that live
    through the last three quarters; `quarters`: of the training; `steps`: what the script did, by kind; `shown`: some
    of the samples.
    """

    problems: list[str]
    minutes: float
    seed: int
    every: int
    bound_mb_per_h: float
    versions: int
    arrivals: int
    lost: int
    refused: int
    restarts: int
    updates_per_s: float
    wall_s: float
    steps: dict[str, int]
    processes: int
    flat: list[Flat]
    quarters: list[Pace]
    file_bytes: dict[str, int]
    left_over: list[str]
    parameters_sha256: str
    replay_is_exact: bool
    replay_s: float
    server_times_s: dict[str, float]
    machine: dict[str, str | int]
    shown: list[Sample]


def run_soak(
    config: Config,
    path: Path,
    *,
    minutes: float,
    seed: int = 0,
    every: int = EVERY,
    bound_mb_per_h: float = BOUND_MB_PER_H,
    say: Callable[[str], None] = lambda line: None,
    stops: StopRequests | None = None,
) -> SoakResult:
    """Train for so many minutes while workers join and leave by a seeded script, and look at everything afterwards.

    Args: config: resolved; its address and its budget in seconds are set here; path: the run's directory, new; minutes:
    of training; seed: of the script; every: versions between two of its steps, on average; bound_mb_per_h: what every
    process's memory must grow less than; say: takes lines about how it goes; stops: requests to stop.
    Errors: RunError when the training fails or hangs, Interrupted.
    """
    shared_before = set(os.listdir(_SHARED_MEMORY))
    with tempfile.TemporaryDirectory(prefix="asgd-soak-") as folder:
        temporary = Path(folder) / "tmp"
        temporary.mkdir()
        address = f"ipc://{temporary}/server"
        config = msgspec.structs.replace(
            config,
            cluster=msgspec.structs.replace(config.cluster, address=address),
            budget=msgspec.structs.replace(config.budget, time_s=60 * minutes),
        )
        file = Path(folder) / "soak.toml"
        file.write_text(to_toml(config))
        course = Course(
            path=path.absolute(),
            config=file,
            address=address,
            mark=secrets.token_hex(8),
            temporary=temporary,
            script=steps(seed, every),
            every_s=min(1.0, 60 * minutes / 200),
            limit_s=60 * minutes,
            say=say,
            stops=stops or StopRequests(),
        )
        course.run()
        left = [f"process {pid}" for pid in marked(course.mark)]
        left += [f"{each.relative_to(temporary)} among the temporary files" for each in sorted(temporary.rglob("*"))]
        left += [f"{_SHARED_MEMORY / name}" for name in sorted(set(os.listdir(_SHARED_MEMORY)) - shared_before)]
    say("the books, and the replay")
    return _result(course, left, minutes, seed, every, bound_mb_per_h)


def _result(
    course: Course, left: list[str], minutes: float, seed: int, every: int, bound_mb_per_h: float
) -> SoakResult:
    sizes = file_sizes(course.path)
    run = Run(course.path)
    summary = run.summary
    books = check_trace(run.trace, summary.outstanding)
    again = replay(course.path, check=True)
    flat = judge(course.samples)
    problems = problems_of(flat, bound_mb_per_h, course.faults(), left, books)
    if not again.is_exact:
        problems.append(f"the replay differs: {again.differences[0]}")
    if not summary.finished:
        problems.append(f"the training ended before its time: {summary.stopped_because}")
    return SoakResult(
        problems=problems,
        minutes=minutes,
        seed=seed,
        every=every,
        bound_mb_per_h=bound_mb_per_h,
        versions=summary.versions,
        arrivals=summary.arrivals,
        lost=summary.lost,
        refused=summary.refused,
        restarts=summary.restarts,
        updates_per_s=summary.updates_per_s,
        wall_s=summary.wall_s,
        steps=dict(Counter(step.kind for step in course.done)),
        processes=len({(p.pid, p.born) for sample in course.samples for p in sample.processes}),
        flat=flat,
        quarters=pace(course.samples),
        file_bytes=sizes,
        left_over=left,
        parameters_sha256=summary.parameters_sha256,
        replay_is_exact=again.is_exact,
        replay_s=round(again.seconds, 1),
        server_times_s={
            name: round(value, 3)
            for name, value in msgspec.structs.asdict(summary.server).items()
            if name.endswith("_s")
        },
        machine={"platform": platform.platform(), "cores": os.cpu_count() or 0},
        shown=thinned(course.samples),
    )


def problems_of(
    flat: Sequence[Flat], bound_mb_per_h: float, faults: Sequence[str], left: Sequence[str], books: Sequence[str]
) -> list[str]:
    """Everything that doesn't hold, as sentences."""
    problems = [problem for each in flat for problem in each.problems(bound_mb_per_h)]
    there = {each.role for each in flat}
    problems += [f"no {role} lived through the last three quarters" for role in LONG_LIVED if role not in there]
    if not any(role.startswith("worker-") for role in there):
        problems.append("no worker lived through the last three quarters")
    return [*problems, *faults, *(f"left over: {each}" for each in left), *books]


def thinned(samples: Sequence[Sample]) -> list[Sample]:
    """Some of the training's samples, evenly spread, first and last among them."""
    inside = training(samples)
    if len(inside) <= SHOWN:
        return inside
    return [inside[round(place * (len(inside) - 1) / (SHOWN - 1))] for place in range(SHOWN)]


def as_dict(result: SoakResult) -> dict[str, Any]:
    """Plain values, for JSON; the samples without what the figure doesn't need."""
    plain = asdict(result) | {"shown": []}
    plain["shown"] = [_shown(sample) for sample in result.shown]
    return plain


def _shown(sample: Sample) -> dict[str, Any]:
    def of(p: Reading) -> list[Any]:
        return [p.pid, p.role, p.own_mb, p.files, p.threads]

    return {
        "time_s": sample.time_s,
        "version": sample.version,
        "file_bytes": sum(sample.file_bytes.values()),
        "processes": [of(p) for p in sample.processes],
    }


def table_of(result: SoakResult) -> Table:
    """What a person wants to see of it."""
    table = Table("process", "memory, MB", "change, MB/h (95%)", "open files", "threads", "CPU, s", box=None)
    for each in result.flat:
        table.add_row(
            each.role,
            f"{each.own_mb[0]:.1f} to {each.own_mb[1]:.1f}",
            f"{each.slope_mb_per_h:+.2f} ({each.low:+.2f} to {each.high:+.2f})",
            f"{each.files[0]:g} to {each.files[1]:g}",
            f"{each.threads[0]:g} to {each.threads[1]:g}",
            f"{each.cpu_s:.1f}",
        )
    return table


def lines_of(result: SoakResult) -> list[str]:
    """The rest, in lines."""
    done = ", ".join(f"{count} {kind}" for kind, count in sorted(result.steps.items()))
    first, last = result.quarters[0], result.quarters[-1]
    total = sum(result.file_bytes.values())
    return [
        f"{result.versions:,} updates in {result.wall_s:.0f} s ({result.updates_per_s:.0f}/s), {result.processes} "
        f"processes; by the script: {done}; {result.lost} jobs lost",
        f"the server's CPU time for an update: {first.server_us_per_update:.0f} us in the first quarter, "
        f"{last.server_us_per_update:.0f} us in the last",
        f"files: {total / 1e6:.1f} MB, {total / max(1, result.versions):.0f} bytes for an update",
        f"replay of {result.arrivals:,} arrivals: {'the same to the bit' if result.replay_is_exact else 'DIFFERS'}, in "
        f"{result.replay_s:.0f} s",
        *(result.problems or ["flat, nothing left over, the books balance"]),
    ]


def check_settings(config: Config) -> None:
    """ConfigError where a soak would say nothing."""
    if config.evaluation.evaluate != "during":
        given = config.evaluation.evaluate
        raise ConfigError(f"evaluation.evaluate = {given!r}: a soak watches the evaluator all the time: 'during'")
