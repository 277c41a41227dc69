"""`asgd bench hostile`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from asgd.cli.options import AsJson, Debug, bench_app


@bench_app.command("hostile")
def hostile_command(
    frames: Annotated[int, typer.Option(help="Hostile messages.", min=1)] = 1_000_000,
    versions: Annotated[
        int | None,
        typer.Option(help="Updates of each run; the attack must end before them [400 + frames / 80].", min=1),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the attack.", min=0)] = 0,
    out: Annotated[Path | None, typer.Option(help="JSON file to write the result to.")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Four workers train alone and under hostile frames: the parameters must be the same; status 1 if they aren't."""
    from asgd.bench.hostile import as_dict, run_hostile, table_of, versions_for

    progress = Console(stderr=True)
    result = run_hostile(
        frames, versions or versions_for(frames), seed=seed, say=lambda line: progress.print(line, highlight=False)
    )
    text = json.dumps(as_dict(result), indent=2)
    if out is not None:
        out.write_text(text + "\n")
    if as_json:
        print(text)
    else:
        Console().print(table_of(result))
        print("the same to the bit" if result.same else "NOT the same")
        if not result.frames_in_training:
            print("the attack went on after the training had ended: train for longer (--versions)")
    if not (result.same and result.frames_in_training):
        raise typer.Exit(1)
