"""`asgd train`, `asgd simulate`: whole runs, with the display that suits standard output."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console

from asgd.api import resume, resumed_config, simulate, train
from asgd.cli.bar import fraction_bar
from asgd.cli.options import INTERRUPTED, AsJson, ConfigPath, DataRoot, Debug, Overrides, Overwrite, RunDir, app
from asgd.cli.reporting import leave_report
from asgd.config import Config, load_config
from asgd.errors import ConfigError
from asgd.run.display import make_display, open_console, write_line
from asgd.run.formats import Summary
from asgd.run.paths import default_run_directory
from asgd.run.signals import StopRequests, stopping_by_signals


@app.command("train")
def train_command(
    config: Annotated[
        Path | None, typer.Argument(metavar="CONFIG", help="The run's configuration, a TOML file.")
    ] = None,
    overrides: Overrides = None,
    run_dir: RunDir = None,
    data_root: DataRoot = None,
    resume_run: Annotated[bool, typer.Option("--resume", help="Go on with the run in --run-dir.")] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Train with a whole cluster on this machine: server, workers and evaluator as processes."""
    if resume_run and (run_dir is None or overwrite):
        raise ConfigError("--resume goes on with an existing run: it needs --run-dir and goes without --overwrite")
    if not resume_run and config is None:
        raise ConfigError("asgd train needs a CONFIG (or --resume with --run-dir)")
    if resume_run and run_dir:
        train_and_show(resumed_config(run_dir, config, overrides or []), run_dir, data_root, True, False, as_json)
    elif config:
        path = run_dir or default_run_directory(config)
        train_and_show(load_config(config, overrides or []), path, data_root, False, overwrite, as_json)


def train_and_show(
    config: Config,
    path: Path,
    data_root: Path | None = None,
    resume_run: bool = False,
    overwrite: bool = False,
    as_json: bool = False,
) -> None:
    """Train with the display that suits standard output, print the result, and end as an interrupted run must."""
    title = f"{path.name}: {config.method.name}, {config.cluster.num_workers} workers"
    console = open_console(json=as_json)
    with stopping_by_signals() as stops, make_display(console, config.cluster.num_workers, title) as display:
        if resume_run:
            run = resume(path, config, data_root=data_root, display=display, stops=stops)
        else:
            run = train(config, run_dir=path, data_root=data_root, overwrite=overwrite, display=display, stops=stops)
        display.finished(rows_of(run.summary, path, config))
    tell_ended(console, run.summary, path, config, as_json)
    exit_as(run.summary, stops)


def show_ended(console: Console, summary: Summary, path: Path, config: Config) -> None:
    """Show the final table of a run that nothing showed while it went on."""
    with make_display(console, config.cluster.num_workers, path.name) as display:
        display.finished(rows_of(summary, path, config))


def tell_ended(console: Console, summary: Summary, path: Path, config: Config, as_json: bool) -> None:
    """Leave the report of a run that has ended, and print its JSON object if that is wanted."""
    page = leave_report(path, config, console)
    if as_json:
        print(json.dumps({"run": str(path), "report": page and str(page)} | msgspec.to_builtins(summary)))


def exit_as(summary: Summary, stops: StopRequests) -> None:
    """Exit with the status of an interrupted run, if it was: in its training, or in the evaluations after it."""
    if summary.stopped_because.startswith("interrupted") or (stops.asked and summary.evaluations_missing):
        raise typer.Exit(INTERRUPTED)


def rows_of(summary: Summary, path: Path, config: Config) -> list[Any]:
    """The final table of a run; with different data on the workers, how differently they count."""
    delay = summary.delay
    rows: list[tuple[str, str]] = [
        ("run", str(path)),
        ("stopped because", summary.stopped_because),
        ("updates", f"{summary.versions:,} ({summary.updates_per_s:.1f}/s)"),
        ("gradients", f"{summary.arrivals:,} ({summary.discarded:,} discarded, {summary.lost:,} lost)"),
        ("samples", f"{summary.samples:,} ({summary.samples_per_s:,.0f}/s)"),
        ("training time", f"{summary.wall_s:.1f} s (after {summary.startup_s:.1f} s to start)"),
        ("concurrency", f"{summary.concurrency}"),
        ("delay", f"mean {delay.mean_applied:.2f}, average with jobs in flight {delay.average:.2f}, max {delay.max}"),
        ("server busy", f"{100 * summary.server.busy_fraction:.0f}% of the time"),
    ]
    if config.task.partition != "iid" and summary.used:
        rows.append(("share of gradients", _extremes({w: part.share for w, part in summary.workers.items()})))
        rows.append(("share of steps", _extremes({w: part.weight for w, part in summary.workers.items()})))
    if summary.test_loss is not None:
        rows.append(("test loss", f"{summary.test_loss:.4g}"))
    if summary.test_accuracy is not None:
        rows.append(("test accuracy", f"{100 * summary.test_accuracy:.2f}%"))
    return rows


def _extremes(shares: Mapping[int, float]) -> str:
    """The smallest and the largest share, with the worker that has it."""
    least, most = min(shares, key=shares.__getitem__), max(shares, key=shares.__getitem__)
    return f"{100 * shares[least]:.1f}% (worker {least}) to {100 * shares[most]:.1f}% (worker {most})"


@app.command("simulate")
def simulate_command(
    config: ConfigPath,
    overrides: Overrides = None,
    run_dir: RunDir = None,
    data_root: DataRoot = None,
    times: Annotated[
        Path | None, typer.Option(help="A real run whose recorded times take the place of cluster.speeds.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Run a configuration in virtual time: the same core and task, no processes, no waiting."""
    path = run_dir or default_run_directory(config)
    console = open_console(json=as_json)
    with stopping_by_signals() as stops, fraction_bar(console, "simulating") as progress:
        run = simulate(
            config,
            overrides or [],
            run_dir=path,
            data_root=data_root,
            overwrite=overwrite,
            times=times,
            progress=lambda fraction, now_s: progress(fraction),
            say=(lambda line: None) if as_json else (lambda line: write_line(console, line)),
            stops=stops,
        )
    if not as_json:
        show_ended(console, run.summary, path, run.config)
    tell_ended(console, run.summary, path, run.config, as_json)
    if stops.asked and not run.summary.finished:  # the reason alone may be that of the run which gave the times
        raise typer.Exit(INTERRUPTED)
