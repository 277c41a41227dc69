"""`asgd bench soak`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from asgd.cli.options import AsJson, ConfigPath, Debug, Overrides, RunDir, bench_app
from asgd.config import load_config
from asgd.run.build import validate
from asgd.run.paths import default_run_directory
from asgd.run.signals import stopping_by_signals

WIDTH = 118  # of the table in a file or a pipe


@bench_app.command("soak")
def soak_command(
    config: ConfigPath,
    minutes: Annotated[float, typer.Option(help="Of training.", min=0.25)] = 60.0,
    seed: Annotated[int, typer.Option(help="Of the script of joins and leaves.", min=0)] = 0,
    every: Annotated[int, typer.Option(help="Updates between two joins or leaves, on average.", min=10)] = 5000,
    bound: Annotated[
        float, typer.Option(help="MB/h that the memory of every process must change by less than.", min=0.0)
    ] = 4.0,
    overrides: Overrides = None,
    run_dir: RunDir = None,
    out: Annotated[Path | None, typer.Option(help="JSON file to write the result to.")] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Draw memory, open files and threads, as FIGURE.png and FIGURE.svg.")
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """A cluster for an hour while workers join and leave: does anything grow, leak or stay? Status 1 if it does."""
    from asgd.bench.soak.soak import as_dict, check_settings, lines_of, run_soak, table_of

    resolved = load_config(config, overrides or [])
    validate(resolved)
    check_settings(resolved)
    progress = Console(stderr=True)
    with stopping_by_signals() as stops:
        result = run_soak(
            resolved,
            run_dir or default_run_directory(config),
            minutes=minutes,
            seed=seed,
            every=every,
            bound_mb_per_h=bound,
            say=lambda line: progress.print(line, highlight=False),
            stops=stops,
        )
    plain = as_dict(result)
    if out is not None:
        out.write_text(json.dumps(plain) + "\n")
    if figure is not None:
        from asgd.bench.soak.picture import SoakPicture
        from asgd.report.plots import draw

        draw(SoakPicture(figure.name, plain["shown"]), figure.parent)
    if as_json:
        print(json.dumps(plain))
    else:
        console = Console()
        Console(width=console.width if console.is_terminal else WIDTH).print(table_of(result))
        for line in lines_of(result):
            print(line)
    if result.problems:
        raise typer.Exit(1)
