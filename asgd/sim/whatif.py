"""What a recorded run would have been with another method, rule or step size, at the times that its workers took.

Which job arrives when is then another story than the record's, so the record's times become those of a model: worker
i's k-th job takes what its k-th job took there, from when the worker was free for it to its end at the server: the
ways, computing, waiting, and the server's own time included. So the server is taken to work as much per job as it did.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from math import isfinite
from pathlib import Path
from typing import Any

import msgspec

from asgd.config import Config, load_config
from asgd.errors import ConfigError
from asgd.run.build import validate
from asgd.run.formats import MetricsRow
from asgd.run.result import Run
from asgd.run.signals import StopRequests
from asgd.sim.result_files import flattened
from asgd.sim.tuning import Goal, common_level
from asgd.sim.worker_times import Span, WorkerTimes, read_spans, refuse_unknown, with_last

MAY_CHANGE = ("method", "optimizer", "schedule", "budget", "evaluation", "checkpoints", "records", "seed")
_TIED_TO_TIMES = ("method.local_steps",)  # what a job computes, and so its time, depends on it


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two runs, recorded or simulated.

    Attributes: method, rule, step_size, options: as configured; stopped_because; wall_s; versions, gradients, discarded
    (cancelled ones too), lost; gradients_per_s (that arrived); mean_delay, max_delay; test_loss, test_accuracy: of the
    last version; to_level_s: seconds to the level, None if it wasn't reached.
    """

    method: str
    rule: str
    step_size: float
    options: dict[str, Any]
    stopped_because: str
    wall_s: float
    versions: int
    gradients: int
    discarded: int
    lost: int
    gradients_per_s: float
    mean_delay: float
    max_delay: int
    test_loss: float | None
    test_accuracy: float | None
    to_level_s: float | None


class WhatIf(msgspec.Struct, frozen=True, kw_only=True):
    """What `asgd whatif` says.

    Attributes: run: the recorded one's directory, run_dir: the simulated one's, if it was to be kept; changed: the
    overrides; metric, level: to which times are compared (None: there is no evaluation to compare); recorded,
    simulated; repeats: how often workers' recorded times had to begin again; notes: what to know about the times;
    sentence.
    """

    run: str
    run_dir: str | None
    changed: list[str]
    metric: str | None
    level: float | None
    recorded: Side
    simulated: Side
    repeats: int
    notes: list[str]
    sentence: str


def whatif(
    run: Path | str,
    overrides: Sequence[str] = (),
    *,
    metric: str | None = None,
    target: float | None = None,
    run_dir: Path | str | None = None,
    data_root: Path | str | None = None,
    overwrite: bool = False,
    progress: Callable[[float, float], None] = lambda fraction, now_s: None,
    stops: StopRequests | None = None,
) -> WhatIf:
    """Drive another method, rule or step size by a recorded run's times, on its task, and compare both.

    Gradients are computed as the workers would; only the time is virtual. See `WorkerTimes` for it.

    Args:
        run: a run's directory; it has ended.
        overrides: "key=value" of what is to be different: of `method` (not its local_steps), `optimizer`, `schedule`,
            `budget`, `evaluation`, or `seed`, and fewer `cluster.num_workers`.
        metric: test_accuracy, test_loss, or another that the task reports; by default the first that there is.
        target: of the metric, to which times are compared; by default the best level that both reached.
        run_dir: keeps the simulated run here (`overwrite`: in place of one that is there).
        data_root: where data sets are; see `asgd.train`.
        progress: takes the used part of the budget (0 to 1) and the virtual time in seconds; stops: requests to stop.

    Errors: ConfigError for a key that may not change, RunError for a run whose times aren't known.

    Example:
        found = asgd.whatif("runs/first", ["method.name=minibatch", "method.step_size=0.4"])
        print(found.sentence)
    """
    from asgd.run.paths import resolve_data_root
    from asgd.sim.simulate import Diverged, simulate_new

    recorded = Run(run, data_root)
    recorded.summary  # noqa: B018  # an error now when the run hasn't ended, before anything is made
    config = changed_config(recorded.config, overrides)
    spans = read_spans(recorded.path)
    refuse_unknown(spans, recorded.path)
    times = WorkerTimes(with_last(spans, recorded.summary.wall_s), config.cluster.num_workers)
    if metric is not None and not any(metric in row.values for row in recorded.metrics):
        known = sorted({name for row in recorded.metrics for name in row.values})
        raise ConfigError(f"--metric {metric}: the recorded run has {', '.join(known) or 'no evaluations'}")
    if target is not None and not isfinite(target):
        raise ConfigError(f"--target {target}: allowed is a finite number")
    with ExitStack() as stack:
        path = Path(run_dir or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="asgd-whatif-"))) / "run")
        if path.exists() and path.samefile(recorded.path):
            raise ConfigError(f"--run-dir {path}: that is the recorded run; allowed is another directory")
        with suppress(Diverged):  # that is an answer
            simulate_new(
                config,
                path,
                times.end_of_job,
                data_root=resolve_data_root(data_root),
                overwrite=overwrite,
                progress=progress,
                stops=stops,
            )
        simulated = Run(path)
        return _compared(recorded, simulated, overrides, metric, target, times, spans, run_dir)


