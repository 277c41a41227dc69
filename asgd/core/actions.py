"""What the core answers: actions for the driver to execute, in their order.

`Apply`, `Mix`, `Accumulate`, `Store` and `Step` speak of vectors that the core never sees: the gradient of the
arrival being handled, and numbered slots (accumulators as long as the gradient) that the driver keeps.
"""

from __future__ import annotations

from typing import NamedTuple

from asgd.core.trace import TraceRow


class StepSize(NamedTuple):
    """A step size and the scheduled one that it was made from.

    `value` = `base` times the delay factor; `base` = base_step_size times the schedule at this version. The driver
    needs both, because an optimizer with state lets the factor weigh the gradient and keeps `base` as its learning
    rate.
    """

    base: float
    value: float


class Compensate(NamedTuple):
    """Correct a stale gradient g for what the model has moved: g <- g + lambda * g * g * (x - x_read), elementwise.

    x_read are the parameters that the job was given. lambda = `strength`; with `decay` m it is strength /
    sqrt(mean_square + eps), where first mean_square <- m mean_square + (1 - m) g * g, from 0 on.
    """

    strength: float
    decay: float | None
    eps: float


class DivideByGap(NamedTuple):
    """Shorten a stale gradient g where the model has moved far: g <- g / (1 + |x - x_read| / C), elementwise.

    C = longest_step * (sqrt(mean_square / (1 - m^k)) + eps), where first mean_square <- m mean_square + (1 - m) v * v,
    for the k-th time, from 0 on; m = `decay`, v = the momentum buffer, or g without momentum.
    """

    longest_step: float
    decay: float
    eps: float


Correction = Compensate | DivideByGap


class Apply(NamedTuple):
    """x <- x - step_size.value * (the arrival's gradient), through the optimizer; the version grows by one.

    `clip`: the norm that the gradient is shortened to before, None for as it is; `correction`: what is done to the
    gradient first, None for nothing.
    """

    step_size: StepSize
    buffer_weight: float
    clip: float | None = None
    correction: Correction | None = None


class Mix(NamedTuple):
    """x <- (1 - weight) x + weight * (the arrival's parameters); the version grows by one. No optimizer is involved."""

    weight: float
    buffer_weight: float


class Accumulate(NamedTuple):
    """slot <- slot + weight * (the arrival's gradient)."""

    slot: int
    weight: float
    buffer_weight: float


class Store(NamedTuple):
    """slot <- the arrival's gradient, whatever was in it."""

    slot: int
    buffer_weight: float


class Step(NamedTuple):
    """x <- x - step_size.value * sum of scale * slot over `parts`, through the optimizer; the version grows by one.

    The slots become zero unless `keep`.
    """

    parts: tuple[tuple[int, float], ...]
    step_size: StepSize
    keep: bool = False


class Cancel(NamedTuple):
    """Tell `worker` that `job` isn't wanted any more; its answer, should it be on its way, is refused."""

    worker: int
    job: int


class Assign(NamedTuple):
    """Send `worker` the job `job` with the parameters of `version`, which is the current one."""

    worker: int
    job: int
    version: int


class Refuse(NamedTuple):
    """The answer of `worker` to `job` is none that is waited for: it has no effect on the model and no line in the
    trace.
    """

    worker: int
    job: int
    reason: str


class Quarantine(NamedTuple):
    """`worker` gets no more jobs in this run: its gradients are refused again and again. It has left, to the core."""

    worker: int
    reason: str


class Record(NamedTuple):
    """Append `row` to the trace."""

    row: TraceRow


class Finish(NamedTuple):
    """The run is over: `complete` when its budget is used up, `failed` when it could not be."""

    reason: str
    complete: bool = False
    failed: bool = False


Action = Apply | Mix | Accumulate | Store | Step | Cancel | Assign | Refuse | Quarantine | Record | Finish
