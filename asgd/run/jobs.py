"""One job as configured, a gradient or several local steps: the one place where workers and the simulator do it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from asgd.config import Config
from asgd.core.methods import METHODS
from asgd.learn.flat import FlatModel
from asgd.learn.gradient import Result, compute_gradient
from asgd.learn.local import compute_local_steps
from asgd.learn.partition import shard_of
from asgd.learn.task import Task


def samples_per_job(config: Config) -> int:
    """How many samples the answer to a job counts for."""
    return config.task.batch_size * max(1, config.method.local_steps)


def compute_job(
    config: Config,
    task: Task,
    flat: FlatModel,
    worker: int,
    job: int,
    shards: Sequence[Tensor] | None,
    between: Callable[[], None] = lambda: None,
) -> Result:
    """Compute a job at flat.state_S and leave its answer in flat.answer_S; it depends on (seed, worker, job) alone.

    Arguments: config, task: the run's; worker, job: their numbers; shards: the samples of each worker, None if all
    have the same; between: called between micro-batches and local steps, and may raise to abandon the job.
    """
    arguments: dict[str, Any] = {
        "seed": config.seed,
        "worker": worker,
        "batch_size": config.task.batch_size,
        "autocast": config.cluster.autocast,
        "shard": shard_of(shards, worker),
        "micro_batches": config.task.micro_batches,
        "between": between,
    }
    if not config.method.local_steps:
        return compute_gradient(task, flat, job=job, **arguments)
    return compute_local_steps(
        task,
        flat,
        job=job,
        steps=config.method.local_steps,
        step_size=config.method.local_step_size,
        parameters=METHODS[config.method.name].answers == "parameters",
        **arguments,
    )
