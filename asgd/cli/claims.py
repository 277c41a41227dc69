"""`asgd claims`: the paper's claims as a table, with plots."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from asgd.cli.options import AsJson, Debug, app
from asgd.errors import ConfigError
from asgd.run.files import write_atomically

if TYPE_CHECKING:
    from asgd.bench.claims import Outcome


@app.command("claims")
def claims_command(
    only: Annotated[str | None, typer.Option(help="Numbers of the claims to check, e.g. 1,4 [default: all].")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Smaller settings and fewer seeds.")] = False,
    real: Annotated[bool, typer.Option(help="Check claims 1 and 4 on real processes too.")] = True,
    out: Annotated[Path, typer.Option(help="Folder for the plots and claims.json.")] = Path("claims"),
    jobs: Annotated[int, typer.Option(help="Processes at once [default: one per core].", min=0)] = 0,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Check the paper's claims: predicted, measured with interval, verdict; the plots go to --out."""
    from asgd.bench.claims import CLAIMS, Effort, chosen
    from asgd.report.plots import draw

    numbers = chosen(only)
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out}: it is a file; allowed is a folder")
    # Progress goes to standard error, so that the tables (or the JSON object) are all that is on standard output.
    progress = Console(stderr=True)
    effort = Effort(quick, real, jobs or os.cpu_count() or 1, lambda line: progress.print(line, highlight=False))
    whole: dict[str, Any] = {"quick": quick, "real": real, "claims": {}}
    out.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        claim, started_s = CLAIMS[number], time.monotonic()
        effort.say(f"claim {number}: {claim.title} ...")
        outcome = claim.check(effort)
        seconds = time.monotonic() - started_s
        for plot in outcome.plots:
            draw(plot, out)
        whole["claims"][str(number)] = {
            "title": claim.title, "where": claim.where, "seconds": round(seconds, 1), **outcome.to_dict()
        }  # fmt: skip
        # After each claim: an interrupt costs no more than the one that is being checked.
        write_atomically(out / "claims.json", (json.dumps(whole, indent=1) + "\n").encode())
        if not as_json:
            _show(number, claim.title, claim.where, outcome)
    if as_json:
        print(json.dumps(whole))
    else:
        _show_all(whole["claims"])


def _show(number: int, title: str, where: str, outcome: Outcome) -> None:
    table = Table(title=f"Claim {number}: {title} ({where})", title_justify="left")
    for column in ("setting", "predicted", "measured [95% interval]", "verdict"):
        table.add_column(column, overflow="fold")
    for row in outcome.rows:
        table.add_row(row.setting, row.predicted, str(row.measured), row.verdict)
    console = Console()
    console.print(table)
    console.print(f"{outcome.verdict}: {outcome.finding}\n", highlight=False)


def _show_all(results: dict[str, Any]) -> None:
    table = Table(title="All claims", title_justify="left", show_lines=True)
    for column in ("", "claim", "where", "verdict", "finding"):
        table.add_column(column, overflow="fold")
    for number, result in results.items():
        table.add_row(number, result["title"], result["where"], result["verdict"], result["finding"])
    Console().print(table)
