"""FedAsync: the model moves towards the parameters that a worker ended on."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite

from asgd.core.methods.base import AlwaysBusy, Answer, Decision, Stateless, UseMix, UseNot, View
from asgd.errors import ConfigError

_STALENESS = ("constant", "polynomial", "hinge")


@dataclass
class FedAsync(AlwaysBusy, Stateless):
    """FedAsync: mix each worker's parameters into the model when they arrive, stale ones with a smaller weight.

    Formula: x^{t+1} = (1 - alpha_t) x^t + alpha_t x_worker with alpha_t = alpha s(tau), where tau is the delay of the
    answer and s(tau) is, by `staleness`,

        constant    1
        polynomial  (tau + 1)^(-a)
        hinge       1 for tau <= b, otherwise 1 / (a (tau - b) + 1)

    x_worker are the parameters that the worker ended on after local steps from the version that it was given: its
    answers hold parameters, not gradients. Neither schedule, step-size rule nor optimizer of the server has an effect:
    alpha_t is all there is. The worker goes on at once with the new version.

    Args:
        alpha: weight of a fresh answer, above 0 and below 1.
        staleness: "constant", "polynomial" or "hinge".
        a: a > 0, how fast the weight falls; no effect with "constant". With "hinge" 10 is a usual value.
        b: b >= 0, delays up to which the hinge gives full weight; no effect otherwise.

    Errors: ConfigError for a value outside of these ranges.

    Example:
        >>> FedAsync(alpha=0.5, staleness="hinge", a=1.0, b=2.0).weight(delay=5)
        0.125

    Reference: Xie, Koyejo, Gupta, "Asynchronous Federated Optimization", arXiv:1903.03934. The paper itself was not at
    hand: update and s follow several implementations that agree (Plato among them), in which a fresh answer has tau =
    0, as here. We depart from it in that the worker that answered gets the next job instead of one drawn at random; a
    proximal term in the worker's objective is the worker's business.
    """

    name = "fedasync"
    alpha: float = field(default=0.6, metadata={"option": True})
    staleness: str = field(default="polynomial", metadata={"option": True})
    a: float = field(default=0.5, metadata={"option": True})
    b: float = field(default=4.0, metadata={"option": True})

    def __post_init__(self) -> None:
        if not (_is_number(self.alpha) and 0 < self.alpha < 1):
            raise ConfigError(f"method.options.alpha = {self.alpha!r}: allowed is a number above 0 and below 1")
        if self.staleness not in _STALENESS:
            raise ConfigError(f"method.options.staleness = {self.staleness!r}: allowed: {', '.join(_STALENESS)}")
        if not (_is_number(self.a) and self.a > 0):
            raise ConfigError(f"method.options.a = {self.a!r}: allowed is a number above 0")
        if not (_is_number(self.b) and self.b >= 0):
            raise ConfigError(f"method.options.b = {self.b!r}: allowed is a number of at least 0")

    def weight(self, delay: int) -> float:
        """alpha_t for an answer of this delay."""
        if self.staleness == "polynomial":
            return float(self.alpha * (delay + 1.0) ** -self.a)
        if self.staleness == "hinge" and delay > self.b:
            return self.alpha / (self.a * (delay - self.b) + 1.0)
        return self.alpha

    def arrived(self, view: View, answer: Answer) -> Decision:
        use = UseMix(self.weight(answer.delay)) if answer.refusal is None else UseNot(answer.refusal)
        return Decision(use, assign=(answer.worker,))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
