"""Asynchronous SGD with exact delays: one parameter server, n workers.

    import asgd
    run = asgd.train("configs/shapes.toml")

Names are imported when they are first used, because torch takes seconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asgd.api import replay as replay
    from asgd.api import resume as resume
    from asgd.api import simulate as simulate
    from asgd.api import train as train
    from asgd.config import Config as Config
    from asgd.config import load_config as load_config
    from asgd.errors import AsgdError as AsgdError
    from asgd.errors import ConfigError as ConfigError
    from asgd.learn.task import Known as Known
    from asgd.learn.task import Task as Task
    from asgd.learn.task import TensorData as TensorData
    from asgd.report.writing import Report as Report
    from asgd.report.writing import write_report as write_report
    from asgd.run.replay import Replay as Replay
    from asgd.run.result import Run as Run
    from asgd.sim.tune import tune as tune
    from asgd.sim.tuning import Tuning as Tuning

_PUBLIC = {
    "AsgdError": "asgd.errors",
    "Config": "asgd.config",
    "ConfigError": "asgd.errors",
    "Known": "asgd.learn.task",
    "Replay": "asgd.run.replay",
    "Report": "asgd.report.writing",
    "Run": "asgd.run.result",
    "Task": "asgd.learn.task",
    "TensorData": "asgd.learn.task",
    "Tuning": "asgd.sim.tuning",
    "load_config": "asgd.config",
    "replay": "asgd.api",
    "resume": "asgd.api",
    "simulate": "asgd.api",
    "train": "asgd.api",
    "tune": "asgd.sim.tune",
    "write_report": "asgd.report.writing",
}
__all__ = list(_PUBLIC)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'asgd' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
