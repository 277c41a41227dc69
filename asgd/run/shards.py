"""Which samples the workers of a run have: the configured partition, and its table."""

from __future__ import annotations

from torch import Tensor

from asgd.config import Config
from asgd.learn.partition import labels_of, lines, partition, table
from asgd.learn.task import Task


def make_shards(config: Config, task: Task) -> list[Tensor] | None:
    """The shard of each worker of a configured run, the same in every process; None for "iid", where the jobs of all
    workers together go through the data epoch by epoch.

    There is one for each of `cluster.num_workers`; who joins with a higher number shares another's (see
    `learn.partition.shard_of`).
    Errors: ConfigError for what the partition can't be.
    """
    chosen = config.task
    if chosen.partition == "iid":
        return None
    return partition(
        task.train, config.cluster.num_workers, chosen.partition, chosen.partition_options, seed=config.seed
    )


def shard_lines(config: Config, task: Task, shards: list[Tensor] | None) -> list[str]:
    """What a display shows of the shards; nothing without any."""
    if shards is None:
        return []
    by_labels = config.task.partition in ("dirichlet", "by_label")
    rows = table(shards, labels_of(task.train) if by_labels else None)
    return [f"partition {config.task.partition}; every worker has the weight 1/{len(shards)}", *lines(rows)]
