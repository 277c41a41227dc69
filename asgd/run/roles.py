"""One role in one process: what `asgd server`, `asgd worker` and `asgd evaluator` run, and what a local cluster
forks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from asgd.config import Config
from asgd.learn.flat import resolve_device
from asgd.learn.gradient import build_model
from asgd.learn.task import Task, load_task
from asgd.run.channel import Channel
from asgd.run.evaluator import run_evaluator
from asgd.run.files import telling_the_way_on
from asgd.run.formats import Summary
from asgd.run.opening import opening_lines
from asgd.run.serving import serve
from asgd.run.shards import make_shards
from asgd.run.signals import StopRequests
from asgd.run.worker import run_worker

Note = Callable[[str], None]


@dataclass(frozen=True)
class Prepared:
    """A configuration with its task loaded; shards: the samples of each worker, None if all have the same."""

    config: Config
    task: Task
    shards: list[Tensor] | None = None


def prepare(config: Config, data_root: Path) -> Prepared:
    """Load the configured task, with one thread.

    A process that has run parallel tensor operations can't be forked: the children of its thread pool wait for ever.
    Each role sets its own number of threads, the same for all: the last bits can depend on it.

    Errors: ConfigError in one sentence for whatever is wrong with the task, its data or their partition.
    """
    torch.set_num_threads(1)
    task_config = config.task
    task = load_task(task_config.function, task_config.options, data_root, config.seed, task_config.download)
    if task.test is None and config.evaluation.evaluate != "never":
        never = msgspec.structs.replace(config.evaluation, evaluate="never")
        config = msgspec.structs.replace(config, evaluation=never)
    return Prepared(config, task, make_shards(config, task))


def server_role(
    prepared: Prepared,
    path: Path,
    address: str,
    resume: bool,
    channel: Channel | None,
    stops: StopRequests,
    say: Note,
    started_s: float,
) -> Summary:
    """Serve the run in `path` to its end; the model of version 0 is made here.

    Arguments: started_s: when (time.monotonic) whoever waits for the run asked for it.
    """
    torch.set_num_threads(prepared.config.cluster.threads_per_worker)
    flat = build_model(prepared.task, prepared.config.seed)
    with telling_the_way_on():
        return serve(
            prepared.config,
            prepared.task,
            flat,
            path,
            address,
            resume=resume,
            channel=channel,
            stops=stops,
            say=say,
            started_s=started_s,
            notes=opening_lines(prepared.config, prepared.task, prepared.shards),
        )


def worker_role(prepared: Prepared, address: str, worker: int, stops: StopRequests, say: Note) -> None:
    """Work for the server at `address` as number `worker` (-1: any)."""
    torch.set_num_threads(prepared.config.cluster.threads_per_worker)
    flat = build_model(
        prepared.task, prepared.config.seed, resolve_device(prepared.config.cluster.device, max(worker, 0))
    )
    run_worker(prepared.config, prepared.task, flat, address, worker, stops, say, prepared.shards)


def evaluator_role(prepared: Prepared, address: str, stops: StopRequests, say: Note) -> None:
    """Evaluate for the server at `address`."""
    torch.set_num_threads(prepared.config.cluster.threads_per_worker)
    run_evaluator(prepared.config, prepared.task, build_model(prepared.task, prepared.config.seed), address, stops, say)
