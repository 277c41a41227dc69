"""The tridiagonal quadratic as a task that also tells ||grad f||^2, so that real runs are judged as those in virtual
time are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from asgd.learn.problems import Quadratic, tridiagonal_quadratic
from asgd.learn.task import Task


class WithNorm(nn.Module):
    """The quadratic's value for each noise vector, and beside it ||A e||^2 at its error e = x - x*; [B, 2]."""

    def __init__(self, quadratic: Quadratic, minimiser_D: Tensor) -> None:
        super().__init__()
        self.quadratic = quadratic
        self._minimiser_D = minimiser_D

    def forward(self, noise_B: Tensor) -> Tensor:
        values_B = self.quadratic(noise_B)
        error_D = self.quadratic.x.detach() - self._minimiser_D.to(noise_B.device)
        padded_D = nn.functional.pad(error_D, (1, 1))
        gradient_D = (2 * error_D - padded_D[:-2] - padded_D[2:]) / 4
        return torch.stack((values_B, gradient_D.dot(gradient_D).expand_as(values_B)), 1)


def _value(outputs_B: Tensor, _targets_B: Tensor) -> Tensor:
    return outputs_B[:, 0].mean()


def _norm(outputs_B: Tensor, _targets_B: Tensor) -> Tensor:
    return outputs_B[:, 1].mean()


def tridiagonal(dimension: int = 1729, sigma2: float = 1.0) -> Task:
    """The built-in task `quadratic` of kind "tridiagonal" without its constant f*, with the metric "gradient_norm2".

    Example:
        >>> from asgd.learn.gradient import build_model, evaluate
        >>> task = tridiagonal(dimension=3, sigma2=0.0)
        >>> evaluate(task, build_model(task, 0, "cpu"), batch_size=1)["gradient_norm2"]
        0.0625
    """
    plain = tridiagonal_quadratic(dimension, sigma2)
    assert plain.known is not None and plain.known.minimiser_P is not None
    minimiser_D = plain.known.minimiser_P

    def model() -> nn.Module:
        quadratic = plain.model()
        assert isinstance(quadratic, Quadratic)
        return WithNorm(quadratic, minimiser_D)

    return Task(
        model=model,
        loss=_value,
        train=plain.train,
        test=plain.test,
        metrics={"gradient_norm2": _norm},
        known=plain.known,
    )
