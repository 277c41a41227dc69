"""`asgd advise`, `asgd whatif`: which method suits these workers, and what a run would have been with another."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console

from asgd.cli.bar import fraction_bar
from asgd.cli.columns import aligned
from asgd.cli.options import INTERRUPTED, AsJson, DataRoot, Debug, Overrides, Overwrite, app
from asgd.run.display import open_console, write_line
from asgd.run.signals import stopping_by_signals

if TYPE_CHECKING:
    from asgd.sim.advice import Advice
    from asgd.sim.whatif import Side, WhatIf


@app.command("advise")
def advise_command(
    run: Annotated[Path | None, typer.Argument(metavar="RUN", help="A run's directory.")] = None,
    times: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Seconds per gradient of each worker: a JSON list, or one number per line."),
    ] = None,
    noise: Annotated[
        float | None,
        typer.Option(metavar="RATIO", help="sigma^2/eps [default: estimated at the run's newest checkpoint]."),
    ] = None,
    minibatch_s: Annotated[
        float | None,
        typer.Option(
            "--minibatch-s", metavar="SECONDS", help="What mini-batch SGD needs [default: by the run's own time]."
        ),
    ] = None,
    data_root: DataRoot = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Predict from measured worker times how fast the methods are, and say which to use and why."""
    from asgd.sim.advising import advise

    advice = advise(run, times=times, noise=noise, minibatch_s=minibatch_s, data_root=data_root)
    if as_json:
        print(msgspec.json.encode(advice).decode())
    else:
        _show(open_console(json=False), advice)


MOST_ROWS = 16


def _show(console: Console, advice: Advice) -> None:
    from asgd.sim.advice import MEASURED_GAINS

    for line in [*_workers(advice), "", *_methods(advice), "", _noise(advice)]:
        write_line(console, line)
    faster = advice.asynchronous_per_s / advice.minibatch_per_s
    write_line(
        console,
        f"gradients/s by the speeds: asynchronous {advice.asynchronous_per_s:.4g}, mini-batch "
        f"{advice.minibatch_per_s:.4g} ({faster:.3g} times)",
    )
    low, middle, high = MEASURED_GAINS
    write_line(
        console,
        f"gains are mostly predicted too large: of those in `asgd bench advice` {low:.0%} to {high:.0%} were measured, "
        f"{middle:.0%} in the median",
    )
    for warning in advice.warnings:
        write_line(console, f"warning: {warning}")
    write_line(console, "")
    write_line(console, advice.sentence)
    chosen = next(one for one in advice.methods if one.name == advice.best)
    write_line(console, f"use it with: {' '.join(f'--set {shlex.quote(override)}' for override in chosen.overrides)}")


def _noise(advice: Advice) -> str:
    noise = advice.noise
    text = f"sigma^2/eps = {noise.ratio:.3g}, {noise.source}"
    if noise.source != "estimated":
        return text
    high = "no upper end" if noise.high is None else f"{noise.high:.3g}"
    return (
        f"{text} at version {noise.version} from {noise.gradients} gradients (95%: {noise.low:.3g} to {high}); "
        f"sigma^2 = {noise.sigma2:.3g} of one job's gradient, eps = ||grad f||^2 = {noise.gradient_norm2:.3g}"
    )


def _workers(advice: Advice) -> list[str]:
    """The workers' times; of many, those of the fastest and the slowest."""
    workers = sorted(advice.workers, key=lambda worker: worker.seconds)
    rows = [
        [str(worker.worker), f"{worker.seconds:.4g}", "given" if worker.jobs is None else str(worker.jobs)]
        for worker in workers
    ]
    half = MOST_ROWS // 2
    shown = rows if len(rows) <= MOST_ROWS else [*rows[:half], ["...", "...", "..."], *rows[-half:]]
    return aligned([["worker", "seconds per gradient", "jobs"], *shown])


def _methods(advice: Advice) -> list[str]:
    in_seconds = advice.methods[0].seconds is not None
    seconds = ["seconds"] if in_seconds else []
    head = ["method", "predicted time", *seconds, "gradients/s", "discarded", "mean delay", "steps smaller by"]
    rows = [head]
    for one in advice.methods:
        seconds = [] if one.seconds is None else [f"{one.seconds:.3g}"]
        counts = [f"{one.gradients_per_s:.4g}", f"{one.discarded_share:.0%}", f"{one.mean_delay:.1f}"]
        rows.append([one.label, f"{one.relative_time:.3f}", *seconds, *counts, f"{one.damping:.3g}"])
    rows.append(["(optimal, up to a constant)", f"{advice.optimal:.3f}", *[""] * (len(head) - 2)])
    return aligned(rows, left={0})


@app.command("whatif")
def whatif_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The directory of a run that has ended.")],
    overrides: Overrides = None,
    metric: Annotated[
        str | None, typer.Option(help="What is compared [default: test_accuracy, else test_loss].")
    ] = None,
    target: Annotated[
        float | None, typer.Option(help="Of the metric [default: the best level that both reached].")
    ] = None,
    run_dir: Annotated[Path | None, typer.Option("--run-dir", help="Keep the simulated run here.")] = None,
    data_root: DataRoot = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """What a run would have been with another method, rule or step size, at the times that its workers took."""
    from asgd.sim.whatif import whatif

    console = open_console(json=as_json)
    with stopping_by_signals() as stops, fraction_bar(console, "simulating") as progress:
        found = whatif(
            run,
            overrides or [],
            metric=metric,
            target=target,
            run_dir=run_dir,
            data_root=data_root,
            overwrite=overwrite,
            progress=lambda fraction, now_s: progress(fraction),
            stops=stops,
        )
    if as_json:
        print(msgspec.json.encode(found).decode())
    else:
        _show_whatif(console, found)
    if stops.asked and found.simulated.stopped_because.startswith("interrupted"):
        raise typer.Exit(INTERRUPTED)


def _show_whatif(console: Console, found: WhatIf) -> None:
    sides = [_side(side) for side in (found.recorded, found.simulated)]
    if found.level is not None:
        for side, shown in zip((found.recorded, found.simulated), sides, strict=True):
            reached = "not reached" if side.to_level_s is None else f"{side.to_level_s:.4g} s"
            shown[f"time to {found.metric} = {found.level:.4g}"] = reached
    rows = [["", "recorded", "would have been"], *([name, *(side[name] for side in sides)] for name in sides[0])]
    for line in aligned(rows, left={0}):
        write_line(console, line)
    write_line(console, "")
    for note in found.notes:
        write_line(console, f"note: {note}")
    write_line(console, found.sentence)
    if found.run_dir is not None:
        write_line(console, f"the simulated run is in {found.run_dir}")


def _side(side: Side) -> dict[str, str]:
    """The numbers of a run in words, by what they are."""
    options = "".join(f", {key} = {value}" for key, value in side.options.items())
    return {
        "method": f"{side.method}{options}",
        "rule": side.rule,
        "step size": f"{side.step_size:.4g}",
        "stopped because": side.stopped_because,
        "updates": f"{side.versions:,}",
        "gradients": f"{side.gradients:,}",
        "discarded": f"{side.discarded:,}",
        "training time": f"{side.wall_s:.4g} s",
        "gradients/s": f"{side.gradients_per_s:.4g}",
        "delay, mean": f"{side.mean_delay:.2f}",
        "delay, largest": str(side.max_delay),
        "test loss": "" if side.test_loss is None else f"{side.test_loss:.4g}",
        "test accuracy": "" if side.test_accuracy is None else f"{100 * side.test_accuracy:.2f}%",
    }
