"""`asgd replay`: a run computed again and compared with its record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from asgd.cli.bar import fraction_bar
from asgd.cli.options import AsJson, DataRoot, Debug, app
from asgd.errors import ConfigError, RunError
from asgd.run.display import open_console, write_line

if TYPE_CHECKING:
    from asgd.run.replay import Replay

_SHOWN = 10


@app.command("replay")
def replay_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's directory.")],
    until: Annotated[int | None, typer.Option(metavar="VERSION", help="Stop at this version.")] = None,
    export: Annotated[
        Path | None, typer.Option(metavar="FILE.safetensors", help="Write the model at the end of the replay.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 at the first difference.")] = False,
    data_root: DataRoot = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Compute a run again from its journal and seeds in one process, and compare it with its record to the bit."""
    if until is not None and until < 0:
        raise ConfigError(f"--until {until}: allowed is a version, a whole number of at least 0")
    if export is not None and export.suffix != ".safetensors":
        raise ConfigError(f"--export {export}: its name must end in .safetensors")
    from asgd.api import replay

    console = open_console(json=as_json)
    with fraction_bar(console, "replaying", shown=not as_json) as progress:
        result = replay(run, until=until, check=check, data_root=data_root, progress=progress)
    exported = export if result.is_exact else None  # another model than the run's isn't what was asked for
    if exported is not None:
        result.export(exported)
    if as_json:
        print(json.dumps(result.to_dict() | ({} if exported is None else {"file": str(exported)})))
    else:
        _tell(console, result, exported)
    if not result.is_exact and export is not None:
        raise RunError(f"{export} was not written: the model computed again is not the run's")
    if check and not result.is_exact:
        raise typer.Exit(1)


def _tell(console: Console, result: Replay, export: Path | None) -> None:
    lines = [f"environment: {line}" for line in result.environment]
    lines += result.notes
    lines += [difference.sentence() for difference in result.differences[:_SHOWN]]
    if result.num_differences > _SHOWN:
        lines.append(f"... and {result.num_differences - _SHOWN:,} more differences")
    times = "1 restart" if result.restarts == 1 else f"{result.restarts} restarts"
    restarts = f", {times} of the server" if result.restarts else ""
    what = (
        f"{result.arrivals:,} arrivals, {result.jobs:,} gradients computed again up to version {result.version:,}"
        f"{restarts}, in {result.seconds:.1f} s"
    )
    verdict = "the same to the bit" if result.is_exact else f"differences: {result.num_differences:,}"
    lines.append(f"{verdict}: {what}" if result.is_exact else f"{verdict}; {what}")
    if not result.is_exact and not result.environment:
        lines.append("the task's code or data, or the record, may have been changed since")
    compared = " (that of the record)" if result.recorded_sha256 == result.parameters_sha256 else ""
    lines.append(f"parameters_sha256 {result.parameters_sha256}{compared}")
    if export is not None:
        lines.append(f"wrote {export}")
    for line in lines:
        write_line(console, line)
