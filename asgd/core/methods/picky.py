"""Picky SGD: a gradient is applied only where the model is still near the parameters that it was computed at."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite

from asgd.core.actions import StepSize
from asgd.core.methods.base import AlwaysBusy, Answer, Decision, Stateless, UseApply, UseNot, View
from asgd.errors import ConfigError


@dataclass
class Picky(AlwaysBusy, Stateless):
    """Picky SGD: what makes a gradient stale isn't how many updates came since, but how far they have moved the model.

    Formula: x^{t+1} = x^t - eta g, g = grad F(x^{t - tau_t}, xi_t), if ||x^t - x^{t - tau_t}|| <= threshold; otherwise
    x^t stays. Then its worker gets the current model. ||.|| is the Euclidean norm over all parameters, and the distance
    of each arrival is in the trace. eta is the scheduled step size: it doesn't depend on the delay, so the configured
    step-size rule has no effect. A gradient of delay 0 is always applied, so the run goes on whatever the threshold.

    Args:
        threshold: > 0, in the units of the parameters. The paper's is epsilon / (2 L) for a gradient norm of epsilon,
            L the smoothness; tau updates with gradients of norm G move the model by eta tau G at most. The default 1
            is this project's.

    Costs: the server keeps the parameters that outstanding jobs were given, a vector per job at most, and reads two
    vectors per arrival.

    Errors: ConfigError for an option out of range.

    Example:
        >>> Picky(threshold=0.5).name
        'picky'

    Reference: Cohen, Daniely, Drori, Koren, Schain, "Asynchronous Stochastic Optimization Robust to Arbitrary Delays",
    NeurIPS 2021, arXiv:2106.11879. Read: abstract and a summary of the method; the condition and its epsilon / (2 L)
    are not checked against the paper itself. What happens when workers leave or join is ours.
    """

    name = "picky"
    threshold: float = field(default=1.0, metadata={"option": True})

    def __post_init__(self) -> None:
        number = isinstance(self.threshold, int | float) and not isinstance(self.threshold, bool)
        if not number or not isfinite(self.threshold) or self.threshold <= 0.0:
            raise ConfigError(f"method.options.threshold = {self.threshold!r}: allowed is a finite number above 0")

    def arrived(self, view: View, answer: Answer) -> Decision:
        again = (answer.worker,)
        if answer.refusal is not None:
            return Decision(UseNot(answer.refusal), assign=again)
        if answer.distance is None:
            raise ValueError("Picky SGD needs the distance of each arrival, and it was not measured")
        if not answer.distance <= self.threshold:
            return Decision(UseNot(f"distance above the threshold {self.threshold:g}"), assign=again)
        base = view.step_size(answer.delay).base
        return Decision(UseApply(StepSize(base, base)), assign=again)
