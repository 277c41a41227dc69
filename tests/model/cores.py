"""The real core as a function: (state, event) -> (state, actions), each state a number in a table.

What the exploration asks of the core more than once is remembered. A state is what `to_dict` gives, and the core goes
on from it by `restore(keep=True)`; that nothing is missing in it is tests/core/test_restart.py's to show.
"""

from __future__ import annotations

import marshal
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from asgd.core.actions import Action, Refuse
from asgd.core.events import Arrival, Event, Resume
from asgd.core.state import ServerState

RESUME = Resume(0.0)

# Numbers that are kept for the record alone: nothing is decided by them (nor by the time at which a job was given), so
# states that differ in nothing else are one. They are checked in every state that is reached, by `validate` and once
# more by `history.py`, which has them from the trace.
BOOKS = {
    *("next_job", "version", "num_jobs_of", "num_used", "used_delay_sum", "max_used_delay", "num_discarded"),
    *("num_lost", "removed_age_sum", "aging_sum", "concurrency_sum", "read_version_sum", "per_worker"),
}
LEDGER = {"outstanding", "max_concurrency", "in_slots"}
COUNTS = {"samples", "rows", "refused", "cancelled"}
# The last three stay empty where nobody is judged, as here: their versions would have to be ages otherwise.
DECIDES = {"method", "accumulated", "divergence", "members", "begun", "guard", "offenders", "quarantined"}
ENDS = {"gradients", "finished"}


@dataclass(frozen=True)
class Core:
    """A state of the core, `plain` as `to_dict` gives it, and what is asked of it."""

    plain: dict[str, Any]

    @cached_property
    def rank(self) -> dict[int, int]:
        """The outstanding jobs by number, and which of them was given first, second ..."""
        return {job: rank for rank, (job, *_) in enumerate(self.plain["ledger"]["outstanding"])}

    @cached_property
    def jobs_of(self) -> dict[int, frozenset[int]]:
        jobs: dict[int, frozenset[int]] = {}
        for job, worker, *_ in self.plain["ledger"]["outstanding"]:
            jobs[worker] = jobs.get(worker, frozenset()) | {job}
        return jobs

    @cached_property
    def members(self) -> frozenset[int]:
        return frozenset(self.plain["members"])

    @property
    def begun(self) -> bool:
        return self.plain["begun"]

    @cached_property
    def finished(self) -> bool:
        return self.plain["finished"] is not None

    @cached_property
    def key(self) -> bytes:
        """What the future of this state depends on: versions as ages, jobs by their rank, no books."""
        return marshal.dumps([self._folded, self.plain["gradients"], self.plain["finished"]], 2)

    @cached_property
    def endless_key(self) -> bytes:
        """The same without what only the end of the run depends on."""
        # Version 2 has no references to objects met before, which depend on more than on values.
        return marshal.dumps(self._folded, 2)

    @property
    def _folded(self) -> list[Any]:
        plain, ledger = self.plain, self.plain["ledger"]
        assert ledger.keys() == BOOKS | LEDGER, "a new field: does a decision depend on it?"
        assert plain.keys() == COUNTS | DECIDES | ENDS | {"ledger", "step_sizes"}, "the same"
        return [
            [(worker, ledger["version"] - version) for _, worker, version, _ in ledger["outstanding"]],
            [(slot, [worker for worker, _ in holders]) for slot, holders in ledger["in_slots"]],
            ledger["max_concurrency"],
            _since_read(plain["step_sizes"]["sums"]),
            [plain[name] for name in sorted(DECIDES)],
        ]


def _since_read(sums: dict[str, Any] | None) -> list[str]:
    """For the rules that ask: the step sizes since each job was given."""
    return [] if sums is None else [hex(int(sums["total"], 16) - int(at, 16)) for _, at in sums["at"]]


class Cores:
    """All states that a core made by `make` has been seen in, and where events lead from there."""

    def __init__(self, make: Callable[[], ServerState]) -> None:
        self._state = make()
        self._make = make
        self._numbers: dict[bytes, int] = {}
        self._after: dict[tuple[int, Event], tuple[int, tuple[Action, ...]]] = {}
        self._restarted: dict[tuple[int, int], tuple[int, tuple[Action, ...]]] = {}
        self._refuses: dict[tuple[int, tuple[Arrival, ...]], bool] = {}
        self.seen: list[Core] = []
        self.first = self.number_of(self._state.to_dict())

    def __getitem__(self, number: int) -> Core:
        return self.seen[number]

    def number_of(self, plain: dict[str, Any]) -> int:
        exact = marshal.dumps(plain, 2)
        number = self._numbers.get(exact)
        if number is None:
            number = self._numbers[exact] = len(self.seen)
            self.seen.append(Core(plain))
        return number

    def after(self, number: int, event: Event) -> tuple[int, tuple[Action, ...]]:
        """Where `event` leads, and with which actions; AssertionError where the invariants don't hold any more."""
        known = self._after.get((number, event))
        if known is None:
            self._state.restore(self.seen[number].plain, 0, keep=True)
            actions = tuple(self._state.handle(event))
            self._state.validate()
            known = self._after[number, event] = self.number_of(self._state.to_dict()), actions
        return known

    def restarted(self, number: int, first_job: int) -> tuple[int, tuple[Action, ...]]:
        """A new server that was given the state `number` as a checkpoint, after its first event, `RESUME`."""
        known = self._restarted.get((number, first_job))
        if known is None:
            state, actions = self._resumed(number, first_job)
            known = self._restarted[number, first_job] = self.number_of(state.to_dict()), actions
        return known

    def _resumed(self, number: int, first_job: int) -> tuple[ServerState, tuple[Action, ...]]:
        state = self._make()
        state.restore(self.seen[number].plain, first_job)
        actions = tuple(state.handle(RESUME))
        state.validate()
        return state, actions

    def refuses(self, number: int, *events: Arrival) -> bool:
        """Whether all of these are refused and counted, and nothing else happens (after the end: not even that)."""
        known = self._refuses.get((number, events))
        if known is None:
            known = self._refuses[number, events] = self._tries(self.seen[number], events)
        return known

    def _tries(self, core: Core, events: tuple[Arrival, ...]) -> bool:
        self._state.restore(core.plain, 0, keep=True)
        expected = [] if core.finished else [Refuse]
        if any([type(action) for action in self._state.handle(event)] != expected for event in events):
            return False
        return self._state.to_dict() == core.plain | {"refused": core.plain["refused"] + len(events) * len(expected)}


class OneCore(Cores):
    """For a single run: one core that goes on from event to event, held at each against a new one that was restored."""

    def __init__(self, make: Callable[[], ServerState]) -> None:
        super().__init__(make)
        self._running = make()

    def after(self, number: int, event: Event) -> tuple[int, tuple[Action, ...]]:
        self._state = self._make()
        known = super().after(number, event)
        actions = tuple(self._running.handle(event))
        self._running.validate()
        assert (self.number_of(self._running.to_dict()), actions) == known, "a restored core goes on in another way"
        return known

    def restarted(self, number: int, first_job: int) -> tuple[int, tuple[Action, ...]]:
        self._running, actions = self._resumed(number, first_job)
        return self.number_of(self._running.to_dict()), actions
