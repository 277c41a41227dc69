"""`asgd methods`, `asgd bench`: tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from asgd.cli.options import AsJson, Debug, Overrides, app, bench_app
from asgd.core.methods import METHODS
from asgd.core.step_rules import RULES
from asgd.errors import ConfigError


@app.command("methods")
def methods_command(as_json: AsJson = False, debug: Debug = False) -> None:
    """List the server methods and the step-size rules."""
    rules = {name: (rule.__doc__ or "").strip().splitlines() for name, rule in RULES.items()}
    references = {
        name: next(line.strip()[11:] for line in lines if line.strip().startswith("Reference:"))
        for name, lines in rules.items()
    }
    if as_json:
        methods = {
            name: {"summary": m.summary, "needs": m.needs, "use_when": m.use_when, "reference": m.reference}
            for name, m in METHODS.items()
        }
        listed = {name: {"summary": lines[0], "reference": references[name]} for name, lines in rules.items()}
        print(json.dumps({"methods": methods, "rules": listed}))
        return
    table = _folding("method.name", "method", "what it does", "needs", "use it when", "reference")
    for name, info in METHODS.items():
        table.add_row(name, info.summary, info.needs, info.use_when, info.reference)
    other = _folding("method.rule", "rule", "what it does", "reference")
    for name, lines in rules.items():
        other.add_row(name, lines[0], references[name])
    Console().print(table, other)


def _folding(title: str, *columns: str) -> Table:
    """A table that breaks long words instead of cutting them off."""
    table = Table(title=title, show_lines=True)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


@bench_app.command("published")
def published_command(
    config: Annotated[Path, typer.Option(help="The setting.")] = Path("configs/least_squares_40.toml"),
    only: Annotated[list[str] | None, typer.Option(help="A method of the table; may be repeated.")] = None,
    overrides: Overrides = None,
    seeds: Annotated[int, typer.Option(help="Runs of each method's best step size, with fresh seeds.", min=1)] = 3,
    out: Annotated[Path | None, typer.Option(help="JSON file of the results; what is there isn't run again.")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """The published least-squares setting with 40 worker processes, each method's step size tuned."""
    from asgd.bench import published
    from asgd.sim.result_files import encode_result

    unknown = [name for name in only or [] if name not in published.CONTENDERS]
    if unknown:
        raise ConfigError(f"--only {unknown[0]!r}: allowed: {', '.join(published.CONTENDERS)}")
    progress = Console(stderr=True)

    def say(line: str) -> None:
        progress.print(line, highlight=False)

    result = published.run(config, say, seeds, only or (), out, overrides or ())
    if as_json:
        print(encode_result(result).decode(), end="")
    else:
        Console().print(published.table(result))


@bench_app.command("wire")
def wire_command(as_json: AsJson = False, debug: Debug = False) -> None:
    """Exchanges per second: ours, PyTorch's RPC parameter server, raw sockets; in one run, alternating."""
    from asgd.bench.wire import run

    result = run()
    if as_json:
        print(json.dumps(result.to_dict()))
    else:
        Console().print(result.table())


@bench_app.command("core")
def core_command(as_json: AsJson = False, debug: Debug = False) -> None:
    """Time per arrival of the deciding core alone, for 10 to 100,000 workers."""
    from asgd.bench.core import run

    result = run()
    if as_json:
        print(json.dumps(result.to_dict()))
    else:
        Console().print(result.table())


@bench_app.command("advice")
def advice_command(
    num: Annotated[int, typer.Option(help="Random settings of speeds and noise.", min=1)] = 20,
    seed: Annotated[int, typer.Option(help="Of the first setting; the others have the next ones.", min=0)] = 0,
    factor: Annotated[float, typer.Option(help="The slowest worker's time over the fastest's, at most.")] = 30.0,
    out: Annotated[Path | None, typer.Option(help="JSON file of the results; what is there isn't run again.")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Check `asgd advise` in virtual time: the method named first against the best of all, step sizes tuned."""
    from asgd.bench import advice
    from asgd.sim.result_files import encode_result

    progress = Console(stderr=True)
    result = advice.run(num, seed, lambda line: progress.print(line, highlight=False), out, factor)
    if as_json:
        print(encode_result(result).decode(), end="")
    else:
        Console().print(advice.table(result))
