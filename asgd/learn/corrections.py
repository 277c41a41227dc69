"""Stale gradients, corrected by how far the parameters have moved since: block by block, into memory that is reused.

Legend of the suffixes: _P parameters with padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import sqrt
from typing import Any

import torch
from torch import Tensor

from asgd.errors import ConfigError
from asgd.learn.flat import aligned_zeros

# A vector of parameter size that is made anew costs more in page faults than all of the arithmetic here; temporaries
# of this size are reused by the allocator, and stay in the cache.
BLOCK = 1 << 17
# Sums over blocks of this size are made by one thread, so they don't depend on how many there are.
_SUM_BLOCK = 1 << 14


@torch.no_grad()
def distance(params_P: Tensor, read_P: Tensor) -> float:
    """Return the Euclidean norm of params - read, summed up in float64, whatever the number of threads.

    Example:
        >>> distance(torch.tensor([3.0, 1.0]), torch.tensor([0.0, 5.0]))
        5.0
    """
    total = 0.0
    for params, read in zip(params_P.split(_SUM_BLOCK), read_P.split(_SUM_BLOCK), strict=True):
        total += float(torch.linalg.vector_norm(params - read, dtype=torch.float64)) ** 2
    return sqrt(total)


class Corrections:
    """Corrected copies of stale gradients, and the moving mean square that some need.

    Arguments: params_P: the parameters now, where they always are; momentum_P: the optimizer's momentum buffer, None
    without. Costs up to two vectors of parameter size, made when they are first needed: the corrected gradient, which
    is overwritten by the next one, and the mean square, which belongs to the state of a run.

    Example:
        >>> params, read, gradient = torch.tensor([2.0]), torch.tensor([1.5]), torch.tensor([4.0])
        >>> Corrections(params, None).compensated(gradient, read, strength=0.25)
        tensor([6.])
    """

    def __init__(self, params_P: Tensor, momentum_P: Tensor | None) -> None:
        self._params_P, self._momentum_P = params_P, momentum_P
        self._corrected_P: Tensor | None = None
        self._mean_square_P: Tensor | None = None
        self._num_squares = 0  # how often the mean square was moved

    @torch.no_grad()
    def compensated(
        self, gradient_P: Tensor, read_P: Tensor, *, strength: float, decay: float | None = None, eps: float = 1e-7
    ) -> Tensor:
        """Return g + lambda g g (x - x_read), elementwise: g at x by its Taylor expansion, the Hessian from g's square.

        Formula: lambda = strength, or with decay m: s <- m s + (1 - m) g g, lambda = strength / sqrt(s + eps).
        Arguments: gradient_P: not changed; read_P: the parameters that it was computed at. The result is valid until
        the next correction.
        """
        for gradient, read, params, corrected, square, _ in self._blocks(gradient_P, read_P, decay is not None):
            torch.sub(params, read, out=corrected)
            corrected.mul_(gradient).mul_(gradient)
            if decay is not None:
                square.mul_(decay).addcmul_(gradient, gradient, value=1.0 - decay)
                corrected.div_((square + eps).sqrt_())
            torch.add(gradient, corrected, alpha=strength, out=corrected)
        assert self._corrected_P is not None
        return self._corrected_P

    @torch.no_grad()
    def divided_by_gap(
        self, gradient_P: Tensor, read_P: Tensor, *, longest_step: float, decay: float = 0.999, eps: float = 1e-8
    ) -> Tensor:
        """Return g / (1 + |x - x_read| / C), elementwise: C is about the longest distance that one step makes.

        Formula: s <- m s + (1 - m) v v for the k-th time, C = longest_step (sqrt(s / (1 - m^k)) + eps), with v the
        momentum buffer, or g where there is none, and m = decay.
        Arguments: as `compensated`; longest_step: above 0, the largest scheduled step size so far.
        """
        self._num_squares += 1
        bias = 1.0 - decay**self._num_squares
        for gradient, read, params, corrected, square, momentum in self._blocks(gradient_P, read_P, True):
            source = gradient if momentum is None else momentum
            square.mul_(decay).addcmul_(source, source, value=1.0 - decay)
            torch.sub(params, read, out=corrected)
            corrected.abs_().div_((square / bias).sqrt_().add_(eps).mul_(longest_step)).add_(1.0)
            torch.div(gradient, corrected, out=corrected)
        assert self._corrected_P is not None
        return self._corrected_P

    def tensors(self) -> dict[str, Tensor]:
        """Return the mean square, not copied, if there is one: with `scalars`, all that a resume needs."""
        return {} if self._mean_square_P is None else {"mean_square": self._mean_square_P}

    def scalars(self) -> dict[str, Any]:
        return {"squares": self._num_squares}

    def load(self, tensors: Mapping[str, Tensor], scalars: Mapping[str, Any]) -> None:
        """Take over what `tensors` and `scalars` returned."""
        self._num_squares = int(scalars["squares"])
        self._mean_square_P = None
        if "mean_square" in tensors:
            self._mean_square_P = aligned_zeros(len(self._params_P))
            self._mean_square_P.copy_(tensors["mean_square"])

    def _blocks(
        self, gradient_P: Tensor, read_P: Tensor, mean_square: bool
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None]]:
        """The blocks of gradient, read and present parameters, corrected gradient, mean square and momentum buffer."""
        size = len(self._params_P)
        if gradient_P.shape != (size,) or read_P.shape != (size,):
            raise ConfigError(
                f"a gradient and the parameters it was computed at must have shape [{size}], not "
                f"{list(gradient_P.shape)} and {list(read_P.shape)}"
            )
        if self._corrected_P is None:
            self._corrected_P = aligned_zeros(size)
        if mean_square and self._mean_square_P is None:
            self._mean_square_P = aligned_zeros(size)
        square_P = self._mean_square_P if mean_square and self._mean_square_P is not None else self._corrected_P
        for start in range(0, size, BLOCK):
            part = slice(start, start + BLOCK)
            yield (
                gradient_P[part],
                read_P[part],
                self._params_P[part],
                self._corrected_P[part],
                square_P[part],
                None if self._momentum_P is None else self._momentum_P[part],
            )
