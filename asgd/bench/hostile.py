"""`asgd bench hostile`: four workers train while a hostile client sends frames; does it change anything?

The same run is made twice, alone and under attack: mini-batch SGD of four workers on a task in exact arithmetic
(hostile_task.py), so that its final parameters are the same to the bit unless a gradient was lost, doubled, changed or
let in that shouldn't have been. The attack begins with the training; the run is long enough to outlast it.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from asgd.api import replay, train
from asgd.bench.hostile_frames import NUM_WORKERS
from asgd.config import load_config, task_digest
from asgd.errors import RunError
from asgd.run.display import NoDisplay
from asgd.run.ledger import check_trace
from asgd.run.result import Run
from asgd.run.status import Status

FUNCTION = "asgd.bench.hostile_task:exact"
_LEAVE_LIMIT_S = 60.0


@dataclass(frozen=True)
class Side:
    """One of the two runs."""

    parameters_sha256: str
    versions: int
    lost: int
    wall_s: float
    updates_per_s: float
    server_memory_mb: float
    refused_messages: int
    clients_cut_off: int
    problems: list[str]
    replay_is_exact: bool


@dataclass(frozen=True)
class HostileResult:
    """What came of it; `frames_in_training`: those sent before the last update."""

    alone: Side
    attacked: Side
    sent: dict[str, int]
    frames: int
    frames_in_training: bool
    attack_s: float
    same: bool
    machine: dict[str, str | int]


class _Attack(NoDisplay):
    """A display that starts the attack when the training begins, and notes whether it ended before the training did."""

    def __init__(self, command: list[str]) -> None:
        self.command = command
        self.process: subprocess.Popen[bytes] | None = None
        self.outlived = False

    def update(self, status: Status) -> None:
        if self.process is None and status.phase == "training":
            self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE)
        if self.process is not None and status.phase == "training":
            self.outlived = self.process.poll() is not None

    def result(self) -> dict[str, Any]:
        if self.process is None:
            raise RunError("the run ended before the attack could begin")
        self.process.terminate()  # if it still goes on: it says what it has sent until then
        try:
            out, _ = self.process.communicate(timeout=_LEAVE_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise RunError(f"the attack did not end within {_LEAVE_LIMIT_S:g} s when it was asked to") from None
        if self.process.returncode:
            raise RunError(f"the attack failed with status {self.process.returncode}")
        found: dict[str, Any] = json.loads(out)
        return found


def settings(address: str, versions: int, seconds: float, dimension: int) -> dict[str, Any]:
    """The run: every number that the result depends on is a power of two."""
    return {
        "task": {"function": FUNCTION, "options": {"dimension": dimension}, "batch_size": 4},
        "method": {"name": "minibatch", "step_size": 0.125, "rule": "constant"},
        "cluster": {
            "num_workers": NUM_WORKERS,
            "address": address,
            "speeds": {"profile": "equal", "seconds": seconds},
        },
        "budget": {"versions": versions},
        "evaluation": {"evaluate": "never"},
        "checkpoints": {"every_s": 0.0},
    }


def versions_for(frames: int) -> int:
    """Updates enough to outlast so many frames, on 2 cores that are busy with other things too.

    There 50,000 frames took 13 s and a million 88 s, at 40 updates/s; the attack needs some seconds to start.
    """
    return 400 + frames // 80


def run_hostile(
    frames: int,
    versions: int,
    *,
    seconds: float = 0.02,
    dimension: int = 1024,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> HostileResult:
    """Train alone and under attack, and compare.

    Args: frames: hostile messages to send, >= 1; versions: updates of each run; seconds: of one job; dimension: of the
    model; seed: of the attack.
    Errors: RunError when a run fails, or the attack does.
    """
    from asgd.learn.gradient import build_model
    from asgd.learn.task import load_task

    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    config = load_config(settings(address, versions, seconds, dimension))
    flat = build_model(load_task(FUNCTION, config.task.options, Path(), config.seed, False), config.seed)
    command = [sys.executable, "-P", "-m", "asgd.bench.hostile_frames", address, "--frames", str(frames)]
    command += ["--seed", str(seed), "--size", str(flat.state_view().nbytes), "--layout", flat.layout.digest]
    command += ["--task", task_digest(config)]
    with tempfile.TemporaryDirectory(prefix="asgd-hostile-") as folder:
        say(f"{versions:,} updates alone")
        alone = _side(train(config, run_dir=Path(folder) / "alone"))
        say(f"{versions:,} updates under {frames:,} hostile frames")
        attack = _Attack(command)
        try:
            attacked = _side(train(config, run_dir=Path(folder) / "attacked", display=attack))
            told = attack.result()
        finally:
            if attack.process is not None and attack.process.poll() is None:
                attack.process.kill()
                attack.process.communicate()
    return HostileResult(
        alone,
        attacked,
        sent=told["sent"],
        frames=told["total"],
        frames_in_training=attack.outlived and told["total"] >= frames,
        attack_s=told["seconds"],
        same=alone.parameters_sha256 == attacked.parameters_sha256
        and not (attacked.problems or attacked.lost)
        and attacked.replay_is_exact,
        machine={"platform": platform.platform(), "cores": os.cpu_count() or 0},
    )


def _side(run: Run) -> Side:
    summary = run.summary
    return Side(
        parameters_sha256=summary.parameters_sha256,
        versions=summary.versions,
        lost=summary.lost,
        wall_s=summary.wall_s,
        updates_per_s=summary.updates_per_s,
        server_memory_mb=summary.server.max_memory_bytes / 1e6,
        refused_messages=summary.server.refused_messages,
        clients_cut_off=summary.server.clients_cut_off,
        problems=check_trace(run.trace, summary.outstanding),
        replay_is_exact=replay(run.path).is_exact,
    )


def table_of(result: HostileResult) -> Table:
    """What a person wants to see of it."""
    table = Table("", "alone", f"under {result.frames:,} hostile frames", box=None)
    sides = (result.alone, result.attacked)
    rows = {
        "final parameters (sha256)": [side.parameters_sha256[:16] for side in sides],
        "updates, jobs lost": [f"{side.versions:,}, {side.lost}" for side in sides],
        "updates/s": [f"{side.updates_per_s:.1f}" for side in sides],
        "the books": [side.problems[0] if side.problems else "balance" for side in sides],
        "replay": ["exact" if side.replay_is_exact else "differs" for side in sides],
        "server's memory, at most": [f"{side.server_memory_mb:.0f} MB" for side in sides],
        "messages refused": [f"{side.refused_messages:,}" for side in sides],
        "clients cut off": [f"{side.clients_cut_off:,}" for side in sides],
    }
    for name, cells in rows.items():
        table.add_row(name, *cells)
    return table


def as_dict(result: HostileResult) -> dict[str, Any]:
    """Plain values, for JSON."""
    return asdict(result)
