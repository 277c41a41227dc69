"""Gap-Aware: stale gradients count less, parameter by parameter, the farther the model has moved there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from asgd.core.actions import DivideByGap, StepSize
from asgd.core.methods.base import AlwaysBusy, Answer, Decision, UseApply, UseNot, View
from asgd.errors import ConfigError

_EPS = 1e-8


@dataclass
class GapAware(AlwaysBusy):
    """Gap-Aware: every gradient is applied when it arrives, divided in each parameter by how many steps' lengths the
    model is away from where it was computed.

    Formula: x^{t+1} = x^t - eta g / G, elementwise, g = grad F(x^{t - tau_t}, xi_t), G = 1 + |x^t - x^{t - tau_t}| / C,
    C = eta_max (sqrt(s_t / (1 - m^t)) + 1e-8), s_t = m s_{t-1} + (1 - m) v * v, s_0 = 0, with v the momentum buffer, or
    g where the optimizer has no momentum, and eta_max the largest scheduled step size so far: C is about the longest
    way that a parameter goes in one step. Then its worker gets x^{t+1}. eta is the scheduled step size; the gap takes
    the place of a step-size rule, so the configured one has no effect. With one worker it is plain SGD. Unlike a rule
    of the delay it doesn't punish a delay during which little has moved.

    Args:
        decay: m in [0, 1).

    Costs: the server keeps the parameters that outstanding jobs were given, a vector per job at most, a vector for the
    corrected gradient, and one for s_t. Needs the optimizer sgd.

    Errors: ConfigError for an option out of range.

    Example:
        >>> GapAware().decay
        0.999

    Reference: Barkai, Hakimi, Schuster, "Gap-Aware Mitigation of Gradient Staleness", ICLR 2020, arXiv:1909.10802.
    Read: the abstract, and the parameter-wise form in saareliad/FTPipe, which is made from the original code; not the
    paper itself. That code divides the weight decay by G as well; ours is taken at the current parameters, which
    aren't stale, so it isn't. Norms are clipped after the division. What happens when workers leave or join is ours.
    """

    name = "gap_aware"
    decay: float = field(default=0.999, metadata={"option": True})
    longest_step: float = 0.0  # eta_max

    def __post_init__(self) -> None:
        number = isinstance(self.decay, int | float) and not isinstance(self.decay, bool)
        if not number or not 0.0 <= self.decay < 1.0:
            raise ConfigError(f"method.options.decay = {self.decay!r}: allowed is a number from 0 to below 1")

    def arrived(self, view: View, answer: Answer) -> Decision:
        again = (answer.worker,)
        if answer.refusal is not None:
            return Decision(UseNot(answer.refusal), assign=again)
        base = view.step_size(answer.delay).base
        self.longest_step = max(self.longest_step, base)
        # While all steps were of size 0, no parameter has moved.
        correction = DivideByGap(self.longest_step, float(self.decay), _EPS) if self.longest_step else None
        return Decision(UseApply(StepSize(base, base), correction=correction), assign=again)

    def state(self) -> dict[str, Any]:
        return {"longest_step": self.longest_step}

    def restore(self, plain: dict[str, Any]) -> None:
        self.longest_step = plain["longest_step"]
