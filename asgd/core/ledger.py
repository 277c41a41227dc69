"""The books of a run: the version, the outstanding jobs, every delay, and the conservation law between them.

The ledger is the one owner of these integers. Every operation is O(1) per gradient, whatever the number of workers;
only a step with slots that are kept goes through all workers in them each time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Job(NamedTuple):
    """An outstanding job: its number, the worker that has it, the version that was current when it was given, and when
    that was (None in a checkpoint from before this was recorded).
    """

    job: int
    worker: int
    read_version: int
    assigned_s: float | None = None


@dataclass(slots=True)
class WorkerStats:
    """What one worker has contributed: used gradients (applied or accumulated), their delays, and what was not used;
    `weight`: the sum of the step sizes with which its gradients went into the model.
    """

    used: int = 0
    delay_sum: int = 0
    max_delay: int = 0
    discarded: int = 0
    lost: int = 0
    weight: float = 0.0


def average_delay(used_delay_sum: int, num_used: int, in_flight_delays: Iterable[int]) -> float | None:
    """Average delay of a run, the jobs in flight at its end included.

    Formula: tau_avg = (sum of the delays of used gradients + sum of the delays in flight, without j_T) / (T + |C_T|
    - 1).
    C_T contains one job per worker, so the job that the last finisher was just given (delay 0) is one of them, and
    leaving one out is what the -1 says. When the budget ends a run, that job isn't given any more: then nothing is
    left out here.

    Args:
        used_delay_sum: sum of the delays of the gradients that were applied or accumulated.
        num_used: their number T >= 0.
        in_flight_delays: T - (version at which the job was given) of every job outstanding at the end.

    Returns: the average, or None when there is nothing to average.

    Example:
        >>> average_delay(used_delay_sum=3, num_used=3, in_flight_delays=[3])
        1.5

    Reference: Koloskova, Stich, Jaggi, arXiv:2206.08307, Definition 4.
    """
    in_flight = list(in_flight_delays)
    if num_used and 0 in in_flight:
        in_flight.remove(0)
    count = num_used + len(in_flight)
    return (used_delay_sum + sum(in_flight)) / count if count else None


@dataclass(slots=True)
class Ledger:
    """Version, outstanding jobs and delay sums.

    The conservation law: each update ages every other outstanding job by one, so at any moment, in integers,

        used_delay_sum + (sum of ages in flight) + removed_age_sum = aging_sum

    with aging_sum = sum over the updates so far of (jobs outstanding just before the update - 1).
    """

    next_job: int = 0
    version: int = 0
    outstanding: dict[int, Job] = field(default_factory=dict)
    num_jobs_of: dict[int, int] = field(default_factory=dict)
    max_concurrency: int = 0
    num_used: int = 0
    used_delay_sum: int = 0
    max_used_delay: int = 0
    num_discarded: int = 0
    num_lost: int = 0
    removed_age_sum: int = 0
    aging_sum: int = 0
    concurrency_sum: int = 0
    read_version_sum: int = 0
    per_worker: dict[int, WorkerStats] = field(default_factory=dict)
    in_slots: dict[int, dict[int, float]] = field(
        default_factory=dict
    )  # slot -> worker -> weight of its gradients there

    @property
    def concurrency(self) -> int:
        """|C_t|, the number of jobs outstanding now."""
        return len(self.outstanding)

    @property
    def in_flight_age_sum(self) -> int:
        return self.version * len(self.outstanding) - self.read_version_sum

    def in_flight_delays(self) -> list[int]:
        """Delays that the outstanding jobs have by now, in the order in which they were given."""
        return [self.version - job.read_version for job in self.outstanding.values()]

    def stats_of(self, worker: int) -> WorkerStats:
        stats = self.per_worker.get(worker)
        if stats is None:
            stats = self.per_worker[worker] = WorkerStats()
        return stats

    def give(self, worker: int, now_s: float) -> Job:
        """Add a new job of `worker` at the current version."""
        job = Job(self.next_job, worker, self.version, now_s)
        self.next_job += 1
        self.outstanding[job.job] = job
        self.num_jobs_of[worker] = self.num_jobs_of.get(worker, 0) + 1
        self.read_version_sum += self.version
        if len(self.outstanding) > self.max_concurrency:
            self.max_concurrency = len(self.outstanding)
        return job

    def take(self, job: int) -> tuple[Job, int]:
        """Remove an outstanding job; returns it with the delay that it has at this moment."""
        taken = self.outstanding.pop(job)
        self.read_version_sum -= taken.read_version
        left = self.num_jobs_of[taken.worker] - 1
        if left:
            self.num_jobs_of[taken.worker] = left
        else:
            del self.num_jobs_of[taken.worker]
        return taken, self.version - taken.read_version

    def count_used(self, worker: int, delay: int) -> None:
        self.num_used += 1
        self.used_delay_sum += delay
        stats = self.stats_of(worker)
        stats.used += 1
        stats.delay_sum += delay
        if delay > stats.max_delay:
            stats.max_delay = delay
            self.max_used_delay = max(self.max_used_delay, delay)

    def count_discarded(self, worker: int, age: int) -> None:
        self.num_discarded += 1
        self.removed_age_sum += age
        self.stats_of(worker).discarded += 1

    def count_lost(self, worker: int, age: int) -> None:
        self.num_lost += 1
        self.removed_age_sum += age
        self.stats_of(worker).lost += 1

    def add_weight(self, worker: int, step_size: float) -> None:
        """A gradient of `worker` has made a step of this size by itself."""
        self.stats_of(worker).weight += step_size

    def put_in_slot(self, slot: int, worker: int, weight: float, *, replace: bool = False) -> None:
        """Weight times a gradient of `worker` is added to a slot, or takes the place of what was there."""
        if replace or slot not in self.in_slots:
            self.in_slots[slot] = {}
        holders = self.in_slots[slot]
        holders[worker] = holders.get(worker, 0.0) + weight

    def step_with_slots(self, parts: Iterable[tuple[int, float]], step_size: float, *, keep: bool) -> None:
        """A step with the sum of scale times slot over `parts`; the slots are then empty unless `keep`.

        O(workers in them), so O(1) for each gradient that was put there, unless they are kept.
        """
        for slot, scale in parts:
            for worker, weight in self.in_slots[slot].items():
                self.stats_of(worker).weight += step_size * scale * weight
            if not keep:
                del self.in_slots[slot]

    def advance(self, concurrency_before: int) -> None:
        """One update: the version grows, every other outstanding job ages by one."""
        self.version += 1
        self.aging_sum += concurrency_before - 1
        self.concurrency_sum += concurrency_before

    def mean_used_delay(self) -> float | None:
        return self.used_delay_sum / self.num_used if self.num_used else None

    def mean_concurrency(self) -> float | None:
        """Mean of |C_t| over the updates, each counted just before it."""
        return self.concurrency_sum / self.version if self.version else None

    def average_delay(self) -> float | None:
        return average_delay(self.used_delay_sum, self.num_used, self.in_flight_delays())

    def max_delay(self) -> int:
        """tau_max: over the used gradients and the jobs in flight."""
        return max(self.max_used_delay, max(self.in_flight_delays(), default=0))

    def problems(self) -> list[str]:
        """Every invariant that doesn't hold, as sentences; O(outstanding)."""
        found = []
        if self.used_delay_sum + self.in_flight_age_sum + self.removed_age_sum != self.aging_sum:
            found.append(
                f"conservation: used {self.used_delay_sum} + in flight {self.in_flight_age_sum} + removed "
                f"{self.removed_age_sum} != {self.aging_sum} aged"
            )
        if self.in_flight_age_sum != sum(self.in_flight_delays()):
            found.append("the sum of ages in flight differs from the ages of the outstanding jobs")
        counts: dict[int, int] = {}
        for number, job in self.outstanding.items():
            counts[job.worker] = counts.get(job.worker, 0) + 1
            if number != job.job or number >= self.next_job or not 0 <= job.read_version <= self.version:
                found.append(
                    f"outstanding job {number} is impossible: {job}, next job {self.next_job}, version {self.version}"
                )
        if counts != self.num_jobs_of:
            found.append("the number of jobs by worker differs from the outstanding jobs")
        totals = [
            (sum(s.used for s in self.per_worker.values()), self.num_used, "used"),
            (sum(s.delay_sum for s in self.per_worker.values()), self.used_delay_sum, "delays"),
            (sum(s.discarded for s in self.per_worker.values()), self.num_discarded, "discarded"),
            (sum(s.lost for s in self.per_worker.values()), self.num_lost, "lost"),
        ]
        found += [f"{what}: workers have {left}, the run has {right}" for left, right, what in totals if left != right]
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, for a checkpoint."""
        plain = {name: getattr(self, name) for name in Ledger.__slots__}
        plain["outstanding"] = [list(job) for job in self.outstanding.values()]
        plain["num_jobs_of"] = list(self.num_jobs_of.items())
        names = WorkerStats.__slots__  # not dataclasses.asdict, which takes seconds for 100,000 workers
        plain["per_worker"] = [
            [worker, {name: getattr(stats, name) for name in names}] for worker, stats in self.per_worker.items()
        ]
        plain["in_slots"] = [[slot, list(holders.items())] for slot, holders in self.in_slots.items()]
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Ledger:
        values = dict(plain)
        values["outstanding"] = {job[0]: Job(*job) for job in plain["outstanding"]}
        values["num_jobs_of"] = {worker: count for worker, count in plain["num_jobs_of"]}
        values["per_worker"] = {worker: WorkerStats(**stats) for worker, stats in plain["per_worker"]}
        values["in_slots"] = {
            slot: {worker: weight for worker, weight in holders} for slot, holders in plain["in_slots"]
        }
        return cls(**values)
