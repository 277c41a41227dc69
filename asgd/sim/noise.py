"""How noisy a run's gradients are: sigma^2 of one job's gradient against ||grad f||^2, at its newest checkpoint.

Legend of the suffixes: _K gradients, _P parameters.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from asgd.errors import RunError
from asgd.learn.gradient import build_model, compute_gradient
from asgd.learn.partition import shard_of
from asgd.run.paths import resolve_data_root
from asgd.run.result import Run, fitting_state
from asgd.run.roles import prepare
from asgd.sim.advice import Noise

GRADIENTS = 32
MEMORY_BYTES = 1 << 29  # of all gradients together
FEWEST = 6
_NORMAL = 1.96  # of a two-sided 95%


def estimate_noise(run: Run, data_root: Path | str | None = None, gradients: int = GRADIENTS) -> Noise:
    """sigma^2/eps at the newest checkpoint of a run, with ||grad f||^2 there for eps.

    Formula: of K independent gradients g_k of a job's batch, sigma^2 = (1/(K - 1)) sum_k ||g_k - mean||^2 and
    ||grad f||^2 = ||mean||^2 - sigma^2/K, both unbiased. The interval of the ratio is that of ||grad f||^2, by its
    standard error over the leave-one-out estimates; sigma^2 is known much better. Where ||grad f||^2 isn't above 0, the
    ratio is the lower end of its interval.
    Arguments: gradients: K >= 6; fewer are taken of a model so large that they would need more than 512 MiB. Their
    seeds aren't the run's.
    Errors: RunError when there is no checkpoint, it is of another model than the task makes now, or gradients aren't
    finite; ConfigError of the task.
    """
    checkpoint = run.checkpoint()
    prepared = prepare(run.config, resolve_data_root(data_root))
    flat = build_model(prepared.task, run.config.seed, "cpu")
    state_S = fitting_state(checkpoint, flat, run.path, run.config.task.function)
    count = max(FEWEST, min(gradients, MEMORY_BYTES // (4 * max(1, flat.layout.size_P))))
    rows = []
    for k in range(count):
        flat.state_S.copy_(state_S)
        worker = k % run.config.cluster.num_workers
        compute_gradient(
            prepared.task,
            flat,
            seed=run.config.seed + 1_000_003 * (k + 1),  # another order of the data each time: independent batches
            worker=worker,
            job=0,
            batch_size=run.config.task.batch_size,
            autocast=run.config.cluster.autocast,
            shard=shard_of(prepared.shards, worker),
            micro_batches=run.config.task.micro_batches,
        )
        rows.append(flat.gradient_P.clone())
    products = _products(rows)
    if not np.isfinite(products).all():
        raise RunError(f"gradients at version {checkpoint.version} of {run.path} aren't finite: it has diverged")
    return noise_of(products, checkpoint.version)


def _products(rows: list[torch.Tensor]) -> npt.NDArray[np.float64]:
    """Inner products of all pairs, [K, K]."""
    stacked_KP = torch.stack(rows)
    return (stacked_KP @ stacked_KP.T).double().numpy()


def noise_of(products: npt.NDArray[np.float64], version: int) -> Noise:
    """The estimates from the inner products of K gradients with each other, [K, K]; see `estimate_noise`.

    Example:
        >>> noise = noise_of(np.full((4, 4), 2.0) + 6.0 * np.eye(4), version=7)
        >>> noise.sigma2, noise.gradient_norm2, noise.ratio
        (6.0, 2.0, 3.0)
    """
    count = len(products)
    squares, everything = np.diag(products), float(products.sum())

    def signal(total: float, square: float, num: int) -> float:
        return (total - square) / (num * (num - 1))  # the mean of <g_j, g_k> over j != k

    norm2 = signal(everything, float(squares.sum()), count)
    sigma2 = (float(squares.sum()) - everything / count) / (count - 1)
    without = np.array(
        [
            signal(everything - 2 * products[k].sum() + squares[k], squares.sum() - squares[k], count - 1)
            for k in range(count)
        ]
    )
    error = math.sqrt((count - 1) / count * float(((without - without.mean()) ** 2).sum()))
    most, least = norm2 + _NORMAL * error, norm2 - _NORMAL * error
    if most <= 0.0 or sigma2 < 0.0:
        raise RunError("the gradients don't say how large their mean is: sigma^2/eps can't be estimated; give --noise")
    return Noise(
        ratio=sigma2 / (norm2 if norm2 > 0.0 else most),
        source="estimated",
        low=sigma2 / most,
        high=sigma2 / least if least > 0.0 else None,
        sigma2=sigma2,
        gradient_norm2=norm2,
        gradients=count,
        version=version,
    )
