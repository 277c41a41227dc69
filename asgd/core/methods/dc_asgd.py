"""DC-ASGD: asynchronous SGD with compensated delays."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite

from asgd.core.actions import Compensate, StepSize
from asgd.core.methods.base import AlwaysBusy, Answer, Decision, Stateless, UseApply, UseNot, View
from asgd.errors import ConfigError

_EPS = 1e-7


@dataclass
class DelayCompensated(AlwaysBusy, Stateless):
    """DC-ASGD: every gradient is applied when it arrives, carried over from the model that it was computed at to the
    present one by a first-order correction.

    Formula: x^{t+1} = x^t - eta (g + lambda_t g * g * (x^t - x^{t - tau_t})), elementwise, g = grad F(x^{t - tau_t},
    xi_t): the Taylor expansion of the gradient with the Hessian's diagonal approximated by lambda_t g * g. Constant
    (DC-ASGD-c): lambda_t = lambda. Adaptive (DC-ASGD-a): lambda_t = lambda / sqrt(s_t + 1e-7), elementwise, with
    s_t = m s_{t-1} + (1 - m) g * g and s_0 = 0. Then its worker gets x^{t+1}. eta is the scheduled step size: it
    doesn't depend on the delay, so the configured step-size rule has no effect. With one worker the constant form is
    plain SGD.

    Args:
        strength: lambda >= 0; None (not given) for 2 if adaptive and 0.04 if not, which are usual values.
        adaptive: true or false.
        decay: m in [0, 1), for the adaptive form.

    Costs: the server keeps the parameters that outstanding jobs were given, a vector per job at most, a vector for the
    corrected gradient, and one for s_t.

    Errors: ConfigError for an option out of range.

    Example:
        >>> DelayCompensated(adaptive=False).strength
        0.04

    Reference: Zheng, Meng, Wang, Chen, Yu, Ma, Liu, "Asynchronous Stochastic Gradient Descent with Delay Compensation",
    ICML 2017, arXiv:1609.08326. Read: both updates and the 1e-7 in the authors' published code (the updaters of
    Microsoft's Multiverso), the rest in notes on the paper, not the paper itself. That code has an s_t per worker; we
    have one, as the paper's formula is restated in those notes, so that workers may come and go. An optimizer with
    momentum gets the corrected gradient; norms are clipped after the correction. What happens when workers leave or
    join is ours.
    """

    name = "dc_asgd"
    strength: float | None = field(default=None, metadata={"option": True})
    adaptive: bool = field(default=True, metadata={"option": True})
    decay: float = field(default=0.95, metadata={"option": True})

    def __post_init__(self) -> None:
        if not isinstance(self.adaptive, bool):
            raise ConfigError(f"method.options.adaptive = {self.adaptive!r}: allowed: true, false")
        if self.strength is None:
            self.strength = 2.0 if self.adaptive else 0.04
        elif not _is_number(self.strength) or not isfinite(self.strength) or self.strength < 0.0:
            raise ConfigError(f"method.options.strength = {self.strength!r}: allowed is a finite number of at least 0")
        if not _is_number(self.decay) or not 0.0 <= self.decay < 1.0:
            raise ConfigError(f"method.options.decay = {self.decay!r}: allowed is a number from 0 to below 1")

    def arrived(self, view: View, answer: Answer) -> Decision:
        again = (answer.worker,)
        if answer.refusal is not None:
            return Decision(UseNot(answer.refusal), assign=again)
        base = view.step_size(answer.delay).base
        assert self.strength is not None
        correction = None
        if self.adaptive:
            correction = Compensate(float(self.strength), float(self.decay), _EPS)
        elif answer.delay:  # without a delay there is nothing to compensate
            correction = Compensate(float(self.strength), None, _EPS)
        return Decision(UseApply(StepSize(base, base), correction=correction), assign=again)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
