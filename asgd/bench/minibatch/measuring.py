"""One real run of a benchmark: started, read back into a row, and its directory made small."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from asgd.api import train
from asgd.bench.minibatch.plan import DDP, Contender, Plan
from asgd.bench.minibatch.results import Look, Purpose, RealRun
from asgd.config import Config
from asgd.core.trace import TraceRow
from asgd.errors import ConfigError, Interrupted, RunError
from asgd.run.formats import MetricsRow
from asgd.run.result import Run
from asgd.run.signals import StopRequests
from asgd.sim.tuning import STEP_SIZE, Values


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One real run that is to be done."""

    purpose: Purpose
    setting: str
    contender: Contender
    values: Values
    seed: int
    budget_s: float

    @property
    def folder(self) -> str:
        """The name of its directory below runs/."""
        key = self.contender.key.replace(":", "-")
        other = "".join(f"-{value}" for name, value in self.values.items() if name != STEP_SIZE)
        return f"{self.purpose}-{self.setting}-{key}-{self.values[STEP_SIZE]:.4g}{other}-{self.seed}"


# Does a job with a directory for its run, and stops when asked to: Interrupted.
Runner = Callable[[Plan, Job, Path, Path, StopRequests], RealRun]


def run_job(plan: Plan, job: Job, folder: Path, data_root: Path, stops: StopRequests) -> RealRun:
    """Do a job on real processes; its run stays in `folder`/NAME without checkpoints.

    Errors: Interrupted when asked to stop; RunError when the run fails otherwise than by diverging; ConfigError when
    its task doesn't report the benchmark's metric.
    """
    config = plan.run_config(job.setting, job.contender, job.values, job.seed, job.budget_s)
    path = folder / job.folder
    try:
        if job.contender.key == DDP:
            return _run_ddp(plan, job, config, data_root, stops)
        run = train(config, run_dir=path, data_root=data_root, overwrite=True, stops=stops)
    except RunError as error:
        if "diverged" not in str(error):
            raise
        shutil.rmtree(path, ignore_errors=True)
        return _row(job, diverged=True)
    # Asked to stop after its budget it has finished, but not all of its evaluations are there.
    if stops.asked or not run.summary.finished:
        reason = run.summary.stopped_because
        shutil.rmtree(path, ignore_errors=True)
        raise (
            Interrupted(reason)
            if stops.asked or reason.startswith("interrupted")
            else RunError(f"a run ended before its budget was used up: {reason}")
        )
    row = row_of(job, run, plan.protocol.metric)
    shutil.rmtree(path / "checkpoints", ignore_errors=True)
    return row


def row_of(job: Job, run: Run, metric: str) -> RealRun:
    """What is kept of a run that has ended."""
    summary = run.summary
    if not summary.evaluations_missing:
        check_reported(metric, run.metrics)
    seconds_N, round_s = speeds(run.trace, run.config.cluster.num_workers)
    return _row(
        job,
        looks=looks_of(run.metrics, metric),
        gradients=summary.arrivals,
        used=summary.used,
        discarded=summary.discarded,
        samples=summary.samples,
        versions=summary.versions,
        wall_s=summary.wall_s,
        delay_mean=summary.delay.mean_applied,
        delay_max=summary.delay.max,
        server_busy=summary.server.busy_fraction,
        seconds_N=seconds_N,
        round_s=round_s,
        lost=summary.lost,
        restarts=summary.restarts,
        evaluations_missing=summary.evaluations_missing,
    )


def looks_of(metrics: Sequence[MetricsRow], metric: str) -> list[Look]:
    """The evaluations of a run in order of their versions, with the metric by its name.

    Example:
        >>> looks_of([MetricsRow(time_s=1.0, version=2, samples_seen=64, results={"f": 0.5})], "f")
        [Look(time_s=1.0, samples=64, value=0.5)]
    """
    rows = sorted(metrics, key=lambda row: row.version)
    return [Look(row.time_s, row.samples_seen, row.value(metric)) for row in rows]


def check_reported(metric: str, metrics: Sequence[MetricsRow]) -> None:
    """Refuse a metric that no evaluation of a run has; ConfigError.

    Tuning in virtual time refuses it before it begins; with real speeds the first run is what says it.

    Example:
        >>> check_reported("f", [MetricsRow(time_s=1.0, version=2, samples_seen=64, test_loss=1.0, results={"g": 0.5})])
        Traceback (most recent call last):
        asgd.errors.ConfigError: benchmark.metric = 'f': this task reports test_loss, train_loss, g
    """
    if not metrics:
        raise ConfigError(f"benchmark.metric = {metric!r}: the task has no test data, so that no run is evaluated")
    own = [name for name in ("test_loss", "test_accuracy") if any(row.value(name) is not None for row in metrics)]
    reported = list(dict.fromkeys([*own, "train_loss", *(name for row in metrics for name in row.others)]))
    if metric not in reported:
        raise ConfigError(f"benchmark.metric = {metric!r}: this task reports {', '.join(reported)}")


def speeds(trace: Sequence[TraceRow], num_workers: int) -> tuple[list[float] | None, float | None]:
    """Each worker's mean seconds per job, and the mean over versions of the longest job that was given at one.

    The second is what a round of mini-batch SGD takes; of its runs' traces only. None where a worker did no job.
    """
    by_worker: dict[int, list[float]] = defaultdict(list)
    by_version: dict[int, list[float]] = defaultdict(list)
    for row in trace:
        if row.samples:
            by_worker[row.worker].append(row.compute_s + row.wait_s)
            by_version[row.read_version].append(row.compute_s + row.wait_s)
    whole = [max(seconds) for seconds in by_version.values() if len(seconds) == num_workers]
    if len(by_worker) < num_workers:
        return None, None
    means_N = [sum(by_worker[worker]) / len(by_worker[worker]) for worker in sorted(by_worker)]
    return means_N, sum(whole) / len(whole) if whole else None


def _run_ddp(plan: Plan, job: Job, config: Config, data_root: Path, stops: StopRequests) -> RealRun:
    from asgd.bench.ddp import run_ddp

    done = run_ddp(config, data_root, stops=stops)
    if stops.asked:
        raise Interrupted("interrupted")
    check_reported(plan.protocol.metric, done.metrics)
    return _row(
        job,
        looks=looks_of(done.metrics, plan.protocol.metric),
        gradients=done.gradients,
        used=done.gradients,
        samples=done.samples,
        versions=done.versions,
        wall_s=done.wall_s,
    )


def _row(job: Job, **found: Any) -> RealRun:
    return RealRun(
        setting=job.setting,
        contender=job.contender.key,
        values=job.values,
        seed=job.seed,
        purpose=job.purpose,
        budget_s=job.budget_s,
        **found,
    )
