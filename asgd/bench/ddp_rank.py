"""What one rank of the baseline on DistributedDataParallel does: compute, keep back, all-reduce, step.

The rounds are those of method `minibatch`, by its own code: every rank has a core of its own, which it tells that all
workers have answered when the all-reduce is over, and which says the step size and the next round's jobs. Only rank
0's core knows time and budget; the others go on until they are stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import safetensors.torch
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from asgd.bench.ddp import DdpRun, Work
from asgd.config import BudgetConfig, Config, schedule_total
from asgd.core.actions import Assign, Step
from asgd.core.divergence import Divergence
from asgd.core.events import Arrival, Join
from asgd.core.state import ServerState
from asgd.errors import RunError
from asgd.learn.flat import FlatModel
from asgd.learn.gradient import build_model, evaluate
from asgd.learn.task import Task
from asgd.run.build import make_state
from asgd.run.evaluations import Evaluations
from asgd.run.files import reason_of, write_atomically
from asgd.run.formats import MetricsRow
from asgd.run.jobs import compute_job, samples_per_job
from asgd.run.roles import Prepared
from asgd.run.sessions import LEASE_FACTOR
from asgd.run.speeds import job_seconds

_ME = b"rank 0"
_ROUNDS_LOOKED_AT = 100
_MB = 2**20


class Rounds:
    """The decisions of method `minibatch`, a whole round at a time.

    Attributes: state: the core; jobs: of this round, by worker.

    Example:
        >>> from asgd.config import load_config
        >>> rounds = Rounds(load_config({"method": {"name": "minibatch"}, "budget": {"gradients": 7}}))
        >>> rounds.jobs
        {0: 0, 1: 1, 2: 2, 3: 3}
        >>> rounds.close(1.0), rounds.jobs
        (0.05, {0: 4, 1: 5, 2: 6, 3: 7})
        >>> rounds.close(2.0), rounds.state.version, rounds.state.gradients  # ended within the round
        (None, 1, 7)
    """

    def __init__(self, config: Config) -> None:
        self.state = make_state(config)
        self._samples = samples_per_job(config)
        self.jobs: dict[int, int] = {}
        for worker in range(config.cluster.num_workers):
            self._take(Join(worker, 0.0))

    def close(self, now_s: float) -> float | None:
        """All workers have answered by `now_s`; the step size of the round's update, None if the run ended before."""
        step_size, version = None, self.state.version
        for worker, job in list(self.jobs.items()):
            step_size = self._take(Arrival(worker, job, version, 0.0, self._samples, 0.0, now_s))
        return step_size

    def _take(self, event: Join | Arrival) -> float | None:
        step_size = None
        for action in self.state.handle(event):
            match action:
                case Assign(worker, job, _):
                    self.jobs[worker] = job
                case Step(_, size, _):
                    step_size = size.value
        return step_size


def endless(config: Config) -> Config:
    """The configuration without an end, its schedule as long as it was."""
    schedule = msgspec.structs.replace(config.schedule, total=schedule_total(config))
    return msgspec.structs.replace(config, schedule=schedule, budget=BudgetConfig(versions=2**63 - 1))


class Pace:
    """Keeps a rank's gradient back until a machine of the emulated speed would have computed and sent it.

    The rest of the job's time is slept through, as a worker waits it out.
    """

    def __init__(self, config: Config, rank: int) -> None:
        self._config, self._rank = config, rank
        self._seconds: float | None = None
        self._started_s = 0.0

    def begin(self, job: int, started_s: float, now_s: float) -> None:
        """A job begins at `started_s` of time.monotonic, which is `now_s` of the run."""
        cluster = self._config.cluster
        self._started_s = started_s
        self._seconds = job_seconds(
            cluster.speeds,
            worker=self._rank,
            num_workers=cluster.num_workers,
            job=job,
            seed=self._config.seed,
            now_s=now_s,
        )

    def keep_back(self) -> None:
        """The gradient has been computed: return when it may leave."""
        computed_s = time.monotonic()
        done_s = computed_s if self._seconds is None else max(computed_s, self._started_s + self._seconds)
        time.sleep(max(0.0, done_s + self._config.cluster.speeds.communication_s - computed_s))


