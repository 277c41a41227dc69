"""One stochastic gradient, an evaluation, and the model that every process starts with.

Legend of the suffixes: _B samples of a batch, _S parameters and buffers with padding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from asgd.errors import AsgdError, ConfigError, RunError
from asgd.learn.flat import FlatModel, resolve_device
from asgd.learn.order import job_generator, job_seed, sample_indices
from asgd.learn.task import Data, Task


@dataclass(frozen=True)
class Result:
    """What a job computed beside its gradient: the mean loss of its batch, and the number of samples in it."""

    loss: float
    samples: int


def compute_gradient(
    task: Task,
    flat: FlatModel,
    *,
    seed: int,
    worker: int,
    job: int,
    batch_size: int,
    autocast: bool = False,
    shard: Tensor | None = None,
    micro_batches: int = 1,
    between: Callable[[], None] = lambda: None,
) -> Result:
    """Compute one job: the gradient of the mean loss of its batch at flat.state_S, left in flat.answer_S.

    Formula: g = grad_x (1/B) sum_b loss(model(x; inputs_b), targets_b), x the parameters in state_S. Samples,
    augmentation and dropout depend on (seed, worker, job) alone. The buffers that the forward pass leaves (batch-norm
    statistics, starting from state_S's) are in flat.answer_S as well.
    Arguments: batch_size B >= 1; autocast: compute in bfloat16 where torch holds that safe (parameters and gradients
    stay float32); shard: this worker's own indices, see `sample_indices`; micro_batches: pieces that the batch is
    computed
    in, one after the other (less memory; the same gradient but for rounding and batch-norm statistics); between: called
    between two of them, and may raise to abandon the job.
    Returns: the batch's loss (which may be NaN) and B.
    Errors: ConfigError in one sentence when the task's data, model or loss raises, RunError when memory runs out.

    Example:
        >>> from torch import nn
        >>> from asgd.learn.task import TensorData
        >>> data = TensorData(torch.ones(8, 3), torch.zeros(8, 1))
        >>> task = Task(lambda: nn.Linear(3, 1), nn.functional.mse_loss, data)
        >>> flat = build_model(task, seed=0, device="cpu")
        >>> compute_gradient(task, flat, seed=0, worker=0, job=0, batch_size=4).samples
        4
        >>> float(flat.gradient_P.abs().sum()) > 0
        True
    """
    flat.begin()
    flat.module.train()
    indices_B = sample_indices(len(task.train), seed, worker, job, batch_size, shard)
    generator, total = job_generator(seed, worker, job, "augment"), 0.0
    with _seeded(job_seed(seed, worker, job, "dropout"), flat.device):
        for number, part_B in enumerate(indices_B.tensor_split(min(micro_batches, len(indices_B)))):
            if number:
                between()
            total += _backward(task, flat, part_B, generator, len(part_B) / len(indices_B), autocast)
    flat.finish()
    return Result(loss=total, samples=len(indices_B))


def _backward(
    task: Task, flat: FlatModel, indices_B: Tensor, generator: torch.Generator, weight: float, autocast: bool
) -> float:
    """Add weight times the gradient of these samples' mean loss to the flat gradient; returns weight times it."""
    inputs_B, targets_B = _batch(task.train, indices_B, generator, flat.device)
    with _explained(inputs_B, targets_B, flat.device):
        with torch.autocast(flat.device.type, dtype=torch.bfloat16) if autocast else nullcontext():
            loss = _scalar(task.loss(flat.module(inputs_B), targets_B), "loss")
        if not loss.requires_grad:
            raise ConfigError("the task's loss does not depend on the model's parameters: it has no gradient")
        (loss if weight == 1.0 else loss * weight).backward()
    return weight * float(loss.detach())


@torch.no_grad()
def evaluate(
    task: Task,
    flat: FlatModel,
    batch_size: int,
    data: Data | None = None,
    on_batch: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Return the mean loss and metrics over all of the task's test data (or `data`), at flat.state_S, in eval mode.

    Formula: sum over batches of B_k m_k / N, m_k the metric's mean over batch k of B_k samples; so the last, smaller
    batch counts by its size. No augmentation; the same numbers at every call.
    Returns: {"loss": ..., and each of task.metrics by name}.
    Errors: ConfigError when there is no test data, or when the task's code raises.

    Example:
        >>> from torch import nn
        >>> from asgd.learn.task import TensorData
        >>> data = TensorData(torch.ones(5, 3), torch.zeros(5, 1))
        >>> task = Task(lambda: nn.Linear(3, 1), nn.functional.mse_loss, data, test=data)
        >>> sorted(evaluate(task, build_model(task, 0, "cpu"), batch_size=2))
        ['loss']
    """
    data = task.test if data is None else data
    if data is None:
        raise ConfigError('the task has no test data to evaluate on; add some, or set evaluation.evaluate = "never"')
    if batch_size < 1:
        raise ConfigError(f"evaluate: batch_size = {batch_size} must be at least 1")
    flat.begin(gradient=False)
    flat.module.eval()
    functions = {"loss": task.loss, **task.metrics}
    totals = dict.fromkeys(functions, 0.0)
    with _seeded(0, flat.device):
        for indices_B in torch.arange(len(data)).split(batch_size):
            inputs_B, targets_B = _batch(data, indices_B, None, flat.device)
            with _explained(inputs_B, targets_B, flat.device):
                outputs_B = flat.module(inputs_B)
                for name, function in functions.items():
                    totals[name] += float(_scalar(function(outputs_B, targets_B), name)) * len(indices_B)
            on_batch()
    return {name: total / len(data) for name, total in totals.items()}


def build_model(task: Task, seed: int, device: str | torch.device = "cpu") -> FlatModel:
    """Return the task's model as every process of a run starts with it: made on the CPU under the run's seed.

    Errors: ConfigError when the task's model() raises or returns what can't be trained.
    """
    resolved = resolve_device(device)
    with _seeded(job_seed(seed, -1, -1, "model"), torch.device("cpu")):
        try:
            module = task.model()
        except AsgdError:
            raise
        except Exception as error:
            raise ConfigError(f"the task's model() failed: {_sentence(error)}") from error
    return FlatModel(module, resolved)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators for this long and then put them back.

    The one use of them: initialisation and dropout have no generator argument. Not torch.manual_seed, which reseeds
    every device of the machine for good.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        for cuda in devices:
            torch.cuda.default_generators[cuda.index].manual_seed(seed)
        yield


def _batch(
    data: Data, indices_B: Tensor, generator: torch.Generator | None, device: torch.device
) -> tuple[Tensor, Tensor]:
    try:
        batch: Any = data.batch(indices_B, generator)
        inputs_B, targets_B = batch
    except AsgdError:
        raise
    except Exception as error:
        raise ConfigError(f"the task's data failed on {len(indices_B)} indices: {_sentence(error)}") from error
    if not (isinstance(inputs_B, Tensor) and isinstance(targets_B, Tensor)):
        kinds = f"{type(inputs_B).__name__} and {type(targets_B).__name__}"
        raise ConfigError(f"the task's data must return batches of two tensors (inputs, targets), not {kinds}")
    return inputs_B.to(device, non_blocking=True), targets_B.to(device, non_blocking=True)


@contextmanager
def _explained(inputs_B: Tensor, targets_B: Tensor, device: torch.device) -> Iterator[None]:
    """Turn what the task's model, loss or metrics raise into one sentence that says on what."""
    try:
        yield
    except AsgdError:
        raise
    except Exception as error:
        on = f"inputs {list(inputs_B.shape)} {inputs_B.dtype}, targets {list(targets_B.shape)} {targets_B.dtype}"
        if isinstance(error, torch.OutOfMemoryError):
            raise RunError(f"out of memory on {device} ({on}): use smaller batches, or fewer workers there") from error
        raise ConfigError(f"the task's model, loss or metrics failed on {on}: {_sentence(error)}") from error


def _scalar(value: object, name: str) -> Tensor:
    if not isinstance(value, Tensor) or value.numel() != 1:
        given = f"a tensor of shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ConfigError(f"the task's {name} must return a tensor of one number, the mean over the batch, not {given}")
    return value


def _sentence(error: Exception) -> str:
    message = " ".join(str(error).split())[:400]
    return f"{type(error).__name__}{': ' if message else ''}{message}"
