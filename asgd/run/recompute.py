"""A journal's events into a new core, every job computed again: what replay and recovery share.

The core is given the events as they were recorded, so its decisions can be compared one by one with what the journal
and the trace say; what a worker had sent (loss, samples, whether it was finite) is compared with what its job gives
now.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from asgd.config import BudgetConfig, Config, task_digest
from asgd.core.actions import Action, Assign, Cancel, Finish, Quarantine, Record, Refuse
from asgd.core.events import Arrival, Event
from asgd.core.state import ServerState
from asgd.core.trace import TraceRow
from asgd.errors import RunError
from asgd.run.build import make_state
from asgd.run.journal import Entry, Header, Opened, outcome_of
from asgd.run.records import JOBS_PER_INCARNATION

if TYPE_CHECKING:  # who only follows the core's decisions needs no torch
    from asgd.run.compute import TaskCompute

Value = float | int | str | bool | None


class Difference(NamedTuple):
    """Where a recomputed run differs from its record: at which line of the trace, in what."""

    arrival: int
    key: str
    recorded: Value
    recomputed: Value

    def sentence(self) -> str:
        """It in words."""
        return f"arrival {self.arrival}: {self.key} is {self.recorded!r} in the record and {self.recomputed!r} again"


def same(recorded: Value, recomputed: Value) -> bool:
    """Whether two values are the same to the bit; what is no number is the same as itself."""
    return recorded == recomputed or (recorded != recorded and recomputed != recomputed)


def header_for(config: Config, incarnation: int) -> Header:
    """The first record of a journal that is begun now."""
    return Header(config.seed, config.method.name, task_digest(config), incarnation)


def opened_by(config: Config, state: ServerState, incarnation: int, *, kept: bool) -> Opened:
    """The record of a server that starts now, with this configuration and this state."""
    budget = config.budget
    limits = (budget.versions, budget.samples, budget.gradients, budget.time_s)
    first_job = incarnation * JOBS_PER_INCARNATION
    return Opened(incarnation, first_job, kept, state.rows, state.version, config.cluster.num_workers, limits)


def as_opened(config: Config, opened: Opened) -> Config:
    """The configuration that a server had when it started: of what the core needs, budget and number of workers may
    change when a run goes on.
    """
    versions, samples, gradients, time_s = opened.budget
    budget = BudgetConfig(versions=versions, samples=samples, gradients=gradients, time_s=time_s)
    cluster = msgspec.structs.replace(config.cluster, num_workers=opened.num_workers)
    return msgspec.structs.replace(config, budget=budget, cluster=cluster)


def reopened(config: Config, state: ServerState, opened: Opened) -> ServerState:
    """The state that a server starts with, made from the one before it by way of a checkpoint's JSON, as servers do."""
    again = make_state(as_opened(config, opened))
    again.restore(json.loads(json.dumps(state.to_dict())), opened.first_job, keep=opened.kept)
    return again


class Recomputation:
    """Drives a core and a model with the entries of a journal.

    Arguments: config: the run's; compute: the model; state: the core as it was where the entries begin; on_row: takes
    each line of the trace that comes out.
    Attributes: state: the core (another object after each start of a server); differences: from what the journal says;
    num_computed: jobs; now_s: the time of the last event; was_resuming: whether the last entry is the start of a server
    that hadn't yet recorded the jobs of before as lost.
    """

    def __init__(
        self,
        config: Config,
        compute: TaskCompute,
        state: ServerState,
        on_row: Callable[[TraceRow], None] = lambda row: None,
    ) -> None:
        self.state, self.differences, self.num_computed, self.now_s = state, list[Difference](), 0, 0.0
        self._config, self._compute, self._on_row, self.was_resuming = config, compute, on_row, False

    def take(self, entry: Entry) -> None:
        """One entry; RunError when the journal doesn't go on where the last entry ended."""
        self.was_resuming = isinstance(entry.event, Opened) and not entry.event.kept
        match entry.event:
            case Opened() as opened:
                if (opened.rows, opened.version) != (self.state.rows, self.state.version):
                    raise RunError(
                        f"the journal has a gap: a server started at arrival {opened.rows}, version {opened.version}, "
                        f"and the events before it end at arrival {self.state.rows}, version {self.state.version}"
                    )
                self.state = reopened(self._config, self.state, opened)
            case Arrival() as arrival:
                self._arrival(arrival, entry)
            case event:
                self._handle(event)

    def _arrival(self, arrival: Arrival, entry: Entry) -> None:
        row = self.state.rows
        job = self.state.ledger.outstanding.get(arrival.job)
        if job is None or (job.worker, job.read_version) != (arrival.worker, arrival.version):
            given = None if job is None else f"worker {job.worker} at version {job.read_version}"
            said = f"worker {arrival.worker} at version {arrival.version}"
            self.differences.append(Difference(row, f"owner of job {arrival.job}", said, given))
            return
        result = self._compute.compute(arrival.worker, arrival.job)
        self.num_computed += 1
        for key in ("loss", "samples", "finite", "distance", "norm"):
            self._compare(row, key, getattr(arrival, key), getattr(result, key))
        outcome = outcome_of(self._handle(arrival))
        assert entry.outcome is not None
        self._compare(row, "action", entry.outcome.action, outcome.action)
        self._compare(row, "step_size", entry.outcome.step_size, outcome.step_size)

    def _compare(self, row: int, key: str, recorded: Value, recomputed: Value) -> None:
        if not same(recorded, recomputed):
            self.differences.append(Difference(row, key, recorded, recomputed))

    def _handle(self, event: Event) -> Sequence[Action]:
        self.now_s = max(self.now_s, event.now_s)
        actions = self.state.handle(event)
        for action in actions:
            match action:
                case Assign(_, number, version):
                    self._compute.given(number, version)
                case Record(row):
                    self._compute.ended(row.job)
                    self._on_row(row)
                case Cancel() | Finish() | Refuse() | Quarantine():
                    pass
                case _:
                    self._compute.execute(action)
        return actions
