"""`asgd chaos`: a cluster under faults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from asgd.cli.options import INTERRUPTED, AsJson, ConfigPath, DataRoot, Debug, Overrides, Overwrite, RunDir, app
from asgd.config import load_config, load_with_table
from asgd.run.display import open_console, write_line
from asgd.run.paths import default_run_directory
from asgd.run.signals import stopping_by_signals


@app.command("chaos")
def chaos_command(
    config: ConfigPath,
    kills: Annotated[int, typer.Option(help="Processes to kill, a fifth of them the server.", min=1)] = 200,
    seed: Annotated[int, typer.Option(help="Of the script of faults.", min=0)] = 0,
    every: Annotated[int, typer.Option(metavar="VERSIONS", help="Updates from one fault to the next.", min=1)] = 60,
    overrides: Overrides = None,
    run_dir: RunDir = None,
    data_root: DataRoot = None,
    overwrite: Overwrite = False,
    out: Annotated[Path | None, typer.Option(help="JSON file to write the result to.")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Kill, stop, delay and cut off a cluster's processes by a script; status 1 unless nothing was lost or doubled."""
    from asgd.bench.chaos.running import chaos_config, run_chaos
    from asgd.bench.chaos.script import make_script, versions_for
    from asgd.bench.chaos.survival import fault_table, verdict_table
    from asgd.bench.minibatch.machine import this_machine

    resolved = load_config(config, overrides or [])
    _, recovery, _ = load_with_table(config, "recovery", overrides or [])
    evaluator = resolved.evaluation.evaluate != "never"
    versions = versions_for(kills, every, evaluator=evaluator)
    script = make_script(seed, kills, resolved.cluster.num_workers, versions, evaluator=evaluator)
    resolved = load_config(resolved, [f"budget.versions={versions}", "budget.samples=0", "budget.gradients=0"])
    resolved = chaos_config(resolved, script, mode_is_set="mode" in recovery)
    console = open_console(json=as_json)

    def say(line: str) -> None:
        write_line(console, line)

    say(
        f"{versions:,} updates and {len(script)} faults, {kills} of them kills; recovery.mode = "
        f"{resolved.recovery.mode}; cluster.max_restarts and max_server_restarts = {resolved.cluster.max_restarts}"
    )
    command = f"asgd chaos {config} --kills {kills} --seed {seed} --every {every}"
    command += "".join(f" --set {override}" for override in overrides or [])
    with stopping_by_signals() as stops:
        path = run_dir or default_run_directory(config)
        machine = msgspec.to_builtins(this_machine(command))
        result = run_chaos(resolved, script, path, seed=seed, data_root=data_root, overwrite=overwrite, stops=stops,
                           machine=machine, say=say)  # fmt: skip
        interrupted = stops.asked
    text = json.dumps(result.to_dict(), indent=2)
    if out is not None:
        out.write_text(text + "\n")
    if as_json:
        print(text)
    else:
        tables = Console()
        tables.print(fault_table(result), verdict_table(result))
        tables.print("survived" if result.passed else "NOT survived")
    if not result.passed:
        raise typer.Exit(INTERRUPTED if interrupted else 1)
