"""`asgd report`: a page about one run or several."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from asgd.cli.options import AsJson, Debug, app
from asgd.config import Config
from asgd.errors import RunError
from asgd.run.display import write_line


@app.command("report")
def report_command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Directories of runs; several are compared.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="The page, FILE.html; its figures go into the folder FILE "
            "[default: RUN/report.html, for several runs report.html]."
        ),
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write a page with plots and tables of runs (HTML, opens from disk), and its figures as PNG and SVG."""
    from asgd.report.writing import write_report

    report = write_report(runs, out)
    if as_json:
        written = {"report": str(report.page), "figures": [str(path) for path in report.figures]}
        print(json.dumps(written | msgspec.to_builtins(report.comparison)))
    else:
        print(f"wrote {report.page} and {len(report.figures)} figures in {report.page.with_suffix('')}/")


def leave_report(path: Path, config: Config, console: Console) -> Path | None:
    """Write report.html of a run that has just ended, if it is to have one, without the figures as files; says where it
    is, or why there is none, and returns it. The run has ended well whatever becomes of its report.
    """
    if not config.records.report:
        return None
    from asgd.report.writing import write_report

    try:
        page = write_report(path, figures=False).page
    except RunError as error:
        write_line(console, f"no report: {error}")
        return None
    except KeyboardInterrupt:
        write_line(console, f"no report: interrupted (asgd report {path} draws it)")
        return None
    write_line(console, f"report: {page}")
    return page
