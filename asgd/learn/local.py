"""Several local steps in place of one gradient: what federated methods ask of their workers.

Legend of the suffixes: _P parameters with padding, _S parameters and buffers with padding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from asgd.learn.flat import FlatModel
from asgd.learn.gradient import Result, compute_gradient
from asgd.learn.task import Task


def compute_local_steps(
    task: Task,
    flat: FlatModel,
    *,
    job: int,
    steps: int,
    step_size: float,
    parameters: bool,
    between: Callable[[], None] = lambda: None,
    **arguments: Any,
) -> Result:
    """Make K local SGD steps from flat.state_S; the answer is left in flat.answer_S.

    Formula: y_0 = x, y_{k+1} = y_k - gamma g_k(y_k); the answer is y_K (`parameters`) or the difference x - y_K,
    which a server steps along as if it were a gradient. With K = 1 the difference is gamma times the gradient.
    Arguments: job: its number; step k draws the samples of number job * K + k, so that the steps of all jobs go through
    the data epoch by epoch; steps: K >= 1; step_size: gamma > 0; between: called between steps and between
    micro-batches, and may raise to abandon the job; arguments: the others of `compute_gradient`.
    Returns: the mean loss over the steps, and K batches of samples.
    Errors: those of `compute_gradient`.

    Example:
        >>> from torch import nn
        >>> from asgd.learn.gradient import build_model
        >>> from asgd.learn.task import TensorData
        >>> data = TensorData(torch.ones(8, 3), torch.zeros(8, 1))
        >>> task = Task(lambda: nn.Linear(3, 1), nn.functional.mse_loss, data)
        >>> flat = build_model(task, seed=0)
        >>> options = {"seed": 0, "worker": 0, "batch_size": 4}
        >>> compute_local_steps(task, flat, job=0, steps=2, step_size=0.1, parameters=False, **options).samples
        8

    Source: FedBuff, arXiv:2106.06639; FedAsync, arXiv:1903.03934.
    """
    start_P = flat.params_P.clone()
    loss, samples = 0.0, 0
    for step in range(steps):
        if step:
            between()
        result = compute_gradient(task, flat, job=job * steps + step, between=between, **arguments)
        loss, samples = loss + result.loss / steps, samples + result.samples
        with torch.no_grad():
            flat.params_P.add_(flat.gradient_P, alpha=-step_size)
            flat.state_buffers.copy_(flat.buffers)
    with torch.no_grad():
        if parameters:
            flat.gradient_P.copy_(flat.params_P)
        else:
            torch.sub(start_P, flat.params_P, out=flat.gradient_P)
    return Result(loss, samples)
