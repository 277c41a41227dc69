"""Writing a report: the page, and its figures as files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from asgd.errors import ConfigError, RunError
from asgd.report.comparison import Comparison, compare
from asgd.report.delays import delay_exhibits
from asgd.report.learning import learning_exhibits
from asgd.report.page import make_page
from asgd.report.plots import draw
from asgd.report.reading import read_records
from asgd.report.timeline import timeline_exhibits
from asgd.report.times import time_exhibits
from asgd.report.workers import worker_exhibits
from asgd.run.files import reason_of, write_atomically
from asgd.run.result import Run

PAGE = "report.html"


@dataclass(frozen=True)
class Report:
    """What was written: the page, the figures (PNG and SVG of each), and the runs' numbers."""

    page: Path
    comparison: Comparison
    figures: list[Path] = field(default_factory=list)


def write_report(
    runs: Run | Path | str | Sequence[Run | Path | str], out: Path | str | None = None, *, figures: bool = True
) -> Report:
    """Write a page with plots and tables of a run, or of several laid over each other.

    Args:
        runs: a run or several, as `Run` or as their directories; those that haven't ended may be among them.
        out: the page, a name that ends in .html; by default report.html in the directory of a single run, and in the
            working directory for several.
        figures: write the figures into a folder called as the page without .html, too.

    Errors: ConfigError for no run, one given twice, or another ending; RunError for what is no run, damaged, or can't
    be written.

    Example:
        report = asgd.write_report(["runs/asynchronous", "runs/minibatch"], "comparison.html")
        print(report.page, report.comparison.runs[0].samples_per_s)
    """
    given = [runs] if isinstance(runs, Run | Path | str) else runs
    paths = [run.path if isinstance(run, Run) else Path(run) for run in given]
    records = read_records(paths)
    page = Path(out) if out is not None else paths[0] / PAGE if len(paths) == 1 else Path(PAGE)
    if page.suffix != ".html" or page.is_dir():
        raise ConfigError(f"--out {page}: allowed is a file whose name ends in .html")
    comparison = compare(records)
    sections = [
        ("Loss and accuracy", learning_exhibits(records)),
        ("Delays and step sizes", delay_exhibits(records)),
        ("Workers", [*timeline_exhibits(records), *worker_exhibits(records)]),
        ("Where the time went", time_exhibits(records)),
    ]
    text = make_page(records, comparison, sections)
    pictures = [exhibit.picture for _, exhibits in sections for exhibit in exhibits if exhibit.picture is not None]
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        files = [file for picture in pictures if figures for file in draw(picture, page.with_suffix(""))]
        write_atomically(page, text.encode(errors="replace"))
    except OSError as error:
        raise RunError(f"The report {page} can't be written: {reason_of(error)}.") from error
    return Report(page, comparison, files)
