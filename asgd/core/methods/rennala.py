"""Rennala SGD: step with the mean of S gradients of the current version, whoever computed them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from asgd.core.assignment import everybody
from asgd.core.methods.base import AlwaysBusy, Answer, Decision, TakeStep, UseAccumulate, UseNot, View
from asgd.errors import ConfigError

_SLOT = 0


@dataclass
class Rennala(AlwaysBusy):
    """Rennala SGD: everybody computes at the current version without a pause; every S gradients of it make a step.

    Formula: x^{k+1} = x^k - eta (1/S) sum_i sum_{j <= B_i} grad f(x^k, xi_ij), B_i = gradients at x^k that came from
    worker i, sum_i B_i = S. A gradient of an earlier version is discarded; whoever answers gets the version that is
    then current. eta = what the step-size rule makes of the scheduled step size at delay 0 (`adadelay` and
    `wu_adaptive_1` shorten it even then). When a worker is lost, the others go on and fill the batch.

    Args:
        batch: S, gradients per step, >= 1; 0 for as many as there are workers when the round begins. With sigma^2 the
            variance of a gradient, that of a step is sigma^2/S: S = sigma^2/eps for a squared gradient norm of eps.

    Errors: ConfigError for an option out of its range.

    Example:
        >>> Rennala(batch=8).batch
        8

    Reference: Tyurin, Richtarik, arXiv:2305.12387, Rennala SGD; the update checked against its restatement in Tyurin,
    "Bridging the Gap Between Homogeneous and Heterogeneous Asynchronous Optimization Is Surprisingly Difficult",
    Algorithm 1, whose batch is the first that exceeds S, and whose line 12 leaves open whether jobs that run at the
    step are stopped or ignored. Here the batch is exactly S and they are ignored. A gradient that is not finite doesn't
    count; batch = 0 is our default.
    """

    batch: int = field(default=0, metadata={"option": True})
    target: int = 0  # S of this round
    num_accumulated: int = 0

    name = "rennala"

    def __post_init__(self) -> None:
        if type(self.batch) is not int or self.batch < 0:
            raise ConfigError(
                f"method.options.batch = {self.batch!r}: allowed is a whole number >= 0 (0: as many as workers)"
            )

    def begin(self, view: View) -> Decision:
        if not self.target:  # otherwise the run was restarted in the middle of a round
            self._begin_round(view)
        return Decision(assign=everybody(view))

    def arrived(self, view: View, answer: Answer) -> Decision:
        again = (answer.worker,)
        if answer.delay > 0:
            return Decision(UseNot(f"stale: delay {answer.delay}"), assign=again)
        if answer.refusal is not None:
            return Decision(UseNot(answer.refusal), assign=again)
        self.num_accumulated += 1
        if self.num_accumulated < self.target:
            return Decision(UseAccumulate(_SLOT), assign=again)
        step = TakeStep(((_SLOT, 1.0 / self.num_accumulated),), view.step_size(0))
        self._begin_round(view)
        return Decision(UseAccumulate(_SLOT), step, assign=again)

    def _begin_round(self, view: View) -> None:
        self.num_accumulated = 0
        self.target = self.batch or sum(1 for _ in view.workers)

    def state(self) -> dict[str, Any]:
        return {"target": self.target, "num_accumulated": self.num_accumulated}

    def restore(self, plain: dict[str, Any]) -> None:
        self.target, self.num_accumulated = plain["target"], plain["num_accumulated"]
