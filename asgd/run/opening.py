"""What a run tells before it begins: who has which data, and where the method suits data or optimizer badly."""

from __future__ import annotations

from torch import Tensor

from asgd.config import Config
from asgd.learn.task import Task
from asgd.run.misfits import data_warning, optimizer_warning
from asgd.run.shards import shard_lines


def opening_lines(config: Config, task: Task, shards: list[Tensor] | None) -> list[str]:
    """The table of the shards and the warnings, if any."""
    warnings = (data_warning(config), optimizer_warning(config))
    return [*shard_lines(config, task, shards), *(warning for warning in warnings if warning)]
