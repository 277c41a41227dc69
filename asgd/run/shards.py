"""Which samples the workers of a run have: the configured partition, its table, and when it meets the wrong method."""

from __future__ import annotations

from torch import Tensor

from asgd.config import Config
from asgd.core.methods import METHODS
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


def data_lines(config: Config, task: Task, shards: list[Tensor] | None) -> list[str]:
    """What a run tells of its workers' data before it begins: the table of the shards and the warning, if any."""
    warning = data_warning(config)
    return [*shard_lines(config, task, shards), *([warning] if warning else [])]


def data_warning(config: Config) -> str | None:
    """A sentence if the workers have different data and the method, or its step-size rule, weighs the fast ones more.

    A run approaches the minimiser of the objective, the mean over the workers, if it takes equally much of each.
    """
    method, rule = config.method.name, config.method.rule
    biases = METHODS[method].favours_fast
    causes = []
    if "method" in biases:
        causes.append(f"method {method} can use more gradients of the fast ones")
    if "rule" in biases and rule != "constant":
        causes.append(f"rule {rule} shortens or drops the late gradients of the slow ones")
    if config.task.partition == "iid" or not causes:
        return None
    return (
        f'warning: task.partition = "{config.task.partition}" gives the workers different data, and where their speeds '
        f"differ {' and '.join(causes)}: the run is then biased toward the data of fast workers (delay-adaptive steps "
        "are not for different data whose delays depend on the worker)"
    )
