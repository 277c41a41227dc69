"""`asgd bench minibatch`: options to a plan, progress, the tables and figures."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn

from asgd.cli.options import AsJson, DataRoot, Debug, Overrides, bench_app
from asgd.cli.tuning import all_also
from asgd.errors import ConfigError, Interrupted, RunError
from asgd.run.display import LINE_EVERY_S, open_console, write_line
from asgd.run.files import reason_of
from asgd.run.signals import stopping_by_signals
from asgd.run.status import duration_text

WIDTH = 118  # of tables in a file or a pipe

if TYPE_CHECKING:
    from asgd.bench.minibatch.study import Step


@bench_app.command("minibatch")
def minibatch_command(
    config: Annotated[
        Path | None,
        typer.Argument(
            metavar="[CONFIG]",
            help="A run's configuration, with budget.time_s; [benchmark] may say more, as in configs/benchmark_*.toml.",
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="quick (generated images, 5 minutes), cifar10, stragglers (all emulated speeds) or heterogeneous "
            "(different data): configs/benchmark_NAME.toml."
        ),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(metavar="NAME[:RULE],...", help="The contenders; mini-batch SGD always is one."),
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Measured runs of each contender, with fresh seeds.")] = None,
    target: Annotated[float | None, typer.Option(help="Of the metric (benchmark.metric).")] = None,
    also: Annotated[
        list[str] | None,
        typer.Option("--also", metavar="KEY=A,B,...", help="Another key to tune for all; may be repeated."),
    ] = None,
    ddp: Annotated[bool, typer.Option("--ddp", help="PyTorch's DistributedDataParallel too.")] = False,
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of results.json, figures and runs; what is there isn't done again [default: "
            "runs/benchmark_NAME]."
        ),
    ] = None,
    jobs: Annotated[int | None, typer.Option(help="Simulations at a time [default: one for each core].", min=1)] = None,
    data_root: DataRoot = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Asynchronous SGD against mini-batch SGD on real processes: step sizes tuned alike, throughput, time to a target.

    The default contenders are asynchronous:constant, asynchronous:scale and minibatch. What is in the file can be
    replaced by --set, [benchmark] too (--set benchmark.lowest=0.01), but for what each contender has of its own: its
    name, rule and options, and the step size. The measured seeds, and those of tuning, count from `seed` on.
    """
    from asgd.bench.minibatch.figures import figures
    from asgd.bench.minibatch.machine import this_machine
    from asgd.bench.minibatch.plan import load_plan, preset_file
    from asgd.bench.minibatch.results import RESULTS, open_record
    from asgd.bench.minibatch.study import Study
    from asgd.bench.minibatch.table import conclude, tables
    from asgd.report.plots import draw
    from asgd.run.paths import resolve_data_root
    from asgd.sim.result_files import encode_result, write_result

    if (config is None) == (preset is None):
        raise ConfigError("asgd bench minibatch: give a CONFIG or --preset quick, cifar10, stragglers or heterogeneous")
    source = preset_file(preset) if preset is not None else config
    assert source is not None
    name = preset or source.stem
    changed: dict[str, Any] = {"seeds": seeds, "target": target}
    changed = {key: value for key, value in changed.items() if value is not None}
    if methods is not None:
        changed["methods"] = [part.strip() for part in methods.split(",")]
    if also:
        changed["also"] = all_also(also)
    if ddp:
        changed["ddp"] = True
    plan = load_plan(source, overrides or [], name=name, changed=changed)
    folder = out or Path("runs") / f"benchmark_{name}"
    record = open_record(folder, plan, this_machine(f"asgd {shlex.join(sys.argv[1:])}"))
    console = open_console(json=as_json)
    root = resolve_data_root(data_root)
    if record.complete:
        write_line(console, f"{folder} has all of it: nothing is measured again (another --out does)")
    else:
        with stopping_by_signals() as stops, progress(console) as hear:
            cores = len(os.sched_getaffinity(0))
            study = Study(plan, record, folder, root, jobs=jobs or cores, stops=stops, hear=hear)
            try:
                study.run()
            except Interrupted as error:
                raise Interrupted(f"{error}; what was done is in {folder}, and the same command goes on") from error
    rows = conclude(plan, record)
    write_result(folder / RESULTS, record)
    try:
        paths = [path for plot in figures(plan, record, rows) for path in draw(plot, folder)]
    except OSError as error:
        raise RunError(f"the figures can't be written into {folder}: {reason_of(error)}; {RESULTS} is there") from error
    if as_json:
        sys.stdout.write(encode_result(record).decode())
        return
    if not console.is_terminal:
        console.width = max(console.width, WIDTH)
    for table in tables(plan, rows):
        console.print(table)
    for line in [*record.protocol, *(f"warning: {warning}" for warning in record.warnings)]:
        write_line(console, line)
    write_line(console, f"{folder / RESULTS}, runs/ and {len(paths)} figures beside it")


@contextlib.contextmanager
def progress(console: Console) -> Iterator[Callable[[Step], None]]:
    """What takes the steps of a benchmark: a bar with the time left on a terminal, and lines."""
    line_s = -LINE_EVERY_S

    def write(step: Step) -> None:
        nonlocal line_s
        now_s = time.monotonic()
        if step.line is not None:
            write_line(console, step.line)
        elif now_s - line_s >= LINE_EVERY_S:
            line_s = now_s
            write_line(console, f"{step.done} of {step.total}: {step.doing}, {duration_text(step.left_s)} left")

    if not console.is_terminal:
        yield write
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]}"))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("beginning", total=None, left="")
        began_s = time.monotonic()

        def update(step: Step) -> None:
            if step.line is not None:
                bar.console.print(step.line, highlight=False, markup=False)
            passed_s = time.monotonic() - began_s
            bar.update(
                task, description=f"{step.done} of {step.total} {escape(step.doing)}", completed=passed_s,
                total=passed_s + step.left_s, left=f"{duration_text(step.left_s)} left",
            )  # fmt: skip

        yield update
