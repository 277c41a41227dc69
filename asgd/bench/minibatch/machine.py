"""What a benchmark runs on."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from asgd.bench.minibatch.results import Machine


def this_machine(command: str) -> Machine:
    """The machine that this runs on, now, by `command`.

    Example:
        >>> this_machine("asgd bench minibatch --preset quick").commands
        ['asgd bench minibatch --preset quick']
    """
    return Machine(
        cores=len(os.sched_getaffinity(0)),
        processor=_processor(),
        python=platform.python_version(),
        torch=version("torch"),
        system=f"{platform.system()} {platform.release()}",
        started=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        commands=[command],
    )


def _processor() -> str:
    """The processor's name, as Linux knows it; else its architecture."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
