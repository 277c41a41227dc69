"""Clipped asynchronous SGD."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite

from asgd.core.actions import StepSize
from asgd.core.methods.base import AlwaysBusy, Answer, Decision, Stateless, UseApply, UseNot, View
from asgd.errors import ConfigError


@dataclass
class Clipped(AlwaysBusy, Stateless):
    """Clipped asynchronous SGD: every gradient is shortened to norm c and applied when it arrives.

    Formula: x^{t+1} = x^t - eta min(1, c / ||g||) g, with g = grad F(x^{t - tau_t}, xi_t), c = `clip` and ||.|| the
    Euclidean norm over all parameters; then its worker gets x^{t+1}. eta is the scheduled step size: it doesn't depend
    on the delay, so the configured step-size rule has no effect.

    Args:
        clip: c > 0, finite, in the units of the gradient. The default 1 is a usual value, not the paper's.

    Errors: ConfigError for an option out of range.

    Example:
        >>> Clipped(clip=0.5).name
        'clipped'

    Reference: Erickson, Johansson, "Clipping Makes Distributed and Federated Asynchronous SGD Robust to Stragglers",
    arXiv:2606.13287, Algorithm 1 (the same data for all workers). Read: the abstract, and two published audits of the
    theorems, which say that the step size and c are constant and every gradient is clipped to norm c; not the paper
    itself. We depart from it where a worker leaves (its job is lost and it gets no further one) or joins (it gets jobs
    at the current version). An optimizer with momentum gets the clipped gradient; where the optimizer itself clips, the
    smaller of the two norms counts.
    """

    name = "clipped"
    clip: float = field(default=1.0, metadata={"option": True})

    def __post_init__(self) -> None:
        number = isinstance(self.clip, int | float) and not isinstance(self.clip, bool)
        if not number or not isfinite(self.clip) or self.clip <= 0.0:
            raise ConfigError(f"method.options.clip = {self.clip!r}: allowed is a finite number above 0")

    def arrived(self, view: View, answer: Answer) -> Decision:
        again = (answer.worker,)
        if answer.refusal is not None:
            return Decision(UseNot(answer.refusal), assign=again)
        base = view.step_size(answer.delay).base
        return Decision(UseApply(StepSize(base, base), clip=float(self.clip)), assign=again)
