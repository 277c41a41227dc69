"""Malenia SGD: like Rennala SGD, for workers with different data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from asgd.core.assignment import everybody, newcomer
from asgd.core.methods.base import Answer, Decision, TakeStep, UseAccumulate, UseNot, View
from asgd.errors import ConfigError

# Sums of 1/B_i that were built up in another order differ by less than this, relatively.
_ROUNDING = 1e-9


@dataclass
class Malenia:
    """Malenia SGD: everybody computes at the current version; a step weighs every worker's mean gradient alike.

    Formula: x^{k+1} = x^k - eta (1/n) sum_i (1/B_i) sum_{j <= B_i} grad f_i(x^k, xi_ij), B_i = gradients at x^k that
    came from worker i, as soon as all B_i >= 1 and their harmonic mean ((1/n) sum_i 1/B_i)^-1 >= S/n. So the step is an
    unbiased gradient of f = (1/n) sum_i f_i whatever the speeds, with variance at most sigma^2/S. A gradient of an
    earlier version is discarded; whoever answers gets the version that is then current. eta = what the step-size rule
    makes of the scheduled step size at delay 0 (`adadelay` and `wu_adaptive_1` shorten it even then). The server keeps
    one vector per worker.

    Args:
        batch: S >= 1; 0 for S = n: the round ends as soon as every worker has answered once (as does every S <= n).
            S = sigma^2/eps for a squared gradient norm of eps, with sigma^2 the variance of a gradient.

    Errors: ConfigError for an option out of its range.

    Example:
        >>> Malenia(batch=16).batch
        16

    Reference: Tyurin, Richtarik, arXiv:2305.12387, Malenia SGD; update and stopping condition checked against their
    restatement in Tyurin, "Bridging the Gap Between Homogeneous and Heterogeneous Asynchronous Optimization Is
    Surprisingly Difficult", Algorithm 1, whose condition is strict (> S/n; here S = n ends with one gradient each) and
    whose line 12 leaves open whether jobs that run at the step are stopped or ignored; here they are ignored. What we
    add: n counts the workers that are there. One that has left is not waited for; what it gave in this round stays in
    the mean with its weight. One that joins is waited for at once. One whose first gradient in a round is not finite is
    not waited for in that round.
    """

    batch: int = field(default=0, metadata={"option": True})
    # Of this round: who is waited for; B_i and the slot of those who gave a gradient, in the order of their slots; who
    # of these has left; the sum of 1/B_i over the rest.
    missing: dict[int, None] = field(default_factory=dict)
    counts: dict[int, int] = field(default_factory=dict)
    slots: dict[int, int] = field(default_factory=dict)
    gone: dict[int, None] = field(default_factory=dict)
    inverse_sum: float = 0.0

    name = "malenia"

    def __post_init__(self) -> None:
        if type(self.batch) is not int or self.batch < 0:
            raise ConfigError(
                f"method.options.batch = {self.batch!r}: allowed is a whole number >= 0 (0: as many as workers)"
            )

    def begin(self, view: View) -> Decision:
        # A restarted run may be in the middle of a round: all have left it, also whoever made the arrival that ended
        # the run and had no job to lose.
        self.missing, self.gone, self.inverse_sum = {}, dict.fromkeys(self.counts), 0.0
        for worker in view.workers:
            self._enter(worker)
        return Decision(assign=everybody(view))

    def joined(self, view: View, worker: int) -> Decision:
        self._enter(worker)
        return Decision(assign=newcomer(view, worker))

    def arrived(self, view: View, answer: Answer) -> Decision:
        worker, again = answer.worker, (answer.worker,)
        if answer.delay > 0:
            return Decision(UseNot(f"stale: delay {answer.delay}"), assign=again)
        if answer.refusal is not None:
            self.missing.pop(worker, None)
            return Decision(UseNot(answer.refusal), self._step_if_due(view), assign=again)
        self.missing.pop(worker, None)
        count = self.counts.get(worker, 0)
        slot = self.slots.setdefault(worker, len(self.slots))
        self.counts[worker] = count + 1
        self.inverse_sum += 1.0 / (count + 1) - (1.0 / count if count else 0.0)
        return Decision(UseAccumulate(slot), self._step_if_due(view), assign=again)

    def lost(self, view: View, worker: int, job: int) -> Decision:
        self.missing.pop(worker, None)
        if worker in self.counts and worker not in self.gone:
            self.gone[worker] = None
            self.inverse_sum -= 1.0 / self.counts[worker]
        return Decision(step=self._step_if_due(view) if view.workers else None)

    def _enter(self, worker: int) -> None:
        if worker in self.gone:
            del self.gone[worker]
            self.inverse_sum += 1.0 / self.counts[worker]
        else:
            self.missing[worker] = None

    def _step_if_due(self, view: View) -> TakeStep | None:
        if self.missing:
            return None
        if not self.counts:
            self._begin_round(view)  # nobody had a usable gradient
            return None
        num_present = len(self.counts) - len(self.gone)
        batch = self.batch or num_present
        if not num_present or self.inverse_sum * batch > num_present**2 * (1.0 + _ROUNDING):
            return None
        num = len(self.counts)
        parts = tuple((self.slots[worker], 1.0 / (num * count)) for worker, count in self.counts.items())
        self._begin_round(view)
        return TakeStep(parts, view.step_size(0))

    def _begin_round(self, view: View) -> None:
        self.missing = dict.fromkeys(view.workers)
        self.counts, self.slots, self.gone, self.inverse_sum = {}, {}, {}, 0.0

    def state(self) -> dict[str, Any]:
        return {
            "missing": list(self.missing),
            "counts": [[worker, count] for worker, count in self.counts.items()],
            "gone": list(self.gone),
            "inverse_sum": self.inverse_sum,
        }

    def restore(self, plain: dict[str, Any]) -> None:
        self.missing, self.gone = dict.fromkeys(plain["missing"]), dict.fromkeys(plain["gone"])
        self.counts = {worker: count for worker, count in plain["counts"]}
        self.slots = {worker: slot for slot, worker in enumerate(self.counts)}
        self.inverse_sum = plain["inverse_sum"]
