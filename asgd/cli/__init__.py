"""The command line: a thin layer over `asgd.api` and the roles.

Exit status: 0 done, 1 failed, 2 wrong usage or configuration, 130 interrupted (after a clean stop). Each module here
adds its commands to the application in `options.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

import typer

from asgd.cli import (
    advising,
    benchmark,
    chaos,
    claims,
    hostile,
    keys,
    listing,
    replaying,
    reporting,
    roles,
    runs,
    soak,
    training,
    tuning,
)
from asgd.cli.options import INTERRUPTED, app
from asgd.cli.training import train_and_show
from asgd.errors import AsgdError

__all__ = [
    "advising",
    "app",
    "benchmark",
    "chaos",
    "claims",
    "exit_with",
    "hostile",
    "keys",
    "listing",
    "main",
    "replaying",
    "reporting",
    "roles",
    "runs",
    "soak",
    "train_and_show",
    "training",
    "tuning",
]


def main() -> NoReturn:
    """Run the command line and exit with its status."""
    exit_with(lambda: typer.main.get_command(app).main(standalone_mode=False))


def exit_with(command: Callable[[], int | None]) -> NoReturn:
    """Run `command` and exit with its status; an error is one sentence on standard error, a traceback with --debug."""
    try:
        sys.exit(command() or 0)
    except AsgdError as error:
        if "--debug" in sys.argv:
            raise
        print(f"asgd: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except typer.Exit as error:
        sys.exit(error.exit_code)
    except typer.Abort:
        sys.exit(INTERRUPTED)
    except Exception as error:
        # Usage errors show themselves in click's way; anything else is a defect and keeps its traceback.
        show, code = getattr(error, "show", None), getattr(error, "exit_code", None)
        if show is None or code is None:
            raise
        show()
        sys.exit(code)