def changed_config(recorded: Config, overrides: Sequence[str]) -> Config:
    """The recorded configuration with the overrides; ConfigError for a key on which the recorded times depend.

    Example:
        >>> changed_config(load_config({"budget": {"versions": 1}}), ["task.batch_size=8"])
        Traceback (most recent call last):
        asgd.errors.ConfigError: task.batch_size: the recorded times are of jobs with 64; allowed are keys of method \
(without local_steps), optimizer, schedule, budget, evaluation, checkpoints, records, seed, and cluster.num_workers
    """
    given = {override.partition("=")[0].strip() for override in overrides}
    method = recorded.method
    # The options of another method or rule would be refused; those that are given come back below.
    if "method.name" in given and load_config(recorded, _only("method.name", overrides)).method.name != method.name:
        method = msgspec.structs.replace(method, options={})
    if "method.rule" in given and load_config(recorded, _only("method.rule", overrides)).method.rule != method.rule:
        method = msgspec.structs.replace(method, rule_options={})
    config = load_config(msgspec.structs.replace(recorded, method=method), overrides)
    validate(config)
    before, after = flattened(recorded), flattened(config)
    allowed = f"{', '.join(MAY_CHANGE).replace('method', 'method (without local_steps)')}, and cluster.num_workers"
    for key in sorted(before.keys() | after.keys()):
        free = key.partition(".")[0] in MAY_CHANGE and key not in _TIED_TO_TIMES
        if not free and key != "cluster.num_workers" and before.get(key) != after.get(key):
            raise ConfigError(
                f"{key}: the recorded times are of jobs with {before.get(key)}; allowed are keys of {allowed}"
            )
    return config


def _only(key: str, overrides: Sequence[str]) -> list[str]:
    return [override for override in overrides if override.partition("=")[0].strip() == key]


def _compared(
    recorded: Run,
    simulated: Run,
    overrides: Sequence[str],
    metric: str | None,
    target: float | None,
    times: WorkerTimes,
    spans: Mapping[int, Sequence[Span]],
    run_dir: Path | str | None,
) -> WhatIf:
    metric = metric or _metric(recorded.metrics, simulated.metrics)
    level = target
    if metric is not None and target is None:
        level = common_level(
            metric,
            [[row.values[metric] for row in run.metrics if metric in row.values] for run in (recorded, simulated)],
        )
    sides = [_side(one, metric, level) for one in (recorded, simulated)]
    return WhatIf(
        run=str(recorded.path),
        run_dir=None if run_dir is None else str(run_dir),
        changed=list(overrides),
        metric=metric,
        level=level,
        recorded=sides[0],
        simulated=sides[1],
        repeats=times.repeats,
        notes=_notes(recorded, simulated.config.cluster.num_workers, times, spans),
        sentence=_sentence(metric, level, *sides),
    )


def _metric(*of_runs: Sequence[MetricsRow]) -> str | None:
    """The first metric of which all runs have values."""
    named = [set().union(*(row.values for row in rows)) for rows in of_runs]
    return next((name for name in ("test_accuracy", "test_loss") if all(name in names for names in named)), None)