def _wrapped(config: Config, flat: FlatModel, pace: Pace) -> DistributedDataParallel:
    """The model in DDP; with emulated speeds the one bucket with all gradients is kept back before its all-reduce."""
    if config.cluster.speeds.profile == "real" and not config.cluster.speeds.communication_s:
        return DistributedDataParallel(flat.module)
    model = DistributedDataParallel(flat.module, bucket_cap_mb=4 * flat.layout.size_P // _MB + 1)

    def hook(group: dist.ProcessGroup, bucket):  # bare: DDP looks at annotations, and these would be strings
        assert bucket.is_last(), "one bucket holds all gradients"
        pace.keep_back()
        return allreduce_hook(group, bucket)

    model.register_comm_hook(dist.group.WORLD, hook)
    return model


def _optimizer(config: Config, module: nn.Module) -> torch.optim.Optimizer:
    """torch's own optimizer, as torch makes it; its learning rate is set before each step."""
    chosen, parameters = config.optimizer, [p for p in module.parameters() if p.requires_grad]
    own: dict[str, Any] = {"lr": config.method.step_size, "weight_decay": chosen.weight_decay}
    if chosen.name == "sgd":
        return torch.optim.SGD(parameters, momentum=chosen.momentum, nesterov=chosen.nesterov, **own)
    kind = torch.optim.Adam if chosen.name == "adam" else torch.optim.AdamW
    return kind(parameters, betas=chosen.betas, eps=chosen.eps, **own)


def _step(optimizer: torch.optim.Optimizer, step_size: float, clip_norm: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = step_size
        if clip_norm:
            nn.utils.clip_grad_norm_(group["params"], clip_norm)
    optimizer.step()


def _limit_s(config: Config) -> float:
    """How long a rank waits for the others: longer than the longest emulated jobs by far, but not for ever."""
    cluster = config.cluster
    longest_s = max(
        job_seconds(
            cluster.speeds,
            worker=job % cluster.num_workers,
            num_workers=cluster.num_workers,
            job=job,
            seed=config.seed,
            now_s=0.0,
        )
        or 0.0
        for job in range(_ROUNDS_LOOKED_AT * cluster.num_workers)
    )
    return max(cluster.server_timeout_s, LEASE_FACTOR * (longest_s + cluster.speeds.communication_s))


class Recorder:
    """What rank 0 keeps beside the training: copies to be evaluated, and whether the run has diverged."""

    def __init__(self, config: Config, flat: FlatModel, directory: Path) -> None:
        if config.evaluation.evaluate == "during":
            config = msgspec.structs.replace(
                config, evaluation=msgspec.structs.replace(config.evaluation, evaluate="after")
            )
        self._evaluations = Evaluations(config, directory)
        self._divergence, self._flat, self._config = Divergence(), flat, config

    def heard(self, loss: float) -> None:
        """A job of ours had this loss; RunError when there has been nothing but losses that are not finite for long.

        One gradient that isn't finite makes the mean, and with it the parameters of all ranks, so.
        """
        finite = math.isfinite(loss)
        self._divergence.heard(0, finite)
        self._evaluations.heard_loss(loss if finite else None)
        if self._divergence.is_certain({0: None}.keys()):
            raise RunError(f"diverged: the last {self._divergence.in_a_row} losses of rank 0 were not finite")

    def keep_if_due(self, state: ServerState, now_s: float) -> None:
        """Keep a copy of the current version if it is to be evaluated."""
        self._evaluations.keep_if_due(state, self._flat.state_S, now_s)

    def evaluate(self, task: Task) -> list[MetricsRow]:
        """Evaluate what was kept; the model is then that of the last copy."""
        rows = []
        while (snapshot := self._evaluations.next_for(_ME, training=False)) is not None:
            self._flat.state_S.copy_(snapshot.read())
            results = evaluate(task, self._flat, self._config.evaluation.batch_size)
            row = self._evaluations.result(_ME, snapshot.version, results)
            assert row is not None
            self._evaluations.recorded(row.version)
            rows.append(row)
        return rows


def _train(
    prepared: Prepared, flat: FlatModel, rank: int, rounds: Rounds, pace: Pace, recorder: Recorder | None
) -> float:
    """Go round by round to the end of the budget; returns the seconds that it took."""
    config, state = prepared.config, rounds.state
    optimizer, limit_s = _optimizer(config, flat.module), config.budget.time_s or math.inf
    if recorder is not None:
        recorder.keep_if_due(state, 0.0)
    dist.barrier()  # all are there
    began_s = time.monotonic()
    dist.barrier()  # nobody begins before rank 0's clock does
    while state.finished is None:
        started_s, job = time.monotonic(), rounds.jobs[rank]
        pace.begin(job, started_s, started_s - began_s)
        result = compute_job(config, prepared.task, flat, rank, job, prepared.shards)
        step_size = rounds.close(time.monotonic() - began_s)
        if step_size is not None:
            _step(optimizer, step_size, config.optimizer.clip_norm)
        flat.state_buffers.copy_(flat.buffers)  # the next round begins with them; DDP has rank 0's sent to all
        if recorder is not None:
            recorder.heard(result.loss)
            recorder.keep_if_due(state, min(time.monotonic() - began_s, limit_s))
    return min(time.monotonic() - began_s, limit_s)


def _save(flat: FlatModel, path: Path) -> None:
    try:
        write_atomically(path, safetensors.torch.save(flat.named_tensors()))
    except OSError as error:
        raise RunError(f"{path} cannot be written: {reason_of(error)}.") from error


def run_rank(prepared: Prepared, work: Work, rank: int, trained: Callable[[], None]) -> DdpRun:
    """Do a rank's part of the run; only rank 0 ever returns, the others are stopped.

    Arguments: prepared, work: the run's; rank: its worker's number; trained: called when the last update is made.
    Errors: those of a job; RunError when the run has diverged; torch's own when another rank is gone or stands still.
    """
    config = prepared.config
    torch.set_num_threads(config.cluster.threads_per_worker)
    flat = build_model(prepared.task, config.seed)
    plain, pace = flat.module, Pace(config, rank)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{work.directory}/store",
        rank=rank,
        world_size=config.cluster.num_workers,
        timeout=timedelta(seconds=_limit_s(config)),
    )
    flat.module = _wrapped(config, flat, pace)  # the same jobs as a worker's, through DDP's forward and backward
    recorder = Recorder(config, flat, Path(work.directory) / "snapshots") if rank == 0 else None
    rounds = Rounds(config if rank == 0 else endless(config))
    wall_s = _train(prepared, flat, rank, rounds, pace, recorder)
    assert recorder is not None, "only rank 0 knows an end"
    trained()
    flat.module = plain
    if work.model is not None:
        _save(flat, Path(work.model))
    state = rounds.state
    return DdpRun(
        metrics=recorder.evaluate(prepared.task),
        versions=state.version,
        gradients=state.gradients,
        samples=state.samples,
        wall_s=wall_s,
    )
