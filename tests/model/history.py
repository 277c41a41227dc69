"""What has happened to every job, from what the core answered alone: exactly once, and the law of conservation."""

from __future__ import annotations

from typing import NamedTuple

from asgd.core.actions import Accumulate, Action, Apply, Assign, Cancel, Mix, Record, Step, Store
from asgd.core.events import Arrival, Event, Leave, Resume


class Violation(AssertionError):
    """A property of the protocol that doesn't hold."""


def require(holds: bool, what: str) -> None:
    if not holds:
        raise Violation(what)


class Given(NamedTuple):
    """A job that was given, and what became of it: "" while it is outstanding, else the action in its line."""

    worker: int
    version: int
    end: str = ""


class History(NamedTuple):
    """The trace so far, added up. Never changed: each event makes a new one.

    jobs: every job of this line of history; undone: jobs that were given after a checkpoint to which a server went
    back; slots: the jobs whose gradients are in each; version, rows: updates and lines so far; delays: sum over the
    lines; aged: sum over the updates of the other jobs outstanding.
    """

    jobs: dict[int, Given]
    undone: dict[int, Given]
    slots: dict[int, tuple[int, ...]]
    version: int
    rows: int
    delays: int
    aged: int

    def went_back_to(self, saved: History) -> History:
        """The server goes on from `saved`: what was given since is undone, its numbers are not free."""
        since = {job: given for job, given in self.jobs.items() if job not in saved.jobs}
        return saved._replace(undone=self.undone | since)


EMPTY = History({}, {}, {}, 0, 0, 0, 0)


def after(history: History, event: Event, actions: tuple[Action, ...]) -> History:
    """Enter the actions that `event` caused; Violation where they contradict the history or each other."""
    if not actions:
        return history
    jobs, slots = dict(history.jobs), dict(history.slots)
    version, rows, delays, aged = history.version, history.rows, history.delays, history.aged
    used: str | None = None  # how the gradient of the arrival was used, until its line comes
    stepped = False
    cancelled: set[int] = set()
    for action in actions:
        match action:
            case Apply() | Mix():
                require(type(event) is Arrival and used is None, f"a gradient is applied twice: {action}")
                used, stepped = "apply", True
            case Accumulate(slot) | Store(slot):
                require(type(event) is Arrival and used is None, f"a gradient is used twice: {action}")
                used = "accumulate"
                before = () if type(action) is Store else slots.get(slot, ())
                slots[slot] = before + (event.job,)
            case Step(parts, _, keep):
                require(not stepped, f"two updates at once: {action}")
                stepped = True
                for slot, _ in parts:
                    require(bool(slots.get(slot)), f"a step with slot {slot}, which is empty")
                    if not keep:
                        del slots[slot]
            case Cancel(worker, job):
                require(jobs[job].worker == worker, f"job {job} is cancelled at worker {worker}, which doesn't have it")
                cancelled.add(job)
            case Record(row):
                given = jobs.get(row.job)
                require(given is not None, f"job {row.job} ends and was never given")
                require(not given.end, f"job {row.job} ends twice: {given.end}, then {row.action}")
                require((row.worker, row.read_version) == given[:2], f"the line of job {row.job} is another's: {row}")
                require(row.action == _action(event, row.job, used, cancelled), f"job {row.job}: {row.action} recorded")
                in_flight = sum(not job.end for job in jobs.values())
                truth = (rows, version, version - given.version, in_flight, int(stepped))
                written = (row.arrival, row.version, row.delay, row.concurrency, row.steps)
                require(written == truth, f"the line of job {row.job} says {written}, true is {truth}")
                require(row.action in ("apply", "accumulate") or row.reason is not None, f"job {row.job}: no reason")
                jobs[row.job] = given._replace(end=row.action)
                rows, delays = rows + 1, delays + row.delay
                if stepped:
                    version, aged = version + 1, aged + row.concurrency - 1
                used, stepped = None, False
            case Assign(worker, job, read_version):
                require(job not in jobs and job not in history.undone, f"job {job} is given twice")
                require(read_version == version, f"job {job} is given at version {read_version}, which is {version}")
                jobs[job] = Given(worker, read_version)
    require(used is None and not stepped, "a gradient is used, and no line says so")
    if type(event) is Arrival and any(type(action) is Record for action in actions):
        require(bool(jobs[event.job].end), f"job {event.job} has arrived, and no line says what became of it")
    return History(jobs, history.undone, slots, version, rows, delays, aged)


def _action(event: Event, job: int, used: str | None, cancelled: set[int]) -> str:
    """What the line of a job must say."""
    if job in cancelled:
        return "discard"
    if type(event) in (Leave, Resume):
        return "lost"
    return used or "discard"


def check(history: History, plain: dict, finished: bool) -> None:
    """The core's books against the history: the same jobs outstanding, the same slots, and the conservation law."""
    ledger = plain["ledger"]
    outstanding = {job: given for job, given in history.jobs.items() if not given.end}
    books = {job: (worker, version) for job, worker, version, _ in ledger["outstanding"]}
    require({job: given[:2] for job, given in outstanding.items()} == books, "a job is gone without a line, or back")
    ages = sum(history.version - given.version for given in outstanding.values())
    require(history.delays + ages == history.aged, "the conservation law, from the trace alone")
    require((ledger["version"], plain["rows"]) == (history.version, history.rows), "updates or lines are not counted")
    holders = {slot: {worker for worker, _ in held} for slot, held in ledger["in_slots"]}
    require(
        holders == {slot: {history.jobs[job].worker for job in held} for slot, held in history.slots.items()},
        "the slots hold gradients of others than the books say",
    )
    if not finished:
        homeless = {given.worker for given in outstanding.values()} - set(plain["members"])
        require(not homeless, f"jobs of {homeless}, who are gone, are neither lost nor recorded")
