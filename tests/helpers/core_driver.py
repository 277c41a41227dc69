"""A driver of the core for tests: executes actions on plain floats, with a scripted or random order of arrivals.

It is independent of the package's own drivers, and validates every invariant after each event.
"""

from __future__ import annotations

import math

from asgd.core.actions import (
    Accumulate,
    Apply,
    Assign,
    Cancel,
    Compensate,
    DivideByGap,
    Finish,
    Mix,
    Quarantine,
    Record,
    Refuse,
    Step,
    Store,
)
from asgd.core.budget import Budget
from asgd.core.events import Arrival, Join, Leave, Stop
from asgd.core.methods import METHODS, make_method
from asgd.core.schedules import Schedule
from asgd.core.state import ServerState
from asgd.core.step_rules import make_rule


def make_state(method="asynchronous", rule="constant", step_size=0.1, *, workers=1, budget=None, **options):
    rule_options = options.pop("rule_options", None)
    jobs_per_worker = options.get("jobs_per_worker", 1)
    options.setdefault("queues", METHODS[method].queues)
    return ServerState(
        make_method(method, options.pop("method_options", None), jobs_per_worker),
        make_rule(rule, rule_options),
        options.pop("schedule", None) or Schedule(step_size),
        budget or Budget(versions=10**9),
        expected_workers=workers,
        **options,
    )


class Driver:
    """Runs a `ServerState` on the problem whose gradient at x is `gradient(x, job)`."""

    def __init__(self, state, x=1.0, gradient=lambda x, job: x):
        self.state, self.x, self.gradient = state, x, gradient
        self.rows, self.refused, self.finished, self.cancelled, self.quarantined = [], [], None, [], []
        self.given = {}  # job -> (worker, version, x)
        self.queue = {}  # worker -> jobs in the order given
        self.slots = {}
        self.mean_square, self.num_squares = 0.0, 0
        self.now_s = 0.0

    def corrected(self, correction, g, moved):
        match correction:
            case Compensate(strength, decay, eps):
                if decay is not None:
                    self.mean_square = decay * self.mean_square + (1 - decay) * g * g
                    strength /= math.sqrt(self.mean_square + eps)
                return g + strength * g * g * moved
            case DivideByGap(longest_step, decay, eps):
                self.num_squares += 1
                self.mean_square = decay * self.mean_square + (1 - decay) * g * g
                step = longest_step * (math.sqrt(self.mean_square / (1 - decay**self.num_squares)) + eps)
                return g / (1 + abs(moved) / step)
        return g

    def handle(self, event, arrived=None):
        for action in self.state.handle(event):
            match action:
                case Apply(step_size, _, clip, correction):
                    arrived = self.corrected(correction, arrived, self.x - self.given[event.job][2])
                    if clip is not None and abs(arrived) > clip:
                        arrived = clip if arrived > 0 else -clip
                    self.x -= step_size.value * arrived
                case Mix(weight, _):
                    self.x = (1 - weight) * self.x + weight * arrived
                case Accumulate(slot, weight, _):
                    self.slots[slot] = self.slots.get(slot, 0.0) + weight * arrived
                case Store(slot, _):
                    self.slots[slot] = arrived
                case Step(parts, step_size, keep):
                    self.x -= step_size.value * sum(scale * self.slots[slot] for slot, scale in parts)
                    for slot, _ in () if keep else parts:
                        del self.slots[slot]
                case Cancel(worker, job):
                    self.queue[worker].remove(job)
                    self.cancelled.append(job)
                case Assign(worker, job, version):
                    assert job not in self.given, "job numbers are unique"
                    assert version == self.state.version
                    self.given[job] = (worker, version, self.x)
                    self.queue.setdefault(worker, []).append(job)
                case Record(row):
                    self.rows.append(row)
                case Refuse():
                    self.refused.append(action)
                case Quarantine(worker, reason):
                    self.queue.pop(worker, None)
                    self.quarantined.append((worker, reason))
                case Finish():
                    self.finished = action
        self.state.validate()

    def tick(self):
        self.now_s += 1.0
        return self.now_s

    def join(self, *workers):
        for worker in workers:
            self.handle(Join(worker, self.tick()))

    def leave(self, worker, reason="died"):
        self.queue.pop(worker, None)
        self.handle(Leave(worker, reason, self.tick()))

    def answer(self, worker, *, finite=True, loss=1.0, samples=1, norm=None):
        """The worker's oldest job arrives."""
        job = self.queue[worker].pop(0)
        _, version, x = self.given[job]
        distance = abs(self.x - x)
        now_s = self.tick()
        event = Arrival(worker, job, version, loss, samples, 1.0, now_s, finite=finite, distance=distance, norm=norm)
        self.handle(event, self.gradient(x, job))
        return job

    def answers(self, order):
        for worker in order:
            self.answer(worker)

    def stop(self):
        self.handle(Stop("stopped", self.tick()))

    def column(self, name):
        return [getattr(row, name) for row in self.rows]
