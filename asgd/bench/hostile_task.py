"""A task in exact arithmetic: its sums come out the same to the bit in whatever order gradients arrive.

loss(w; x) = mean over the batch and the dimensions of w * round(clip(8 (w - x), -32, 32)) / 8, where the rounded
factor counts as a constant. So the gradient of a dimension is a mean of multiples of 1/8; with batches, workers and
step sizes that are powers of two, every number in a run is a small multiple of a power of two, and float32 holds them
exactly. A gradient that is lost, doubled or changed on its way shows in the final parameters, and nothing else does.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from asgd.learn.task import Task, TensorData


class _Vector(nn.Module):
    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(dimension))

    def forward(self, x_B: Tensor) -> Tensor:
        factor_B = (8 * (self.w.detach() - x_B)).clamp(-32, 32).round() / 8
        return self.w * factor_B


def exact(seed: int, dimension: int = 1024) -> Task:
    """A vector w [dimension] that is drawn to the points x, multiples of 1/8 from -2 to 2."""
    generator = torch.Generator().manual_seed(seed)
    x_N = torch.randint(-16, 17, (4096, dimension), generator=generator) / 8

    def loss(outputs_B: Tensor, targets_B: Tensor) -> Tensor:
        return outputs_B.mean(0).sum()

    return Task(lambda: _Vector(dimension), loss, TensorData(x_N, torch.zeros(len(x_N), dtype=torch.long)))
