"""One simulation, scored: what tuning runs many times, in memory."""

from __future__ import annotations

import math
import statistics

from asgd.config import Config
from asgd.core.events import Stop
from asgd.errors import ConfigError
from asgd.learn.task import Task
from asgd.run.formats import MetricsRow
from asgd.sim.simulate import Simulation, emulated
from asgd.sim.tuning import Goal, Measured

# A test loss above this multiple of its value at version 0 (of 1, if that is less) won't come back: the run is ended.
DIVERGED_FACTOR = 1000.0
LAST_PART = 0.9
_ROUNDING = 1e-9


def check_metric(metric: str, task: Task) -> None:
    """Refuse a metric that the task doesn't report; ConfigError."""
    if task.test is None:
        raise ConfigError("the task has no test data, so its runs are never evaluated and have no score")
    own = {"accuracy": "test_accuracy"}
    allowed = ["test_loss", "train_loss", *(own.get(name, name) for name in task.metrics)]
    if metric not in allowed:
        raise ConfigError(f"metric = {metric!r}: this task reports {', '.join(allowed)}")


def measure(config: Config, task: Task, goal: Goal) -> Measured:
    """Simulate a run and score it; it is ended early once it has diverged, or reached the goal's target.

    It has diverged when an evaluation isn't finite, when its test loss is above 1000 times what it was at version 0
    (or 1, if that was less), or when the core says so, after many gradients in a row that weren't finite.

    Arguments: config: emulated speeds, and evaluations; task: the configured one; goal: with a metric that it reports.

    Example:
        >>> from asgd.config import load_config
        >>> from asgd.learn.tasks import quadratic
        >>> speeds = {"profile": "equal", "seconds": 1.0}
        >>> config = load_config({"budget": {"versions": 40}, "cluster": {"num_workers": 2, "speeds": speeds}})
        >>> measure(config, quadratic(dimension=4), Goal(metric="suboptimality", score="time", target=1e9)).time_s
        0.0
    """
    simulation = Simulation(config, task, emulated(config))
    state = simulation.state
    seen: list[tuple[float, float]] = []  # used part of the budget, the metric
    reached: list[float] = []
    first_loss: list[float] = []

    def hear(row: MetricsRow) -> None:
        loss, value = row.test_loss, row.value(goal.metric)
        assert loss is not None
        first_loss.append(loss)
        if not math.isfinite(loss) or loss > DIVERGED_FACTOR * max(1.0, abs(first_loss[0])):
            state.handle(Stop(f"diverged: the test loss is {loss:g}", row.time_s, failed=True))
        elif value is not None and not math.isfinite(value):
            state.handle(Stop(f"diverged: {goal.metric} is {value}", row.time_s, failed=True))
        elif value is not None:
            seen.append((state.fraction_done(row.time_s), value))
            if goal.target is not None and not reached and goal.reached(value):
                reached.append(row.time_s if goal.score == "time" else state.gradients)
                state.handle(Stop("the target is reached", row.time_s))

    summary = simulation.run(on_metrics=hear)
    assert state.finished is not None
    diverged = state.finished.failed
    final = None if diverged or reached or not seen else _final(seen)
    return Measured(
        score=None if diverged else final if goal.score == "final" else reached[0] if reached else None,
        diverged=diverged,
        versions=summary.versions,
        gradients=summary.arrivals,
        discarded=summary.discarded,
        time_s=summary.wall_s,
        final=final,
        used=summary.used,
    )


def _final(seen: list[tuple[float, float]]) -> float:
    """The mean over the last part of the budget; a model that wasn't updated there counts as it was left."""
    last = [value for fraction, value in seen if fraction >= LAST_PART - _ROUNDING]
    return statistics.fmean(last or [seen[-1][1]])