def _side(run: Run, metric: str | None, level: float | None) -> Side:
    summary, method = run.summary, run.config.method
    to_level_s = None
    if metric is not None and level is not None:
        goal = Goal(metric=metric, target=level)
        reached = [row.time_s for row in run.metrics if metric in row.values and goal.reached(row.values[metric])]
        to_level_s = min(reached, default=None)
    return Side(
        method=method.name,
        rule=method.rule,
        step_size=method.step_size,
        options=method.options,
        stopped_because=summary.stopped_because,
        wall_s=summary.wall_s,
        versions=summary.versions,
        gradients=summary.arrivals,
        discarded=summary.discarded,
        lost=summary.lost,
        gradients_per_s=summary.arrivals / summary.wall_s if summary.wall_s else 0.0,
        mean_delay=summary.delay.mean_applied,
        max_delay=summary.delay.max,
        test_loss=summary.test_loss,
        test_accuracy=summary.test_accuracy,
        to_level_s=to_level_s,
    )


def _notes(recorded: Run, num_workers: int, times: WorkerTimes, spans: Mapping[int, Sequence[Span]]) -> list[str]:
    notes = []
    if times.repeats:
        most = max(times.used, key=lambda worker: times.used[worker] / len(spans[worker]))
        notes.append(
            f"the simulated run needed more jobs than were recorded: worker {most} took {times.used[most]}, of which "
            f"{len(spans[most])} times are known, which then began again from the first"
        )
    summary, cluster = recorded.summary, recorded.config.cluster
    if summary.lost:
        notes.append(f"the {summary.lost} lost jobs of the recorded run, and the time until the next, are left out")
    cancelled = sum(span.cancelled for worker in range(num_workers) for span in spans[worker])
    if cancelled:
        notes.append(f"{cancelled} recorded jobs were cancelled: how long they would have taken is guessed")
    late = sorted(worker for worker in spans if spans[worker][0].start_s > 0.0 and worker < num_workers)
    if late and recorded.config.method.name != "random_assignment":
        notes.append(f"workers {', '.join(map(str, late))} joined later; in the simulated run they are there at once")
    left_out = sorted(worker for worker in spans if worker >= num_workers)
    if left_out:
        which = ", ".join(map(str, left_out))
        notes.append(f"the times of workers {which} are left out (cluster.num_workers = {num_workers})")
    if cluster.num_workers != num_workers:
        notes.append(f"with {num_workers} workers instead of {cluster.num_workers}")
    if not summary.finished:
        notes.append(f"the recorded run ended before its budget was used up ({summary.stopped_because})")
    return notes


def _sentence(metric: str | None, level: float | None, recorded: Side, simulated: Side) -> str:
    if metric is None or level is None:
        return (
            f"On your cluster, {_gradients(simulated)} would have taken {simulated.wall_s:.4g} s; "
            f"{_gradients(recorded)} took {recorded.wall_s:.4g} s."
        )
    shown = f"{metric} = {level:.4g}"
    would, was = simulated.to_level_s, recorded.to_level_s
    if would is not None and was is not None:
        instead = f"instead of {was:.4g} s{_times(would, was)}"
        return f"On your cluster, that would have taken {would:.4g} s to {shown} {instead}."
    if would is not None:
        return (
            f"On your cluster, that would have taken {would:.4g} s to {shown}, which your run didn't reach in "
            f"{recorded.wall_s:.4g} s."
        )
    ended = f"in its {simulated.wall_s:.4g} s ({simulated.stopped_because})"
    other = f"your run took {was:.4g} s" if was is not None else "nor did your run"
    return f"On your cluster, that would not have reached {shown} {ended}; {other}."


def _times(would: float, was: float) -> str:
    if min(would, was) <= 0.0 or f"{would:.3g}" == f"{was:.3g}":
        return ""
    return f" ({was / would:.2f} times as fast)" if would < was else f" ({would / was:.2f} times as long)"


def _gradients(side: Side) -> str:
    return f"{side.gradients:,} gradients with {side.method}"
