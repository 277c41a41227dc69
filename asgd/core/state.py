"""The deciding core: events in, actions out.

The same object decides in the real server, in the virtual-time simulator and in replay. It has no clock, does no
input or output, and never sees a tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from hashlib import blake2b
from math import isfinite
from typing import Any

from asgd.core.actions import Action, Assign, Cancel, Finish, Quarantine, Record, Refuse, Step, StepSize
from asgd.core.budget import Budget
from asgd.core.events import Arrival, Begin, Event, Join, Leave, Resume, Stop, Tick
from asgd.core.invariants import problems
from asgd.core.judge import NOT_FINITE, Judge
from asgd.core.ledger import Job, Ledger
from asgd.core.methods.base import Answer, Decision, Method, UseNot
from asgd.core.schedules import Schedule
from asgd.core.step_rules import Rule
from asgd.core.step_sizes import StepSizes
from asgd.core.trace import TraceRow
from asgd.core.uses import Uses

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
        norm_guard, quarantine_after: of the judgement of gradients, see `Judge`.

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
        self._uses = Uses(method.name)
        self._members: dict[int, None] = {}
        self._judge = Judge(norm_guard, quarantine_after)
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

    @property
    def quarantined(self) -> dict[int, str]:
        """Worker -> why."""
        return self._judge.quarantined

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
        if self.finished or event.worker in self._judge.quarantined:
            return  # with jobs still in flight, if the run ended when it left
        if event.worker in self._members or self.num_jobs(event.worker):
            raise ValueError(f"worker {event.worker} has joined already")
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
        self.gradients += 1
        self.samples += event.samples
        seconds = event.compute_s + event.wait_s
        refusal = self._judge.refusal(event)
        answer = Answer(event.worker, event.job, delay, event.samples, refusal, seconds, event.distance)
        decision = self.method.arrived(self, answer)
        if refusal is not None and not isinstance(decision.use, UseNot):
            raise ValueError(f"method {self.method.name} uses a gradient that is refused ({refusal}): {decision}")
        action, reason, step_size, vector_action = self._uses.of(decision, event.worker, ledger)
        if vector_action is not None:
            actions.append(vector_action)
        if action == "discard":
            ledger.count_discarded(event.worker, delay)
        else:
            ledger.count_used(event.worker, delay)
        self._conclude(event, job, delay, concurrency, decision, action, reason, step_size, actions)
        if refusal == NOT_FINITE:
            diverged = self._judge.divergence(self._members.keys())
            if diverged is not None:
                self._finish(diverged, actions, failed=True)
        offence = self._judge.offence(event.worker, event.version, refusal)
        if offence is not None and not self.finished:
            self._quarantine(event.worker, offence, event.now_s, actions)

    def _quarantine(self, worker: int, reason: str, now_s: float, actions: list[Action]) -> None:
        """A worker whose gradients are refused again and again leaves, and doesn't come back."""
        self._judge.quarantined[worker] = reason
        actions.append(Quarantine(worker, reason))
        self._leave(Leave(worker, reason, now_s), actions)

    def _take(self, number: int) -> tuple[Job, int]:
        """Remove an outstanding job; returns it with its delay."""
        self._step_sizes.taken(number)
        return self.ledger.take(number)

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
        self._judge.forget(event.worker)
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
            self._uses.accumulated = 0
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
            "accumulated": self._uses.accumulated,
            **self._judge.to_dict(),
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
        self._uses.accumulated = plain["accumulated"]
        self._judge.restore(plain)
        if keep:
            self._members = dict.fromkeys(plain["members"])
            self.begun = plain["begun"]
            self.finished = None if plain["finished"] is None else Finish(*plain["finished"])
