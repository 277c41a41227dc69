"""An event queue in place of processes: who finishes when, driving the same `ServerState` as the real server.

A worker works off its jobs first-in first-out, one at a time; messages take no time beyond the configured
communication delay, which is part of a job's time. Nothing here knows what a job computes: that is `Compute`.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Protocol

from asgd.core.actions import Action, Assign, Cancel, Finish, Quarantine, Record
from asgd.core.events import Arrival, Event, Join, Stop, Tick
from asgd.core.state import ServerState
from asgd.core.trace import TraceRow
from asgd.errors import RunError
from asgd.run.computed import Result


class Compute(Protocol):
    """What jobs compute, and what the core's actions do to the model."""

    def given(self, job: int, version: int) -> None:
        """A job was given at the current parameters."""

    def compute(self, worker: int, job: int) -> Result:
        """Compute a job at the parameters that it was given."""

    def execute(self, action: Action) -> None:
        """Carry out an action on vectors with the answer that was computed last."""

    def ended(self, job: int) -> None:
        """A job has ended, computed or not: its line of the trace is there, and its answer isn't needed any more."""


class Nothing:
    """Jobs without content, to drive the core alone: the model never moves."""

    def given(self, job: int, version: int) -> None:
        pass

    def compute(self, worker: int, job: int) -> Result:
        return Result(1.0, 1, True, 0.0)

    def execute(self, action: Action) -> None:
        pass

    def ended(self, job: int) -> None:
        pass


# takes an event, what the core answered, and whether the run was over before it
Handled = Callable[[Event, Sequence[Action], bool], None]
# (worker, job, when it starts) -> when it is done, both in seconds of the run
EndOfJob = Callable[[int, int, float], float]


@dataclass
class VirtualCluster:
    """n workers in virtual time.

    Arguments: state: the core, new; num_workers: n, all there at time 0; end_of_job: when a job that starts now is
    done;
    compute: what jobs compute; on_row: takes each line of the trace; on_event: called after each event with the time;
    on_handled: takes each event with the core's actions, before they are executed, and whether the run was over before;
    seconds: (compute_s, wait_s) of jobs whose worker has said so, by number; the others compute from start to end;
    stop: the event that ends a run when no job that still runs ever ends (end_of_job = inf); without it that's an
    error.

    Example:
        >>> from asgd.core.methods import make_method
        >>> from asgd.core.schedules import Schedule
        >>> from asgd.core.budget import Budget
        >>> from asgd.core.step_rules import constant
        >>> method, schedule, budget = make_method("asynchronous"), Schedule(0.1), Budget(versions=5)
        >>> state = ServerState(method, constant, schedule, budget, expected_workers=2)
        >>> rows = []
        >>> VirtualCluster(state, 2, lambda worker, job, now: now + 1 + 2 * worker, on_row=rows.append).run()
        4.0
        >>> [(row.worker, row.delay) for row in rows]
        [(0, 0), (0, 0), (1, 2), (0, 1), (0, 0)]
    """

    state: ServerState
    num_workers: int
    end_of_job: EndOfJob
    compute: Compute = field(default_factory=Nothing)
    on_row: Callable[[TraceRow], None] = lambda row: None
    on_event: Callable[[float], None] = lambda now_s: None
    on_handled: Handled = lambda event, actions, finished_before: None
    seconds: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    stop: Stop | None = None
    now_s: float = 0.0
    _heap: list[tuple[float, int, int, Assign, float]] = field(default_factory=list)
    _waiting: dict[int, deque[Assign]] = field(default_factory=dict)
    _running: dict[int, int] = field(default_factory=dict)  # worker -> the place of its job in the order of starts
    _starts: int = 0
    _idle: list[int] = field(default_factory=list)

    def run(self) -> float:
        """Run to the end of the budget and return the virtual time; RunError when nobody has work any more."""
        for worker in range(self.num_workers):
            self._handle(Join(worker, 0.0))
        limit_s = self.state.budget.time_s
        while self.state.finished is None:
            if not self._heap:
                raise self._without_work()
            end_s, place, worker, job, began_s = heapq.heappop(self._heap)
            if self._running.get(worker) != place:
                continue  # cancelled
            if end_s == inf and self.stop is not None and not 0.0 < limit_s <= self.stop.now_s:
                self.now_s = max(self.now_s, self.stop.now_s)
                self._handle(self.stop)
                break
            if limit_s and end_s > limit_s:
                self.now_s = limit_s
                self._handle(Tick(limit_s))
                break
            if end_s == inf:
                raise self._without_work()
            self.now_s = end_s
            result = self.compute.compute(worker, job.job)
            del self._running[worker]
            self._idle.append(worker)
            compute_s, wait_s = self.seconds.get(job.job) or (end_s - began_s, 0.0)
            assigned_s = self.state.ledger.outstanding[job.job].assigned_s
            assert assigned_s is not None  # this core was not restored from a checkpoint
            arrival = Arrival(
                worker,
                job.job,
                job.version,
                result.loss,
                result.samples,
                compute_s,
                end_s,
                wait_s,
                finite=result.finite,
                distance=result.distance,
                queue_s=began_s - assigned_s,  # it was at the worker at once
                started_s=began_s,
                norm=result.norm,
            )
            self._handle(arrival)
        return self.now_s

    def _without_work(self) -> RunError:
        return RunError(f"method {self.state.method.name} has left all {self.num_workers} workers without work")

    def _handle(self, event: Event) -> None:
        finished_before = self.state.finished is not None
        actions = self.state.handle(event)
        self.on_handled(event, actions, finished_before)
        for action in actions:
            match action:
                case Assign():
                    self._waiting.setdefault(action.worker, deque()).append(action)
                    self.compute.given(action.job, action.version)
                    if action.worker not in self._running:
                        self._idle.append(action.worker)
                case Cancel(worker, number):
                    self._cancel(worker, number)
                case Record(row):
                    self.compute.ended(row.job)
                    self.on_row(row)
                case Quarantine(worker):
                    self._waiting.pop(worker, None)
                    self._running.pop(worker, None)
                case Finish():
                    pass
                case _:
                    self.compute.execute(action)
        self._start_idle()
        self.on_event(self.now_s)

    def _start_idle(self) -> None:
        for worker in self._idle:
            waiting = self._waiting.get(worker)
            if worker in self._running or not waiting:
                continue
            job = waiting.popleft()
            if not waiting:
                del self._waiting[worker]  # an empty queue takes more memory than all else that a worker has here
            self._starts += 1
            self._running[worker] = self._starts
            end_s = self.end_of_job(worker, job.job, self.now_s)
            heapq.heappush(self._heap, (end_s, self._starts, worker, job, self.now_s))
        self._idle.clear()

    def _cancel(self, worker: int, number: int) -> None:
        waiting = self._waiting.get(worker, deque())
        for job in waiting:
            if job.job == number:
                waiting.remove(job)
                return
        self._running.pop(worker, None)
        self._idle.append(worker)
