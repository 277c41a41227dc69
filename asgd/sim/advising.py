"""Advice from a run's record, or from given worker times."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from asgd.core.methods import METHODS
from asgd.errors import ConfigError, RunError
from asgd.run.result import Run
from asgd.sim.advice import Advice, Noise, advise_on
from asgd.sim.pace import measure_pace
from asgd.sim.worker_times import check_times, lengths, read_file, read_spans, refuse_unknown, workers_text

FEW = 5  # jobs of a worker; with more, its first one is left out: in it caches are cold and threads begin


def advise(
    run: Path | str | None = None,
    *,
    times: Sequence[float] | Path | str | None = None,
    noise: float | None = None,
    minibatch_s: float | None = None,
    data_root: Path | str | None = None,
) -> Advice:
    """Say which method suits workers of measured speeds, and how much faster it should be than the others.

    Predicted is the time to a small gradient, relative to mini-batch SGD, by the formulas of `asgd.sim.advice`.

    Args:
        run: a run's directory, ended or not: the times of its jobs, and sigma^2/eps at its newest checkpoint.
        times: instead of a run, seconds per gradient of each worker, or a file of them (see `read_file`).
        noise: sigma^2/eps >= 0: the variance of one job's gradient over the squared gradient norm that is wanted.
        minibatch_s: seconds that mini-batch SGD needs, to have all predictions in seconds. By default those of the
            run, if it has ended, for its own method.
        data_root: where data sets are; see `asgd.train`.

    Errors: ConfigError and RunError, one sentence each, e.g. for a run in which a worker has finished no job.

    Example:
        >>> advice = advise(times=[1.0, 1.0, 1.0, 30.0], noise=4.0)
        >>> advice.methods[0].label
        'm-synchronous, m = 3'
    """
    if (run is None) == (times is None):
        raise ConfigError("advice needs a run or times (--times FILE): allowed is one of them")
    if minibatch_s is not None and not 0.0 < minibatch_s < math.inf:
        raise ConfigError(f"--minibatch-s {minibatch_s}: allowed is a number of seconds above 0")
    if noise is not None and not 0.0 <= noise < math.inf:
        raise ConfigError(f"--noise {noise}: allowed is sigma^2/eps, a number of at least 0")

    def given_s(unit: float) -> float | None:
        return minibatch_s

    if times is not None:
        seconds = read_file(Path(times)) if isinstance(times, str | Path) else _checked(times)
        return advise_on({worker: [one] for worker, one in enumerate(seconds)}, noise, seconds_of=given_s)
    assert run is not None
    opened = Run(run, data_root)
    of_worker, warnings = _times_of(opened)
    ratio = Noise(ratio=noise, source="given") if noise is not None else _estimated(opened, data_root, warnings)
    measured_s = _measured_s(opened, of_worker, ratio) if minibatch_s is None else given_s
    return advise_on(of_worker, ratio, measured=True, seconds_of=measured_s, warnings=warnings)


def _checked(times: Sequence[float]) -> list[float]:
    return check_times(list(times), "times", [f"number {place}" for place in range(1, len(times) + 1)])


def _times_of(run: Run) -> tuple[dict[int, list[float]], list[str]]:
    """Seconds per job of each worker, and what to doubt about them."""
    spans = read_spans(run.path)
    refuse_unknown(spans, run.path)
    found = {worker: lengths(of_worker) for worker, of_worker in sorted(spans.items())}
    missing = [worker for worker in range(run.config.cluster.num_workers) if worker not in found]
    few = {worker: len(times) for worker, times in found.items() if len(times) < FEW}
    warnings = []
    if missing:
        warnings.append(f"{workers_text(missing)} of {run.config.cluster.num_workers} had no job and are left out")
    if few:
        counts = ", ".join(f"worker {worker}: {count}" for worker, count in few.items())
        warnings.append(f"few jobs, so that these workers' times are uncertain: {counts}")
    cancelled = sum(span.cancelled for of_worker in spans.values() for span in of_worker)
    if cancelled:
        warnings.append(
            f"{cancelled} jobs were cancelled before they were done: how long they would have taken is guessed from "
            "their worker's other jobs"
        )
    if run.config.task.partition != "iid":
        warnings.append(
            f'task.partition = "{run.config.task.partition}": the workers have different data, and the formulas are '
            "for the same; methods that take more gradients of fast workers are biased then (see `asgd methods`)"
        )
    return {worker: times[1:] if len(times) > FEW else times for worker, times in found.items()}, warnings


def _estimated(run: Run, data_root: Path | str | None, warnings: list[str]) -> Noise | None:
    """sigma^2/eps by the run's newest checkpoint; None, with a warning, if it can't be known."""
    from asgd.sim.noise import estimate_noise  # loads torch

    try:
        return estimate_noise(run, data_root)
    except RunError as error:
        warnings.append(f"sigma^2/eps can't be estimated: {error}")
        return None


def _measured_s(run: Run, times: Mapping[int, Sequence[float]], noise: Noise | None) -> Callable[[float], float | None]:
    """Gives mini-batch's seconds by those of the run, if it has ended and its method has a pace."""
    method = run.config.method
    info = METHODS[method.name]
    values_decide = info.needs_distance or info.needs_read_parameters or info.answers != "gradient"
    if not run.is_finished or values_decide or method.local_steps or method.jobs_per_worker > 1:
        return lambda unit: None
    pace = measure_pace(list(times.values()), method.name, method.rule, method.options, method.rule_options)
    if pace is None:
        return lambda unit: None
    own = pace.time(float(len(times)) if noise is None else noise.ratio)
    return lambda unit: run.summary.wall_s * unit / own
