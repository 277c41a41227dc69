"""`asgd tune`: the grid from options, progress, and the table."""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from asgd.cli.options import INTERRUPTED, AsJson, ConfigPath, DataRoot, Debug, Overrides, app
from asgd.config import load_config
from asgd.errors import ConfigError
from asgd.run.display import LINE_EVERY_S, open_console, write_line
from asgd.run.signals import stopping_by_signals
from asgd.sim.tune import DEFAULT_RANGE, PER_OCTAVE, octaves, tune
from asgd.sim.tuning import STEP_SIZE, Row, Tuning


@app.command("tune")
def tune_command(
    config: ConfigPath,
    step_sizes: Annotated[
        str | None, typer.Option("--step-sizes", metavar="A,B,...", help="The step sizes to try.")
    ] = None,
    lowest: Annotated[
        float | None,
        typer.Option("--from", help="Try 2^(k/per-octave) from here [default: 1/8 of the configured one]."),
    ] = None,
    highest: Annotated[float | None, typer.Option("--to", help="... to here [default: 8 times it].")] = None,
    per_octave: Annotated[int, typer.Option("--per-octave", help="Step sizes in a factor of 2.")] = PER_OCTAVE,
    also: Annotated[
        list[str] | None,
        typer.Option("--also", metavar="KEY=A,B,...", help="Another key with its values; may be repeated."),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Seeds for each point, from the configured one on.")] = 3,
    metric: Annotated[
        str, typer.Option(help="test_loss, train_loss, test_accuracy, or another that the task reports.")
    ] = "test_loss",
    score: Annotated[
        str, typer.Option(help="final (mean of the last 10% of the budget), time or gradients (to --target).")
    ] = "final",
    target: Annotated[float | None, typer.Option(help="Of the metric.")] = None,
    jobs: Annotated[int | None, typer.Option(help="Simulations at a time [default: one for each core].")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Keep the result here; what is in it isn't done again.")
    ] = None,
    overrides: Overrides = None,
    data_root: DataRoot = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Tune the step size (and other keys) in virtual time: a grid of simulations, in parallel over the cores."""
    resolved = load_config(config, overrides or [])
    console = open_console(json=as_json)
    with stopping_by_signals() as stops, _progress(console) as progress:
        tuning = tune(
            resolved,
            step_sizes=_step_sizes(step_sizes, lowest, highest, per_octave, resolved.method.step_size),
            also=all_also(also or []),
            seeds=seeds,
            metric=metric,
            score=score,  # type: ignore[arg-type]  # checked there
            target=target,
            jobs=jobs,
            out=out,
            data_root=data_root,
            progress=progress,
            stops=stops,
        )
    if as_json:
        sys.stdout.write(msgspec.json.encode(tuning).decode() + "\n")
    else:
        _show(console, tuning)
    if not tuning.complete:
        raise typer.Exit(INTERRUPTED)


def _step_sizes(
    given: str | None, lowest: float | None, highest: float | None, per_octave: int, configured: float
) -> list[float]:
    """The grid that the options say, around the configured step size where they say nothing."""
    if given is None:
        lowest = configured / DEFAULT_RANGE if lowest is None else lowest
        return octaves(lowest, configured * DEFAULT_RANGE if highest is None else highest, per_octave)
    if lowest is not None or highest is not None:
        raise ConfigError("--step-sizes lists the step sizes: it goes without --from and --to")
    try:
        return [float(part) for part in given.split(",")]
    except ValueError:
        raise ConfigError(f"--step-sizes {given}: allowed are numbers with commas, such as 0.1,0.2,0.4") from None


def all_also(given: list[str]) -> dict[str, list[Any]]:
    """The keys and values of all options --also."""
    pairs = [_also(one) for one in given]
    for place, (key, _) in enumerate(pairs):
        if key in [before for before, _ in pairs[:place]]:
            raise ConfigError(
                f"--also {given[place]}: {key} was given before; allowed is each key once, with all values"
            )
    return dict(pairs)


def _also(given: str) -> tuple[str, list[Any]]:
    """The key and the values of "key=1.1,1.5,2"; each value as TOML, or else taken as text."""
    key, equals, values = given.partition("=")
    if not equals or not key.strip() or not values.strip():
        raise ConfigError(f"--also {given}: allowed is key=value,value,... such as method.options.q=1.1,1.5,2")
    return key.strip(), [_value(part.strip()) for part in values.split(",")]


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except ValueError:
        return text


@contextlib.contextmanager
def _progress(console: Console) -> Iterator[Callable[[int, int], None]]:
    """What takes the simulations that have ended and all of them: a bar on a terminal, else a line now and then."""
    began_s, first, line_s = time.monotonic(), -1, -LINE_EVERY_S

    def write(done: int, total: int) -> None:
        nonlocal first, line_s
        first = done if first < 0 else first
        now_s = time.monotonic() - began_s
        if now_s - line_s >= LINE_EVERY_S or done in (first + 1, total):
            line_s = now_s
            left = f", {(total - done) * now_s / (done - first):.0f} s left" if first < done < total else ""
            write_line(console, f"{done} of {total} simulations{left}")

    if not console.is_terminal:
        yield write
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("simulations", total=None)

        def update(done: int, total: int) -> None:
            if bar.tasks[0].total is None:
                bar.reset(task, total=total, completed=done)  # so that what was there already isn't taken for speed
            bar.update(task, completed=done)

        yield update


def _show(console: Console, tuning: Tuning) -> None:
    """The table in the order of the grid, and what it comes to."""
    seeds = f"{len(tuning.seeds)} seeds from {tuning.seeds[0]} on" if len(tuning.seeds) > 1 else "one seed"
    write_line(console, f"score: {tuning.goal}; {seeds}, mean ± standard error")
    write_line(console, "")
    keys = ["step size" if key == STEP_SIZE else key for key in tuning.grid]
    table = [[*keys, "score", "updates", "discarded", ""]]
    for row in tuning.rows:
        values = [_shown(row.values[key]) for key in tuning.grid]
        counts = [f"{row.versions:,.0f}", f"{row.discarded_share:.1%}"] if row.seeds else ["", ""]
        mark = "best" if row.best else "best step size" if row.best_step_size else ""
        table.append([*values, _score(row, len(tuning.seeds)), *counts, mark])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    left = (len(keys), len(keys) + 3)  # the columns of words; numbers stand on the right
    for cells in table:
        padded = [f"{cell:{'<' if i in left else '>'}{widths[i]}}" for i, cell in enumerate(cells)]
        write_line(console, "  ".join(padded).rstrip())
    write_line(console, "")
    if tuning.best is not None:
        options = " ".join(f"--set {shlex.quote(override)}" for override in tuning.overrides)
        write_line(console, f"best: {', '.join(f'{key} = {_shown(v)}' for key, v in tuning.best.values.items())}")
        write_line(console, f"use it with: {options}")
    for warning in tuning.warnings:
        write_line(console, f"warning: {warning}")
    if not tuning.complete:
        write_line(console, "interrupted: this is what was measured until then")


def _score(row: Row, num_seeds: int) -> str:
    if not row.seeds:
        return "-"
    failures = [(row.diverged, "diverged"), (row.missed, "not reached")]
    text = ", ".join(f"{what} ({count} of {row.seeds})" for count, what in failures if count)
    if row.score is not None:
        error = "" if row.standard_error is None else f" ± {row.standard_error:.2g}"
        text = f"{row.score:.4g}{error}"
    return text if row.seeds == num_seeds else f"{text} [{row.seeds} of {num_seeds} seeds]"


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
