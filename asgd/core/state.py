"""The deciding core: events in, actions out.

The same object decides in the real server, in the virtual-time simulator and in replay. It has no clock, does no
input or output, and never sees a tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from hashlib import blake2b
from math import isfinite
from typing import Any

from asgd.core.actions import (
    Accumulate,
    Action,
    Apply,
    Assign,
    Cancel,
    Finish,
    Mix,
    Quarantine,
    Record,
    Refuse,
    Step,
    StepSize,
    Store,
)
from asgd.core.budget import Budget
from asgd.core.divergence import Divergence
from asgd.core.events import Arrival, Begin, Event, Join, Leave, Resume, Stop, Tick
from asgd.core.guard import NormGuard, Offenders
from asgd.core.invariants import problems
from asgd.core.ledger import Job, Ledger
from asgd.core.methods.base import Answer, Decision, Method, UseAccumulate, UseApply, UseMix, UseNot, UseStore
from asgd.core.schedules import Schedule
from asgd.core.step_rules import Rule
from asgd.core.step_sizes import StepSizes
from asgd.core.trace import TraceRow

NOT_FINITE = "not finite"
CANCELLED = "cancelled"


class ServerState:
    """All that the server decides: versions, delays, step sizes, who computes what.

    Formula: delay = version when the gradient arrives - version at which its job was given; for step sizes see
    `StepSizes`. The conservation law of `Ledger` holds after every event.

    Args:
        method: what to do on an arrival and who gets work next.
        rule, schedule, schedule_over: of the step sizes, see `StepSizes`.
        budget: when the run is over.
        expected_workers: the run begins when so many have joined (or at the event `Begin`), >= 1.
        jobs_per_worker: jobs that a worker may have at once, >= 1.
        first_job: number of the first job, so that numbers stay unique over restarts.
        seed: of what methods draw at random.
        queues: whether a worker may have more jobs than `jobs_per_worker`, worked off first-in first-out.
        norm_guard: k of the `NormGuard`, >= 0; 0: none.
        quarantine_after: limit of the `Offenders`, >= 0; 0: nobody is quarantined.

    Example:
        >>> from asgd.core.methods import make_method
        >>> from asgd.core.step_rules import constant
        >>> state = ServerState(make_method("asynchronous"), constant, Schedule(0.1), Budget(versions=1))
        >>> state.handle(Join(worker=0, now_s=0.0))
        [Assign(worker=0, job=0, version=0)]

    Reference: Koloskova, Stich, Jaggi, arXiv:2206.08307, Algorithms 1 and 2.
    """

    def __init__(
        self,
        method: Method,
        rule: Rule,
        schedule: Schedule,
        budget: Budget,
        *,
        schedule_over: str = "versions",
        expected_workers: int = 1,
        jobs_per_worker: int = 1,
        first_job: int = 0,
        seed: int = 0,
        queues: bool = False,
        norm_guard: float = 0.0,
        quarantine_after: int = 0,
    ) -> None:
        self.method = method
        self._step_sizes = StepSizes(rule, schedule, schedule_over)
        self.budget = budget
        self.expected_workers = expected_workers
        self.jobs_per_worker = jobs_per_worker
        self.seed = seed
        self.queues = queues
        self.ledger = Ledger(next_job=first_job)
        self.samples = 0
        self.gradients = 0
        self.rows = 0
        self.refused = 0
        self.cancelled = 0
        self.begun = False
        self.finished: Finish | None = None
        self._accumulated = 0  # gradients in slots since the last update
        self._members: dict[int, None] = {}
        self._divergence = Divergence()
        self._guard = NormGuard(norm_guard)
        self._offenders = Offenders(quarantine_after)
        self.quarantined: dict[int, str] = {}  # worker -> why
        # Each appends what it causes to the list that `handle` returns: one list per event, no generators on the way.
        self._handlers: dict[type[Any], Callable[[Any, list[Action]], None]] = {
            Join: self._join,
            Leave: self._leave,
            Begin: self._begin,
            Arrival: self._arrival,
            Tick: self._tick,
            Stop: self._stop,
            Resume: self._resume,
        }

    # What a method may see (the protocol `View`).

    @property
    def version(self) -> int:
        return self.ledger.version

    @property
    def concurrency(self) -> int:
        return self.ledger.concurrency

    @property
    def max_concurrency(self) -> int:
        return self.ledger.max_concurrency

    @property
    def workers(self) -> Collection[int]:
        return self._members.keys()

    @property
    def outstanding(self) -> Collection[Job]:
        return self.ledger.outstanding.values()

    def draw(self, purpose: str, counter: int, bound: int) -> int:
        """A number from 0 to bound - 1 that depends on the seed, the purpose and the counter alone."""
        digest = blake2b(f"{self.seed}/{purpose}/{counter}".encode(), digest_size=16).digest()
        return int.from_bytes(digest, "little") % bound  # 128 bits: the bias is below 1e-30 for any bound in use

    def num_jobs(self, worker: int) -> int:
        return self.ledger.num_jobs_of.get(worker, 0)

    def step_size(self, delay: int) -> StepSize:
        return self._step_sizes.of(delay, self.ledger, self.samples)

    # The one way in.

    def handle(self, event: Event) -> list[Action]:
        """Return the actions that `event` causes, in the order in which they must be executed."""
        actions: list[Action] = []
        self._handlers[type(event)](event, actions)
        return actions

    def _join(self, event: Join, actions: list[Action]) -> None:
        if event.worker in self._members or self.num_jobs(event.worker):
            raise ValueError(f"worker {event.worker} has joined already")
        if self.finished or event.worker in self.quarantined:
            return
        self._members[event.worker] = None
        self.ledger.stats_of(event.worker)
        if self.begun:
            self._assign(self.method.joined(self, event.worker).assign, event.now_s, actions)
        elif len(self._members) >= self.expected_workers:
            self._begin(event, actions)

    def _begin(self, event: Begin | Join, actions: list[Action]) -> None:
        if self.begun or self.finished or not self._members:
            return
        self.begun = True
        # The first jobs go out by number, not by who connected first: that is chance, and no record holds it.
        self._members = dict.fromkeys(sorted(self._members))
        self._assign(self.method.begin(self).assign, event.now_s, actions)

    def _arrival(self, event: Arrival, actions: list[Action]) -> None:
        if self.finished:
            return  # the job stays in flight: its age is part of the books
        if self.budget.is_too_late(event.now_s):
            self._tick(event, actions)  # as if the clock had been looked at in time: so runs in virtual time end too
            return
        ledger = self.ledger
        refusal = self._why_refused(event)
        if refusal is not None:
            self.refused += 1
            actions.append(Refuse(event.worker, event.job, refusal))
            return
        concurrency = len(ledger.outstanding)
        job, delay = self._take(event.job)
        finite = event.finite and isfinite(event.loss)
        self._divergence.heard(event.worker, finite)
        self.gradients += 1
        self.samples += event.samples
        seconds = event.compute_s + event.wait_s
        refusal = self._guard.refuses(event.norm) if finite else NOT_FINITE
        answer = Answer(event.worker, event.job, delay, event.samples, refusal, seconds, event.distance)
        decision = self.method.arrived(self, answer)
        if refusal is not None and not isinstance(decision.use, UseNot):
            raise ValueError(f"method {self.method.name} uses a gradient that is refused ({refusal}): {decision}")
        action, reason, step_size, vector_action = self._use(decision, event.worker)
        if vector_action is not None:
            actions.append(vector_action)
        if action == "discard":
            ledger.count_discarded(event.worker, delay)
        else:
            ledger.count_used(event.worker, delay)
        self._conclude(event, job, delay, concurrency, decision, action, reason, step_size, actions)
        if not finite and self._divergence.is_certain(self._members.keys()):
            count = self._divergence.in_a_row
            self._finish(f"diverged: the last {count} gradients were not finite", actions, failed=True)
        self._judge(event, refusal, actions)

    def _judge(self, event: Arrival, refusal: str | None, actions: list[Action]) -> None:
        """Quarantine a worker whose gradients are refused again and again: it leaves, and doesn't come back."""
        if refusal is None:
            self._offenders.sound(event.worker, event.version)
        elif self._offenders.refused(event.worker, event.version) and not self.finished:
            reason = f"quarantined: {self._offenders.limit} of its gradients in a row were refused ({refusal})"
            self.quarantined[event.worker] = reason
            actions.append(Quarantine(event.worker, reason))
            self._leave(Leave(event.worker, reason, event.now_s), actions)

    def _take(self, number: int) -> tuple[Job, int]:
        """Remove an outstanding job; returns it with its delay."""
        self._step_sizes.taken(number)
        return self.ledger.take(number)

    def _use(self, decision: Decision, worker: int) -> tuple[str, str | None, StepSize | None, Action | None]:
        """What is recorded of the use of a gradient (action, reason, step size), and the action that carries it out."""
        # Weight 1/tau_C: each worker's statistics enter as one of tau_C, and a single worker's replace the old ones. So
        # also where gradients are kept in a table, as Ringleader's: no step is the end of a mean over workers there.
        weight = 1.0 / self.ledger.max_concurrency
        match decision.use:
            case UseApply(size, clip, correction) if decision.step is None:
                self.ledger.add_weight(worker, size.value)
                return "apply", None, size, Apply(size, weight, clip, correction)
            case UseMix(share) if decision.step is None:
                self.ledger.add_weight(worker, share)
                return "apply", None, StepSize(share, share), Mix(share, weight)
            case UseAccumulate(slot, share, kept):
                self.ledger.put_in_slot(slot, worker, share)
                if not kept:  # so that the statistics after k gradients are the mean of the k workers'
                    self._accumulated += 1
                    weight = 1.0 / self._accumulated
                return "accumulate", None, None, Accumulate(slot, share, weight)
            case UseStore(slot):
                self.ledger.put_in_slot(slot, worker, 1.0, replace=True)
                return "accumulate", None, None, Store(slot, weight)
            case UseNot(reason):
                return "discard", reason, None, None
        raise ValueError(f"method {self.method.name} doesn't say how the gradient is used, or steps twice: {decision}")

    def _why_refused(self, event: Arrival) -> str | None:
        job = self.ledger.outstanding.get(event.job)
        if job is None:
            return f"job {event.job} is not outstanding"
        if job.worker != event.worker:
            return f"job {event.job} belongs to worker {job.worker}"
        if job.read_version != event.version:
            return f"job {event.job} was given at version {job.read_version}, not {event.version}"
        return None

    def _leave(self, event: Leave, actions: list[Action]) -> None:
        if self._members.pop(event.worker, self) is self or self.finished:
            return
        self._offenders.forget(event.worker)
        for number in [job.job for job in self.ledger.outstanding.values() if job.worker == event.worker]:
            if not self.finished and number in self.ledger.outstanding:
                self._lose(number, event.reason, event.now_s, actions)

    def _lose(self, number: int, reason: str, now_s: float, actions: list[Action]) -> None:
        concurrency = self.ledger.concurrency
        job, age = self._take(number)
        self.ledger.count_lost(job.worker, age)
        decision = self.method.lost(self, job.worker, number)
        if decision.use is not None:
            raise ValueError(f"method {self.method.name} uses the gradient of a lost job")
        if decision.step is not None and not self._members:
            raise ValueError(f"method {self.method.name} makes a step with nobody there")
        event = Arrival(job.worker, number, job.read_version, float("nan"), 0, 0.0, now_s)
        self._conclude(event, job, age, concurrency, decision, "lost", reason, None, actions)

    def _conclude(
        self,
        event: Arrival,
        job: Job,
        delay: int,
        concurrency: int,
        decision: Decision,
        action: str,
        reason: str | None,
        step_size: StepSize | None,
        actions: list[Action],
    ) -> None:
        """What arrivals and losses share: the update, the line of the trace, the end of the budget, new work."""
        if decision.step is not None:
            step_size = decision.step.step_size
            actions.append(Step(decision.step.parts, step_size, decision.step.keep))
            self.ledger.step_with_slots(decision.step.parts, step_size.value, keep=decision.step.keep)
        version = self.ledger.version
        if step_size is not None:
            self.ledger.advance(concurrency)
            self._step_sizes.stepped(step_size.value, self.samples)
            self._accumulated = 0
        # Every field in its order: given by name they take three times as long, which is 7% of an arrival.
        row = TraceRow(
            self.rows,
            event.now_s,
            job.worker,
            job.job,
            job.read_version,
            version,
            delay,
            concurrency,
            action,
            0 if step_size is None else 1,
            None if step_size is None else step_size.value,
            reason,
            event.loss if isfinite(event.loss) else None,
            event.samples,
            event.compute_s,
            event.wait_s,
            event.distance if event.distance is not None and isfinite(event.distance) else None,
            job.assigned_s,
            event.queue_s,
            event.started_s,
        )
        self.rows += 1
        actions.append(Record(row))
        self._tick(event, actions)
        if not self.finished:
            for number in list(decision.cancel):
                self._cancel(number, event.now_s, actions)
            self._assign(decision.assign, event.now_s, actions)

    def _cancel(self, number: int, now_s: float, actions: list[Action]) -> None:
        concurrency = self.ledger.concurrency
        job, age = self._take(number)
        self.ledger.count_discarded(job.worker, age)
        self.cancelled += 1
        actions.append(Cancel(job.worker, number))
        event = Arrival(job.worker, number, job.read_version, float("nan"), 0, 0.0, now_s)
        self._conclude(event, job, age, concurrency, Decision(), "discard", CANCELLED, None, actions)

    def _assign(self, workers: Iterable[int], now_s: float, actions: list[Action]) -> None:
        if self.finished:
            return
        ledger = self.ledger
        for worker in list(workers):  # a copy: methods may give a view of what changes here
            if worker not in self._members:
                raise ValueError(f"method {self.method.name} gives work to worker {worker}, which is not there")
            most = self.jobs_per_worker
            if not self.queues and ledger.num_jobs_of.get(worker, 0) >= most:
                raise ValueError(f"method {self.method.name} gives worker {worker} more than {most} jobs")
            job = ledger.give(worker, now_s)
            self._step_sizes.given(job.job)
            actions.append(Assign(worker, job.job, job.read_version))

    def _tick(self, event: Arrival | Tick, actions: list[Action]) -> None:
        spent = self.ledger.version, self.samples, self.gradients, event.now_s
        if self.budget.is_used_up(*spent):
            name = self.budget.fraction(*spent)[1]
            self._finish(f"budget used up: {name} = {getattr(self.budget, name)}", actions, complete=True)

    def _stop(self, event: Stop, actions: list[Action]) -> None:
        self._finish(event.reason, actions, failed=event.failed)

    def _finish(self, reason: str, actions: list[Action], *, complete: bool = False, failed: bool = False) -> None:
        if self.finished is None:
            self.finished = Finish(reason, complete, failed)
            actions.append(self.finished)

    def _resume(self, event: Resume, actions: list[Action]) -> None:
        for number in list(self.ledger.outstanding):
            if not self.finished and number in self.ledger.outstanding:
                self._lose(number, "the server was restarted", event.now_s, actions)

    # Looking at it from outside.

    def fraction_done(self, now_s: float) -> float:
        """How much of the budget is used, from 0 to 1."""
        return min(1.0, self.budget.fraction(self.ledger.version, self.samples, self.gradients, now_s)[0])

    def validate(self) -> None:
        """Check every invariant; AssertionError with the ones that don't hold."""
        found = problems(self)
        assert not found, "; ".join(found)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {
            "ledger": self.ledger.to_dict(),
            "method": self.method.state(),
            "step_sizes": self._step_sizes.to_dict(),
            "samples": self.samples,
            "gradients": self.gradients,
            "rows": self.rows,
            "refused": self.refused,
            "cancelled": self.cancelled,
            "accumulated": self._accumulated,
            "divergence": self._divergence.to_dict(),
            "guard": self._guard.to_dict(),
            "offenders": self._offenders.to_dict(),
            "quarantined": list(self.quarantined.items()),
            "members": list(self._members),
            "begun": self.begun,
            "finished": None if self.finished is None else list(self.finished),
        }

    def restore(self, plain: dict[str, Any], first_job: int, *, keep: bool = False) -> None:
        """Take over what `to_dict` gave, numbering new jobs from `first_job` on at the earliest.

        Without `keep` the workers are gone: the next event must be `Resume`, which records the jobs that were in flight
        as lost, and the run begins anew with those who join. With `keep` nothing is lost: the workers are there with
        their jobs, and from here on the same events have the same effects as in the state that was saved.
        """
        self.ledger = Ledger.from_dict(plain["ledger"])
        self.ledger.next_job = max(self.ledger.next_job, first_job)
        self.method.restore(plain["method"])
        self._step_sizes.restore(plain["step_sizes"])
        self.samples, self.gradients = plain["samples"], plain["gradients"]
        self.rows, self.refused, self.cancelled = plain["rows"], plain["refused"], plain["cancelled"]
        self._accumulated = plain["accumulated"]
        self._divergence.restore(plain["divergence"])
        if "guard" in plain:  # not in checkpoints from before there was one
            self._guard.restore(plain["guard"])
            self._offenders.restore(plain["offenders"])
            self.quarantined = {worker: reason for worker, reason in plain["quarantined"]}
        if keep:
            self._members = dict.fromkeys(plain["members"])
            self.begun = plain["begun"]
            self.finished = None if plain["finished"] is None else Finish(*plain["finished"])
