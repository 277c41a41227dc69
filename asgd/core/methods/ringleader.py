"""Ringleader ASGD: a table with the gradients of all workers, and one update for each of them per round."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from asgd.core.actions import StepSize
from asgd.core.methods.base import Answer, Decision, TakeStep, UseAccumulate, UseNot, UseStore, View

# worker -> [slot with the sum of its gradients, how many they are]
Table = dict[int, list[int]]


@dataclass
class Ringleader:
    """Ringleader ASGD: every step averages over all workers, and no worker waits, though their data differ.

    Formula: x^{k+1} = x^k - eta (1/n) sum_i G_i / b_i, with G_i the sum of the b_i gradients of worker i in the table,
    n the workers in it, and eta the scheduled step size. Rounds of two phases:

    1. Collect: every gradient goes into the table, and its worker goes on at the current version, until all workers
       are in the table; the last one's arrival makes the first step and phase 2.
    2. Update: the next gradient of each other worker goes into the table and makes a step; that worker is then done
       for the round. What a worker that is done sends goes into a second table, which is the first one of the next
       round, once all are done.

    So a round makes n steps, each with a mean over workers of means over their gradients: fast workers lower the noise
    instead of weighing more. No gradient is dropped, and none is used more than 2n - 2 updates after the version that
    it was computed at. The delays in the trace are those at arrival. The configured step-size rule has no effect; a
    step uses the whole table, so take eta smaller than for mini-batch SGD (the theory: about n times).

    A worker that leaves is not waited for, and its gradients leave both tables with it. One that joins in phase 1 is
    waited for, one that joins in phase 2 belongs to the next round. Nor is a worker waited for whose answer could not
    be used: it is out of the table, or without its update, for one round.

    Costs: a vector per worker and table on the server (2n at most), and O(n) vectors of work per step, O(n) also of the
    core's own, which is O(1) with other methods: the sum over the table is made anew each time. A running sum would be
    O(1), but its rounding errors add up over a run.

    Example:
        >>> Ringleader().name
        'ringleader'

    Reference: Maranjyan, Richtarik, "Ringleader ASGD", arXiv:2509.22860, read in a published implementation and in two
    summaries, not in the paper itself. In the implementation, as here, a worker whose gradient went into the second
    table gets the newest version; by one of the summaries it gets a new version once per round only. What happens
    when workers leave or join or a gradient is not finite is ours.
    """

    name = "ringleader"
    updating: bool = False  # phase 2
    waiting: set[int] = field(default_factory=set)  # phase 1: not heard of yet; phase 2: without their update yet
    table: Table = field(default_factory=dict)
    later: Table = field(default_factory=dict)
    free_slots: list[int] = field(default_factory=list)
    num_slots: int = 0

    def begin(self, view: View) -> Decision:
        # A restarted server has lost all jobs, and with them the tables; but whoever made the arrival that ended the
        # run had none to lose.
        self.free_slots += [slot for table in (self.table, self.later) for slot, _ in table.values()]
        self.table, self.later = {}, {}
        self.updating, self.waiting = False, set(view.workers)
        return Decision(assign=view.workers)

    def joined(self, view: View, worker: int) -> Decision:
        if not self.updating:
            self.waiting.add(worker)
        return Decision(assign=(worker,))

    def arrived(self, view: View, answer: Answer) -> Decision:
        worker, again = answer.worker, (answer.worker,)
        if answer.refusal is not None:
            self._no_longer_wait_for(view, worker)
            return Decision(UseNot(answer.refusal), assign=again)
        if self.updating and worker not in self.waiting:
            return Decision(self._add(self.later, worker), assign=again)
        use = self._add(self.table, worker)
        self.waiting.discard(worker)
        if not self.updating:
            if self.waiting:
                return Decision(use, assign=again)
            self.updating, self.waiting = True, set(self.table) - {worker}
        base = view.step_size(0).base
        n = len(self.table)
        parts = tuple((slot, 1.0 / (count * n)) for slot, count in self.table.values())
        step = TakeStep(parts, StepSize(base, base), keep=bool(self.waiting))
        if not self.waiting:
            self._end_round(view)
        return Decision(use, step, assign=again)

    def lost(self, view: View, worker: int, job: int) -> Decision:
        for table in (self.table, self.later):
            if worker in table:
                self.free_slots.append(table.pop(worker)[0])
        # Never a step here: everybody else is computing, and the next arrival goes on with the round.
        self._no_longer_wait_for(view, worker)
        return Decision()

    def _no_longer_wait_for(self, view: View, worker: int) -> None:
        self.waiting.discard(worker)
        if self.waiting:
            return
        if self.updating:
            self._end_round(view)
        elif not self.table:
            self.waiting = set(view.workers)  # nobody's gradient could be used: again

    def _end_round(self, view: View) -> None:
        self.free_slots += [slot for slot, _ in self.table.values()]
        self.table, self.later = self.later, {}
        self.updating, self.waiting = False, {worker for worker in view.workers if worker not in self.table}

    def _add(self, table: Table, worker: int) -> UseStore | UseAccumulate:
        entry = table.get(worker)
        if entry is not None:
            entry[1] += 1
            return UseAccumulate(entry[0], kept=True)
        if not self.free_slots:
            self.free_slots.append(self.num_slots)
            self.num_slots += 1
        table[worker] = [self.free_slots.pop(), 1]
        return UseStore(table[worker][0])  # a slot that was in use may still hold a vector

    def state(self) -> dict[str, Any]:
        return {
            "updating": self.updating,
            "waiting": sorted(self.waiting),
            "table": [[worker, *entry] for worker, entry in self.table.items()],
            "later": [[worker, *entry] for worker, entry in self.later.items()],
            "free_slots": list(self.free_slots),
            "num_slots": self.num_slots,
        }

    def restore(self, plain: dict[str, Any]) -> None:
        self.updating, self.waiting = plain["updating"], set(plain["waiting"])
        self.table = {worker: [slot, count] for worker, slot, count in plain["table"]}
        self.later = {worker: [slot, count] for worker, slot, count in plain["later"]}
        self.free_slots, self.num_slots = list(plain["free_slots"]), plain["num_slots"]
