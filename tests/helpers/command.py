"""The command line within the test's own process."""

from __future__ import annotations

import sys

import pytest

from asgd import cli


def run_command(monkeypatch, capsys, *arguments):
    """Exit status, standard output and standard error of `asgd` with these arguments."""
    monkeypatch.setattr(sys, "argv", ["asgd", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    captured = capsys.readouterr()
    return ended.value.code, captured.out, captured.err
