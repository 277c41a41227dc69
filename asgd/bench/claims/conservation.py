"""Claim 1: each update ages every other outstanding job by one, so the average delay is the concurrency less one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from asgd.bench.claims.effort import Effort
from asgd.bench.claims.outcome import Outcome, Row, judge
from asgd.bench.claims.profiles import NAMES, speeds_of
from asgd.core.trace import TraceRow
from asgd.run.build import make_state
from asgd.run.ledger import REMOVED, USED, check_trace
from asgd.sim.simulate import emulated
from asgd.sim.study import study_config
from asgd.sim.virtual import VirtualCluster


class Setting(NamedTuple):
    """A method with n workers. `concurrency` is that of its jobs at any update."""

    label: str
    method: str
    num_workers: int
    concurrency: int
    updates: int
    of_method: Mapping[str, Any] = {}

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.of_method)


class Books(NamedTuple):
    """What a run's record says, in integers: sums of ages when they were used, in flight at the end, when they were
    removed; what the updates have aged; the counts; `average`, as the run itself gives it; what is wrong with the
    record otherwise.
    """

    used: int
    in_flight: int
    removed: int
    aged: int
    updates: int
    num_removed: int
    concurrencies: set[int]
    average: float
    problems: list[str]

    @property
    def left(self) -> int:
        return self.used + self.in_flight + self.removed


def books(rows: Sequence[TraceRow], outstanding: Sequence[int], average: float) -> Books:
    """Add up a trace and the ages in flight at its end, without looking at the sums that the core itself keeps.

    Example:
        >>> books([], [], 0.0).left
        0
    """
    updates = [row for row in rows if row.steps]
    removed = [row.delay for row in rows if row.action in REMOVED]
    return Books(
        used=sum(row.delay for row in rows if row.action in USED),
        in_flight=sum(outstanding),
        removed=sum(removed),
        aged=sum(row.concurrency - 1 for row in updates),
        updates=len(updates),
        num_removed=len(removed),
        concurrencies={row.concurrency for row in updates},
        average=average,
        problems=check_trace(rows, outstanding),
    )


def predicted_average(updates: int, concurrency: int) -> Fraction:
    """Definition 4's average delay of a run with constant concurrency C whose T updates used every gradient.

    Formula: T (C - 1) / (T + C - 1). The delays and the ages in flight add up to T (C - 1). C - 1 jobs in flight count:
    when the budget is used up by an update there are no more; when the time is, there is a C-th one, of age 0, that
    the last update's worker was given, and Definition 4 leaves it out. So it is below C - 1 by (C - 1)^2 / (T + C - 1).

    Example:
        >>> predicted_average(4, 2)
        Fraction(4, 5)

    Reference: Koloskova, Stich, Jaggi, arXiv:2206.08307, Definition 4.
    """
    return Fraction(updates * (concurrency - 1), updates + concurrency - 1)


def virtual_books(setting: Setting, profile: str) -> Books:
    """One run of the core in virtual time; its jobs have no content."""
    config = study_config(
        setting.method, setting.num_workers, speeds=speeds_of(profile), budget={"versions": setting.updates},
        **setting.options,
    )  # fmt: skip
    state, rows = make_state(config), list[TraceRow]()
    VirtualCluster(state, setting.num_workers, emulated(config), on_row=rows.append).run()
    return books(rows, state.ledger.in_flight_delays(), state.ledger.average_delay() or 0.0)


REAL_WORKERS = 4
REAL_SECONDS = 0.004  # of the fastest worker's jobs


def real_books(setting: Setting, profile: str, budget: Mapping[str, Any]) -> Books:
    """One run on real processes; from its trace and summary alone."""
    from asgd.api import train

    config = {
        "task": {"function": "quadratic", "options": {"dimension": 10, "sigma2": 0.1}, "batch_size": 1},
        "method": {"name": setting.method, "step_size": 0.05, **setting.options},
        "cluster": {"num_workers": setting.num_workers, "speeds": speeds_of(profile, REAL_SECONDS)},
        "budget": dict(budget),
        "evaluation": {"evaluate": "never"},
    }
    with TemporaryDirectory(prefix="asgd-claim1-") as folder:
        run = train(config, run_dir=Path(folder) / "run")
        return books(run.trace, run.summary.outstanding, run.summary.delay.average)


def row_of(setting: Setting, profile: str, where: str, seen: Books) -> Row:
    """Both sides of the law, and the average where every gradient was used; integers and fractions are compared."""
    concurrency, updates = setting.concurrency, seen.updates
    expected = updates * (concurrency - 1)
    holds = seen.left == seen.aged == expected and seen.concurrencies == {concurrency} and not seen.problems
    parts = f"{seen.used} + {seen.in_flight}" + (f" + {seen.removed}" if seen.num_removed else "")
    predicted, measured = (
        f"{updates} ({concurrency} - 1) = {expected}",
        f"{parts} = {seen.left}, difference {seen.left - seen.aged}",
    )
    if seen.num_removed:
        measured += f" ({seen.num_removed} removed)"
    else:
        average = predicted_average(updates, concurrency)
        predicted += f"; average {expected}/{updates + concurrency - 1} = {float(average):.6g}"
        measured += f"; average {seen.average:.6g}"
        # Both are quotients of the same integers, rounded once: equal, not nearly so.
        holds = holds and seen.average == float(average)
    if seen.problems:
        measured += f"; {seen.problems[0]}"
    return Row(f"{profile}, {setting.label}, {where}", predicted, measured, judge(holds and updates > 0))


def virtual_settings(quick: bool) -> list[Setting]:
    """Algorithms 1 and 2, also with more and fewer jobs than workers, and two methods that remove jobs."""
    updates, many = (500, 1000) if quick else (2000, 10_000)
    return [
        Setting("Algorithm 1, n = 8", "asynchronous", 8, 8, updates),
        Setting("Algorithm 1, n = 64", "asynchronous", 64, 64, many),
        Setting("Algorithm 2, n = C = 8", "random_assignment", 8, 8, updates),
        Setting("Algorithm 2, n = 8, C = 5", "random_assignment", 8, 5, updates, {"options": {"concurrency": 5}}),
        Setting("Algorithm 2, n = 64, C = 96", "random_assignment", 64, 96, many, {"options": {"concurrency": 96}}),
        Setting("drop above C, n = 8", "asynchronous", 8, 8, updates, {"rule": "drop", "rule_options": {"k": 1.0}}),
        Setting("Ringmaster with cancelling, R = 10, n = 8", "ringmaster", 8, 8, updates,
                {"options": {"R": 10, "cancel": True}}),
    ]  # fmt: skip


def real_settings() -> list[Setting]:
    n = REAL_WORKERS
    return [
        Setting(f"Algorithm 1, n = {n}", "asynchronous", n, n, 0),
        Setting(f"Algorithm 2, n = {n}, C = {n + 2}", "random_assignment", n, n + 2, 0,
                {"options": {"concurrency": n + 2}}),
    ]  # fmt: skip


class Run(NamedTuple):
    """One run of a profile and its verdict; `where`: "virtual" or "real processes"."""

    setting: Setting
    profile: str
    where: str
    books: Books

    @property
    def row(self) -> Row:
        return row_of(*self)


def check(effort: Effort) -> Outcome:
    """The law and the average delay under every emulated profile, in virtual time and on real processes."""
    cells = [(setting, profile) for profile in NAMES for setting in virtual_settings(effort.quick)]
    runs = [Run(*cell, "virtual", seen) for cell, seen in zip(cells, effort.map(virtual_books, cells), strict=True)]
    if effort.real:
        effort.say("claim 1: short runs on real processes ...")
        profiles, budget = (NAMES[:3], {"time_s": 0.5}) if effort.quick else (NAMES, {"time_s": 1.0})
        real = [(setting, profile, budget) for profile in profiles for setting in real_settings()]
        found = effort.map(real_books, real)
        runs += [Run(*cell[:2], "real processes", seen) for cell, seen in zip(real, found, strict=True)]
    rows = [_summary(profile, [run for run in runs if run.profile == profile]) for profile in NAMES]
    return Outcome(rows, _finding(runs), details=[run.row for run in runs])


def _summary(profile: str, runs: Sequence[Run]) -> Row:
    """All runs of a profile in a row: both sides added up, and the differences run by run, which don't cancel."""
    places = ", ".join(f"{count} {where}" for where, count in Counter(run.where for run in runs).items())
    aged = sum(run.books.updates * (run.setting.concurrency - 1) for run in runs)
    left, differences = sum(run.books.left for run in runs), sum(abs(run.books.left - run.books.aged) for run in runs)
    wrong = [run.row for run in runs if run.row.verdict != "holds"]
    measured = f"{left:,}; differences {differences}"
    if wrong:
        measured += f"; wrong in {len(wrong)}: {wrong[0].setting}: {wrong[0].measured}"
    return Row(f"{profile} ({places})", f"{aged:,} = sum of T (C - 1); differences 0", measured, judge(not wrong))


def _finding(runs: Sequence[Run]) -> str:
    """What was seen, in words."""
    counts = []
    for where in dict.fromkeys(run.where for run in runs):
        here = [run for run in runs if run.where == where]
        counts.append(f"{len(here)} runs under {len({run.profile for run in here})} profiles ({where})")
    updates, removed = sum(run.books.updates for run in runs), sum(run.books.num_removed for run in runs)
    text = f"{' and '.join(counts)}, {updates:,} updates, {removed:,} jobs removed: "
    wrong = sum(run.row.verdict != "holds" for run in runs)
    if wrong:
        return text + f"both sides differ, or a record or an average is wrong, in {wrong}."
    return text + (
        "both sides are equal to the integer in all. Per update that is exactly C - 1. Definition 4 divides by the "
        "number of gradients, those in flight included: T (C - 1)/(T + C - 1), which is below C - 1 by less than "
        "(C - 1)²/T."
    )
