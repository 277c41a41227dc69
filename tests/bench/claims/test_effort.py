"""Cells in parallel processes: their results, their deaths, and that they never outlive the command."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from asgd.bench.claims.effort import Effort
from asgd.errors import RunError

LIMIT_S = 30.0
# Writes the process's id, and then waits for what never comes.
WAITS = """
import signal, sys
from asgd.bench.claims.effort import Effort
from helpers.cells import wait_in
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # may be ignored where the tests run in the background
    Effort(jobs=2).map(wait_in, [(sys.argv[1],), (sys.argv[1],)])
"""


def test_results_come_in_the_order_of_the_cells():
    assert Effort(jobs=1).map(pow, [(2, 3), (3, 2)]) == [8, 9]


@pytest.mark.slow
def test_a_process_that_dies_is_one_sentence():
    with pytest.raises(RunError, match="a process that computes a part of a claim died"):
        Effort(jobs=2).map(os._exit, [(3,), (3,)])


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda how: how.name)
def test_nothing_outlives_the_command(tmp_path, how):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}
    (tmp_path / "main.py").write_text(WAITS)
    os.mkfifo(tmp_path / "begun")
    begun = os.open(tmp_path / "begun", os.O_RDWR)  # for writing too, so that it has no end between the two
    command = subprocess.Popen(
        [sys.executable, str(tmp_path / "main.py"), str(tmp_path / "begun")], env=environment, stderr=subprocess.DEVNULL
    )
    try:
        lines = b""
        while lines.count(b"\n") < 2:
            assert select.select([begun], [], [], LIMIT_S)[0], "two cells have not begun"
            lines += os.read(begun, 100)
        processes = [os.pidfd_open(int(pid)) for pid in lines.split()]
        command.send_signal(how)
        command.wait(LIMIT_S)
        for process in processes:
            assert select.select([process], [], [], LIMIT_S)[0], "a cell's process is still there"
            os.close(process)
    finally:
        command.kill()
        command.wait()
        os.close(begun)
