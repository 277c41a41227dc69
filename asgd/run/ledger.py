"""Checks a run's history from its record alone, and gives the delay statistics that follow from it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate

from asgd.core.ledger import average_delay
from asgd.core.trace import TraceRow
from asgd.run.formats import DelaySummary

USED = ("apply", "accumulate")  # the gradients that reach the parameters
REMOVED = ("discard", "lost")  # jobs that end without an effect of their own
MAX_PROBLEMS = 20


def conservation(rows: Sequence[TraceRow], outstanding: Sequence[int]) -> tuple[int, int]:
    """Both sides of the conservation law, which are equal in every true history.

    Formula:
        sum of delays of used jobs + ages in flight at the end + ages at removal of discarded or lost jobs
            = sum over updates of (concurrency just before the update - 1)

        Each update ages every other outstanding job by one. A row's `delay` is its job's age when it left, whatever
        became of it; a row with `steps` = 1 is an update, and its `concurrency` the one just before.

    Arguments:
        rows: the whole history, from arrival 0.
        outstanding: delays (ages, in updates) of the jobs still in flight after the last row.

    Example:
        >>> row = TraceRow(arrival=0, time_s=0.1, worker=0, job=0, read_version=0, version=0, delay=0, concurrency=2,
        ...                action="apply", steps=1, step_size=0.05, reason=None, loss=2.3, samples=64,
        ...                compute_s=0.02, wait_s=0.0)
        >>> conservation([row], outstanding=[1, 0])  # the other job has aged by one, the new one has not
        (1, 1)

    Source: derived from the definitions of Koloskova, Stich, Jaggi, arXiv:2206.08307, Section 2.
    """
    left = sum(row.delay for row in rows) + sum(outstanding)
    right = sum(row.steps * (row.concurrency - 1) for row in rows)
    return left, right


def delay_statistics(rows: Sequence[TraceRow], outstanding: Sequence[int]) -> DelaySummary:
    """Mean, average (Definition 4), maximum and per-worker means of the delays, in updates.

    Formula:
        mean_applied = (sum of delays of used gradients) / (number of used gradients)
        average = (sum of delays of used gradients + sum in flight, without j_T) / (T + |C_T| - 1), see core.ledger
        max = the largest of both groups

        Definition 4 divides by T + |C_T| - 1, leaving out the job that made the last update: it is no longer among
        `outstanding`, so the numbers are the same when every used gradient is one update. Means of nothing are 0.

    Arguments:
        rows: the whole history, from arrival 0; only "apply" and "accumulate" rows count.
        outstanding: delays of the jobs still in flight after the last row.

    Example:
        >>> delay_statistics([], outstanding=[2, 4]).average
        3.0

    Source: Koloskova, Stich, Jaggi, arXiv:2206.08307, Definition 4.
    """
    used = [row.delay for row in rows if row.action in USED]
    of_worker: dict[int, list[int]] = {}
    for row in rows:
        if row.action in USED:
            of_worker.setdefault(row.worker, []).append(row.delay)
    return DelaySummary(
        mean_applied=_mean(used),
        average=average_delay(sum(used), len(used), outstanding) or 0.0,
        max=max([*used, *outstanding], default=0),
        per_worker={worker: _mean(delays) for worker, delays in sorted(of_worker.items())},
    )


def check_trace(rows: Sequence[TraceRow], outstanding: Sequence[int] | None) -> list[str]:
    """Everything in a history that cannot be true, one sentence each; an empty list when the books balance.

    Checked: arrivals consecutive from 0, time not decreasing, each version the number of updates before it, delays
    exact, jobs unique, actions with the steps and step sizes that belong to them, concurrency possible, and the
    conservation law to the integer. Not more than MAX_PROBLEMS sentences about rows are given, then their number.

    Arguments:
        rows: the whole history, from arrival 0.
        outstanding: delays of the jobs still in flight after the last row; None where nobody wrote them down (a run
            that was killed): then the conservation law, and how many jobs can be outstanding at most, aren't checked.

    Example:
        >>> check_trace([], outstanding=[3])[0]
        'A job in flight at the end has delay 3, and only 0 updates were made.'
    """
    problems: list[str] = []
    seen: dict[int, int] = {}
    versions, time_s = 0, 0.0
    for number, row in enumerate(rows):
        where = f"Row {number}"
        if row.arrival != number:
            problems.append(f"{where} has arrival {row.arrival}, and arrivals are consecutive from 0.")
        if row.version != versions:
            problems.append(f"{where} has version {row.version}, and {versions} updates were made before it.")
        if row.delay != row.version - row.read_version:
            problems.append(f"{where} has delay {row.delay}, and {row.version} - {row.read_version} is its age.")
        if row.delay < 0 or row.read_version < 0:
            problems.append(f"{where} has read version {row.read_version}, delay {row.delay}: neither can be negative.")
        if row.job in seen:
            problems.append(f"{where} has job {row.job}, which row {seen[row.job]} had: a job comes once.")
        seen.setdefault(row.job, number)
        if not math.isfinite(row.time_s) or row.time_s < time_s:
            problems.append(f"{where} has time {row.time_s} s, after {time_s} s: time does not go back.")
        else:
            time_s = row.time_s
        problems.extend(f"{where} {fault}." for fault in _faults(row))
        versions += row.steps
    problems.extend(_impossible_concurrency(rows, outstanding, versions))
    if len(problems) > MAX_PROBLEMS:
        problems[MAX_PROBLEMS:] = [f"And {len(problems) - MAX_PROBLEMS} more."]
    if outstanding is None:
        return problems
    problems.extend(
        f"A job in flight at the end has delay {age}, and only {versions} updates were made."
        for age in outstanding
        if not 0 <= age <= versions
    )
    left, right = conservation(rows, outstanding)
    if left != right:
        problems.append(
            f"The conservation law does not hold: the ages of all jobs add up to {left}, and the updates have aged "
            f"the jobs by {right}."
        )
    return problems


def _faults(row: TraceRow) -> list[str]:
    """What one row says that no row may say."""
    faults: list[str] = []
    if row.action not in USED + REMOVED:
        faults.append(f"has action {row.action!r}, and only {', '.join(USED + REMOVED)} exist")
    if row.steps not in (0, 1):
        faults.append(f"made {row.steps} updates, and an arrival makes 0 or 1")
    if row.action == "apply" and row.steps != 1:
        faults.append("applies a gradient without an update")
    if row.steps == 0 and row.step_size is not None:
        faults.append(f"has step size {row.step_size} without an update")
    if row.steps != 0 and (row.step_size is None or not math.isfinite(row.step_size) or row.step_size < 0.0):
        faults.append(f"makes an update with step size {row.step_size}, and it must be a finite number of at least 0")
    if row.concurrency < 1:
        faults.append(f"has concurrency {row.concurrency}, and its own job counts")
    if row.worker < 0 or row.job < 0 or row.samples < 0:
        faults.append(f"has worker {row.worker}, job {row.job}, samples {row.samples}: none can be negative")
    if not (0.0 <= row.compute_s < math.inf and 0.0 <= row.wait_s < math.inf):
        faults.append(f"computed for {row.compute_s} s and waited for {row.wait_s} s: both are finite and at least 0")
    if not 0.0 <= row.queue_s < math.inf:
        faults.append(f"lay at the worker for {row.queue_s} s, and that is finite and at least 0")
    if row.assigned_s is not None and not 0.0 <= row.assigned_s <= row.time_s:
        faults.append(f"was given at {row.assigned_s} s, and arrived at {row.time_s} s")
    if row.started_s is not None and not math.isfinite(row.started_s):
        faults.append(f"was begun at {row.started_s} s, which is not finite")
    return faults


def _impossible_concurrency(rows: Sequence[TraceRow], outstanding: Sequence[int] | None, versions: int) -> list[str]:
    """Rows whose concurrency is outside what the jobs of the whole history allow.

    A job that leaves later is certainly outstanding now when it was given at an earlier version, and may be when it was
    given at the present one; when within a version a job was given is not on record, so there are bounds, not a number.
    """
    if any(not 0 <= row.read_version <= row.version <= versions for row in rows):
        return []  # told already; the counts below would mean nothing
    given = Counter(row.read_version for row in rows)
    given.update(versions - age for age in outstanding or ())
    before = [0, *accumulate(given[version] for version in range(versions + 1))]  # jobs given before version v
    problems: list[str] = []
    gone_of_version: Counter[int] = Counter()
    for gone, row in enumerate(rows):
        most = before[row.version + 1] - gone if outstanding is not None else math.inf
        fewest = before[row.version] - (gone - gone_of_version[row.version])
        fewest += row.read_version == row.version  # its own job is certain
        if not fewest <= row.concurrency <= most:
            problems.append(
                f"Row {gone} has concurrency {row.concurrency}, and from {fewest} to {most} jobs were outstanding."
            )
        gone_of_version[row.read_version] += 1
    return problems


def _mean(numbers: Sequence[int]) -> float:
    return sum(numbers) / len(numbers) if numbers else 0.0
