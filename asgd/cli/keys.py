"""`asgd keys`: the keys of a server and its workers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from asgd.cli.options import AsJson, Debug, app


@app.command("keys")
def keys_command(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write them; made if it isn't there.")],
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--name", metavar="NAME", help="A key of this name for a worker or evaluator [worker]; repeatable."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace keys that are there, the server's too.")
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Make the keys of a server and its workers; later calls add workers' keys beside the same server's."""
    from asgd.net.keys import make_keys

    names = names or ["worker"]
    made = make_keys(directory, names, overwrite=overwrite)
    if as_json:
        print(json.dumps({"made": [str(path) for path in made]}))
        return
    for path in made:
        print(path)
    print(
        "\nthe server's machine needs server.key and accepted/; a worker's machine server.pub and its own NAME.key,\n"
        "in a directory named by security.keys or --keys (a key other than worker.key: also security.key or --key).\n"
        "To shut one out, remove its accepted/NAME.pub and start the server again (--resume)."
    )
