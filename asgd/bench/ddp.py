"""Mini-batch SGD on PyTorch's own DistributedDataParallel over gloo: a baseline that isn't our code.

It does the work of method `minibatch` on the same task, with the same workers and the same emulated speeds. Rank w is
worker w: the core says which jobs it has and how far a round steps, so samples, augmentation, step sizes and the end of
the budget are those of `minibatch`; what carries and averages the gradients is DDP, and what steps is torch.optim.

This is the side that waits, and imports no torch; `ddp_group` starts the ranks, `ddp_rank` is what each of them does.
"""

from __future__ import annotations

import os
import selectors
import tempfile
from pathlib import Path

import msgspec

from asgd.config import Config
from asgd.errors import ConfigError, Interrupted, RunError
from asgd.run.build import validate
from asgd.run.formats import MetricsRow
from asgd.run.processes import ending, helping
from asgd.run.signals import StopRequests
from asgd.sim.parallel import Failed


class DdpRun(msgspec.Struct, frozen=True, kw_only=True, tag="ran"):
    """What a run gave: its evaluations, updates, gradients and samples (counted as method `minibatch` counts them),
    and the seconds from the first job to the last update (with a budget in seconds that has run out, that budget).

    `train_loss` of an evaluation is the mean over the jobs of rank 0 alone: the others keep theirs.
    """

    metrics: list[MetricsRow]
    versions: int
    gradients: int
    samples: int
    wall_s: float


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What the ranks are to do: the configuration, where the data are, a directory of their own for the while, and
    the file that the trained model goes to, if it is wanted.
    """

    config: Config
    data_root: str
    directory: str
    model: str | None


def run_ddp(config: Config, data_root: Path, *, stops: StopRequests, model: Path | None = None) -> DdpRun:
    """Train as method `minibatch` does, on DistributedDataParallel over gloo, one process for each worker.

    Formula: x^{t+1} = x^t - eta (1/n) sum_w grad F(x^t, xi_{w,t}), the mean by DDP's all-reduce, the step by torch's
    SGD, Adam or AdamW with the scheduled step size as its learning rate. A rank computes its real gradient and, with
    emulated speeds, keeps it back until a machine of that speed would have it; then the all-reduce takes part.
    Evaluations are made after the training, from copies that rank 0 keeps at the points of `evaluation`, so no timing
    holds one ("during" is treated as "after").

    Args:
        config: resolved, with method.name = "minibatch"; n = cluster.num_workers processes of
            cluster.threads_per_worker threads, on the CPU.
        data_root: where data sets are.
        stops: a request ends all processes at once.
        model: a file that the trained parameters and buffers are written to by name (safetensors).

    Errors: ConfigError for what DDP's baseline doesn't do, and for whatever is wrong with configuration or task;
    RunError when a rank died, stood still for longer than the group waits, or the run diverged; Interrupted when
    asked to stop. No process is left in any case.

    Example:
        run = run_ddp(load_config("configs/methods/minibatch.toml"), Path("data"), stops=StopRequests())
        print(run.gradients / run.wall_s, run.metrics[-1].test_accuracy)

    Source: torch.nn.parallel.DistributedDataParallel (Li et al., arXiv:2006.15704). Where we depart from its defaults:
    with emulated speeds one bucket holds all gradients, so that the wait is after the last of them is computed and
    before the first byte is sent; nothing of the all-reduce then overlaps with the computation, as nothing does where
    a worker answers a server. With "real" speeds buckets and overlap are torch's own.
    """
    check(config)
    with tempfile.TemporaryDirectory(prefix="asgd-ddp-", ignore_cleanup_errors=True) as directory:
        work = Work(
            config=config,
            data_root=str(data_root),
            directory=directory,
            model=None if model is None else str(model.absolute()),
        )
        with helping("asgd.bench.ddp_group", msgspec.json.encode(work)) as process:
            assert process.stdout is not None
            said = b""
            with selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ)
                while not said.endswith(b"\n"):
                    reason = stops.take()
                    if reason is not None:
                        raise Interrupted(reason)
                    if not selector.select(timeout=0.1):
                        continue
                    got = os.read(process.stdout.fileno(), 65536)
                    if not got:
                        raise RunError(f"the process that starts the ranks of DDP died: {ending(process.wait())}")
                    said += got
        event = msgspec.json.decode(said, type=DdpRun | Failed)
    if isinstance(event, Failed):
        raise event.error()
    return event


def check(config: Config) -> None:
    """Refuse what the baseline doesn't do; ConfigError."""
    validate(config)
    if config.method.name != "minibatch":
        raise ConfigError(f'method.name = {config.method.name!r}: DDP does the work of "minibatch" only')
    if config.method.local_steps:
        raise ConfigError(f"method.local_steps = {config.method.local_steps}: DDP averages gradients; allowed is 0")
    if config.task.micro_batches != 1:
        raise ConfigError(
            f"task.micro_batches = {config.task.micro_batches}: DDP reduces with each backward pass; allowed is 1"
        )
