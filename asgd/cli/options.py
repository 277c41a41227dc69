"""The application, and the options that several commands have."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

INTERRUPTED = 130

app = typer.Typer(
    help="Asynchronous SGD with exact delays: one parameter server, n workers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
bench_app = typer.Typer(help="Measured comparisons.", no_args_is_help=True)
app.add_typer(bench_app, name="bench")

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="The run's configuration, a TOML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace one key, e.g. method.step_size=0.1; may be repeated."),
]
RunDir = Annotated[Path | None, typer.Option("--run-dir", help="Directory of the run [default: a new one in runs/].")]
DataRoot = Annotated[
    Path | None, typer.Option("--data-root", help="Where data sets are [default: $ASGD_DATA or data/].")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a run that is in the run directory.")]
Keys = Annotated[
    Path | None,
    typer.Option("--keys", metavar="DIR", help="This machine's keys, as made by `asgd keys` [security.keys]."),
]
KeyName = Annotated[str | None, typer.Option("--key", metavar="NAME", help="Which of them to use [security.key].")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"asgd {version('asgd')}")
        raise typer.Exit


@app.callback()
def _common(
    debug: Debug = False,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    pass  # --debug is read in exit_with(), where errors arrive


def with_keys(overrides: list[str] | None, keys: Path | None, key: str | None = None) -> list[str]:
    """The overrides, and those that the options --keys and --key stand for."""
    own = [] if keys is None else [f"security.keys={keys.absolute()}"]
    return [*(overrides or []), *own, *([] if key is None else [f"security.key={key}"])]
