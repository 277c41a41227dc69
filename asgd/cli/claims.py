"""`asgd claims`: the paper's claims as a table, with plots."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from asgd.cli.options import AsJson, Debug, app
from asgd.errors import ConfigError
from asgd.run.files import reason_of, write_atomically

if TYPE_CHECKING:
    from asgd.bench.claims import Outcome


@app.command("claims")
def claims_command(
    only: Annotated[str | None, typer.Option(help="Numbers of the claims to check, e.g. 1,4 [default: all].")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Smaller settings and fewer seeds.")] = False,
    real: Annotated[bool, typer.Option(help="Check claims 1 and 4 on real processes too.")] = True,
    out: Annotated[
        Path, typer.Option(help="Folder for the plots and claims.json; results of other claims in it are kept.")
    ] = Path("claims"),
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
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {out}: the folder can't be made: {reason_of(error)}") from error
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does, with nothing left behind
    file = out / "claims.json"
    kept, results = _read(file), {}
    for number in numbers:
        claim, started_s = CLAIMS[number], time.monotonic()
        effort.say(f"claim {number}: {claim.title} ...")
        outcome = claim.check(effort)
        seconds = time.monotonic() - started_s
        for plot in outcome.plots:
            draw(plot, out)
        results[str(number)] = {
            "title": claim.title, "where": claim.where, "quick": quick, "real": real, "seconds": round(seconds, 1),
            **outcome.to_dict(),
        }  # fmt: skip
        # After each claim: an interrupt costs no more than the one that is being checked.
        kept = dict(sorted((kept | results).items()))
        write_atomically(file, (json.dumps({"claims": kept}, indent=1) + "\n").encode())
        if not as_json:
            _show(number, claim.title, claim.where, outcome)
    if as_json:
        print(json.dumps({"claims": results}))
    else:
        _show_all(results)


def _read(file: Path) -> dict[str, Any]:
    """The results of other claims that are in the file, which are kept; ConfigError for a file of something else."""
    if not file.exists():
        return {}
    try:
        kept = json.loads(file.read_text())["claims"]
        if isinstance(kept, dict):
            return kept
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise ConfigError(f"--out {file.parent}: its {file.name} is no file of claims; remove it, or name another folder")


def _show(number: int, title: str, where: str, outcome: Outcome) -> None:
    table = Table(title=f"Claim {number}: {title} ({where})", title_justify="left")
    for column in ("setting", "predicted", "measured [95% interval]", "verdict"):
        table.add_column(column, overflow="fold")
    for row in outcome.rows:
        table.add_row(*(escape(text) for text in (row.setting, row.predicted, str(row.measured), row.verdict)))
    console = Console()
    console.print(table)
    console.print(f"{outcome.verdict}: {outcome.finding}\n", highlight=False, markup=False)


def _show_all(results: dict[str, Any]) -> None:
    table = Table(title="All claims", title_justify="left", show_lines=True)
    for column in ("", "claim", "where", "verdict", "finding"):
        table.add_column(column, overflow="fold")
    for number, result in results.items():
        columns = (result["title"], result["where"], result["verdict"], result["finding"])
        table.add_row(number, *(escape(text) for text in columns))
    Console().print(table)
