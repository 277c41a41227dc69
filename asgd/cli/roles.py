"""`asgd server`, `asgd worker`, `asgd evaluator`: one role each, by address."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asgd.api import resumed_config
from asgd.cli.options import (
    AsJson,
    ConfigPath,
    DataRoot,
    Debug,
    KeyName,
    Keys,
    Overrides,
    Overwrite,
    RunDir,
    app,
    with_keys,
)
from asgd.cli.training import exit_as, show_ended, tell_ended
from asgd.config import Config, load_config, to_toml
from asgd.errors import AsgdError, ConfigError
from asgd.run.build import validate
from asgd.run.display import open_console
from asgd.run.paths import default_run_directory, resolve_data_root
from asgd.run.records import RunDirectory, discard_unbegun
from asgd.run.signals import StopRequests, stopping_by_signals

if TYPE_CHECKING:
    from asgd.run.roles import Prepared


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _prepared(config: Config, data_root: Path | None) -> Prepared:
    from asgd.run.roles import prepare

    return prepare(config, resolve_data_root(data_root))


def _by_hand(address: str, key: str) -> str:
    if address == "ipc":
        raise ConfigError(f"{key} = 'ipc' is private to a local cluster; give tcp://HOST:PORT or ipc://PATH")
    return address


@app.command("server")
def server_command(
    config: ConfigPath,
    bind: Annotated[
        str | None, typer.Option(help="Where to listen, tcp://HOST:PORT or ipc://PATH [default: cluster.address].")
    ] = None,
    overrides: Overrides = None,
    run_dir: RunDir = None,
    data_root: DataRoot = None,
    resume_run: Annotated[bool, typer.Option("--resume", help="Go on with the run in --run-dir.")] = False,
    overwrite: Overwrite = False,
    keys: Keys = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen to other machines without keys [security.insecure].")
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Run the server alone; start workers and an evaluator by hand, on this or other machines."""
    from asgd.run.security import check_binding

    overrides = with_keys(overrides, keys) + (["security.insecure=true"] if insecure else [])
    resolved = load_config(config, overrides)
    address = _by_hand(bind or resolved.cluster.address, "--bind" if bind else "cluster.address")
    validate(resolved)
    path = run_dir or default_run_directory(config)
    if resume_run:
        resolved = resumed_config(path, config, overrides)
    check_binding(resolved, address)
    prepared = _prepared(resolved, data_root)
    if resume_run:
        with RunDirectory.open(path, mode="write") as directory:
            directory.write_config(to_toml(resolved))
    else:
        RunDirectory.create(path, to_toml(resolved), overwrite).close()
    from asgd.run.roles import server_role

    try:
        with stopping_by_signals() as stops:
            summary = server_role(prepared, path, address, resume_run, None, stops, _say, time.monotonic())
    except AsgdError:
        if not resume_run:
            discard_unbegun(path)
        raise
    console = open_console(json=as_json)
    if not as_json:
        show_ended(console, summary, path, resolved)
    tell_ended(console, summary, path, resolved, as_json)
    exit_as(summary, stops)


def _client(
    config: Path,
    connect: str,
    overrides: list[str],
    data_root: Path | None,
    role: Callable[[Prepared, str, StopRequests], None],
) -> None:
    """Run a role that connects to a server; an interrupt makes it leave with a goodbye."""
    from asgd.run.security import client_keys

    resolved = load_config(config, overrides)
    address = _by_hand(connect, "--connect")
    client_keys(resolved)  # what is wrong with them is said before the data are loaded
    prepared = _prepared(resolved, data_root)
    with stopping_by_signals() as stops:
        role(prepared, address, stops)


Connect = Annotated[str, typer.Option(help="The server's address, tcp://HOST:PORT or ipc://PATH.")]


@app.command("worker")
def worker_command(
    config: ConfigPath,
    connect: Connect,
    index: Annotated[int, typer.Option(help="This worker's number; -1 takes a free one.", min=-1)] = -1,
    overrides: Overrides = None,
    data_root: DataRoot = None,
    keys: Keys = None,
    key: KeyName = None,
    debug: Debug = False,
) -> None:
    """Run one worker, with the same configuration as the server."""

    def role(prepared: Prepared, address: str, stops: StopRequests) -> None:
        from asgd.run.roles import worker_role

        worker_role(prepared, address, index, stops, _say)

    _client(config, connect, with_keys(overrides, keys, key), data_root, role)


@app.command("evaluator")
def evaluator_command(
    config: ConfigPath,
    connect: Connect,
    overrides: Overrides = None,
    data_root: DataRoot = None,
    keys: Keys = None,
    key: KeyName = None,
    debug: Debug = False,
) -> None:
    """Run an evaluator, with the same configuration as the server."""

    def role(prepared: Prepared, address: str, stops: StopRequests) -> None:
        from asgd.run.roles import evaluator_role

        evaluator_role(prepared, address, stops, _say)

    _client(config, connect, with_keys(overrides, keys, key), data_root, role)
