"""Asynchronous SGD with full concurrency."""

from __future__ import annotations

from dataclasses import dataclass

from asgd.core.methods.base import AlwaysBusy, Answer, Decision, Stateless, UseApply, UseNot, View


@dataclass
class Asynchronous(AlwaysBusy, Stateless):
    """Asynchronous SGD: every gradient is applied when it arrives, and its worker goes on at once.

    Formula: x^{t+1} = x^t - eta_t grad F(x^{t - tau_t}, xi_t); then worker j_t gets x^{t+1}, that is, the model after
    its own gradient (A_t = {j_t}). eta_t comes from the step-size rule; a rule that answers 0 drops the gradient: no
    update, the worker gets the current x^t. With n workers and `jobs_per_worker` k the concurrency is n k, and the
    mean delay n k - 1.

    Example:
        >>> Asynchronous().name
        'asynchronous'

    Reference: Koloskova, Stich, Jaggi, arXiv:2206.08307, Algorithm 1 with A_t = {j_t}. We depart from it where a
    worker leaves (its job is lost and it gets no further one) or joins (it gets jobs at the current version).
    """

    name = "asynchronous"

    def arrived(self, view: View, answer: Answer) -> Decision:
        again = (answer.worker,)
        if answer.refusal is not None:
            return Decision(UseNot(answer.refusal), assign=again)
        step_size = view.step_size(answer.delay)
        if step_size.value == 0.0 < step_size.base:
            return Decision(
                UseNot(f"dropped by the step-size rule: delay {answer.delay}, tau_C {view.max_concurrency}"),
                assign=again,
            )
        return Decision(UseApply(step_size), assign=again)
