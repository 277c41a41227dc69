"""What tuning is after and what comes of it: the goal, each simulation's result, the means over seeds, the best.

Loads no torch: the command that waits for the simulations needs none.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any, Literal

import msgspec
import tomli_w

from asgd.errors import ConfigError

STEP_SIZE = "method.step_size"
ScoreName = Literal["final", "time", "gradients"]
Values = dict[str, Any]  # key of the configuration -> the value that is tried


class Goal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a run is scored by.

    Attributes:
        metric: test_loss, train_loss, test_accuracy, or another metric of the task by its name.
        score: "final" (the mean of the evaluations in the last 10% of the budget), "time" or "gradients" (seconds of
            virtual time, or gradients that arrived, at the first evaluation that has reached the target).
        target: of the metric, for "time" and "gradients".
    """

    metric: str = "test_loss"
    score: ScoreName = "final"
    target: float | None = None

    @property
    def metric_rises(self) -> bool:
        """Whether more of the metric is better."""
        return "accuracy" in self.metric

    @property
    def higher_is_better(self) -> bool:
        """Whether a higher score is better: less time, and fewer gradients, always are."""
        return self.metric_rises and self.score == "final"

    def reached(self, value: float) -> bool:
        """Whether a value of the metric is at the target, or better."""
        assert self.target is not None
        return value >= self.target if self.metric_rises else value <= self.target

    def check(self) -> None:
        """Refuse what doesn't belong together; ConfigError."""
        if self.score not in ("final", "time", "gradients"):
            raise ConfigError(f"score = {self.score!r}: allowed are final, time and gradients")
        if self.target is not None and not math.isfinite(self.target):
            raise ConfigError(f"target = {self.target} (--target): allowed is a finite number")
        if (self.target is None) != (self.score == "final"):
            given = "none was given" if self.target is None else f"{self.target:g} was given"
            needs = "goes without a target" if self.score == "final" else "needs a target"
            raise ConfigError(f"score = {self.score!r} {needs} (--target), and {given}")

    def __str__(self) -> str:
        better = "higher" if self.higher_is_better else "lower"
        if self.score == "final":
            return f"mean {self.metric} over the last 10% of the budget ({better} is better)"
        what = "seconds (virtual)" if self.score == "time" else "gradients"
        return f"{what} to {self.metric} = {self.target:g} ({better} is better)"


def common_level(metric: str, values_of_runs: Sequence[Sequence[float]]) -> float | None:
    """The best value of the metric that all runs reach; None where one of them has no value, or there is no run.

    Example:
        >>> common_level("test_loss", [[2.0, 0.5], [1.0, 0.7]]), common_level("test_accuracy", [[0.5], []])
        (0.7, None)
    """
    if not values_of_runs or not all(values_of_runs):
        return None
    if Goal(metric=metric).metric_rises:
        return min(map(max, values_of_runs))
    return max(map(min, values_of_runs))


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One simulation's result; `score` is None for a run that diverged or didn't reach the target; `final` is the mean
    of the metric over the last 10% of the budget, None for a run that didn't get there.

    `gradients` arrived; `discarded` ones did, or were cancelled; `used` is None in files from before it was kept.
    """

    score: float | None
    diverged: bool
    versions: int
    gradients: int
    discarded: int
    time_s: float
    final: float | None = None
    used: int | None = None


class Cell(Measured, frozen=True, kw_only=True):
    """The result of one simulation, and which one it was."""

    values: Values
    seed: int


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One point of the grid: the mean over its simulations, one for each seed.

    Attributes:
        values: what was tried.
        seeds: simulations that have ended.
        score: their mean; None if one of them diverged or missed the target (that is the worst score), or none ended.
        standard_error: of the mean; None with fewer than two simulations.
        diverged, missed: simulations that diverged, and those that didn't reach the target.
        versions: mean number of updates; discarded_share: discarded or cancelled, of all that were
            that or used, 0 to 1.
        best: whether it is the best of all points whose simulations have all ended; best_step_size: of those that
            differ from it in the step size only.
    """

    values: Values
    seeds: int
    score: float | None = None
    standard_error: float | None = None
    diverged: int = 0
    missed: int = 0
    versions: float = 0.0
    discarded_share: float = 0.0
    best: bool = False
    best_step_size: bool = False


class Tuning(msgspec.Struct, frozen=True, kw_only=True):
    """The result of `asgd.tune`, and the content of the file that it writes.

    Attributes:
        config: the configuration that was tuned, before any value of the grid was put in.
        goal: what was scored; higher_is_better: which scores are.
        grid: the values that were tried, by key; seeds: the seeds of each point.
        rows: the points in the order of the grid.
        overrides: "key=value" of the best point, for `asgd.train(config, overrides)`; none if there is no best.
        warnings: sentences about what to doubt.
        complete: False when it was interrupted.
        cells: every simulation that is known, also those of an earlier grid in the same file.
    """

    config: dict[str, Any]
    goal: Goal
    higher_is_better: bool
    grid: dict[str, list[Any]]
    seeds: list[int]
    rows: list[Row]
    overrides: list[str]
    warnings: list[str]
    complete: bool
    cells: list[Cell]

    @property
    def best(self) -> Row | None:
        """The best point."""
        return next((row for row in self.rows if row.best), None)


def cell_key(values: Mapping[str, Any], seed: int) -> bytes:
    """What tells one simulation from another.

    Example:
        >>> cell_key({"b": 1, "a": 0.5}, 3) == cell_key({"a": 0.5, "b": 1}, 3)
        True
    """
    return msgspec.json.encode([values, seed], order="sorted")


def points(grid: Mapping[str, Sequence[Any]]) -> list[Values]:
    """Every combination of the values, the first key's changing slowest.

    Example:
        >>> points({"a": [1, 2], "b": ["x"]})
        [{'a': 1, 'b': 'x'}, {'a': 2, 'b': 'x'}]
    """
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]


def overrides_of(values: Mapping[str, Any]) -> list[str]:
    """The values as overrides of a configuration.

    Example:
        >>> overrides_of({"method.step_size": 0.1, "method.name": "minibatch"})
        ['method.step_size=0.1', 'method.name="minibatch"']
    """
    return [f"{key}={tomli_w.dumps({'_': value}).partition('=')[2].strip()}" for key, value in values.items()]


def make_tuning(
    config: dict[str, Any], goal: Goal, grid: dict[str, list[Any]], seeds: list[int], cells: Iterable[Cell]
) -> Tuning:
    """Put the simulations' results together; in the order of the grid, whatever the order in which they ended."""
    known = {cell_key(cell.values, cell.seed): cell for cell in cells}
    rows = []
    for values in points(grid):
        keys = [cell_key(values, seed) for seed in seeds]
        rows.append(_row(values, [known[key] for key in keys if key in known]))
    ended = [row for row in rows if row.seeds == len(seeds) and row.score is not None]
    ended.sort(key=lambda row: (row.score or 0.0) * (-1.0 if goal.higher_is_better else 1.0))
    best = ended[0] if ended else None
    best_step_sizes: dict[bytes, Row] = {}
    for row in ended:
        best_step_sizes.setdefault(_without_step_size(row), row)
    complete = all(row.seeds == len(seeds) for row in rows)
    return Tuning(
        config=config,
        goal=goal,
        higher_is_better=goal.higher_is_better,
        grid=grid,
        seeds=seeds,
        rows=[
            msgspec.structs.replace(
                row, best=row is best, best_step_size=row is best_step_sizes.get(_without_step_size(row))
            )
            for row in rows
        ],
        overrides=overrides_of(best.values) if best else [],
        warnings=[*_edges(best, grid), *_chosen(rows, seeds)] if best else _no_best(goal) if complete else [],
        complete=complete,
        cells=sorted(known.values(), key=lambda cell: ([str(v) for v in cell.values.values()], cell.seed)),
    )


def _without_step_size(row: Row) -> bytes:
    """The other values of a point."""
    return msgspec.json.encode({key: value for key, value in row.values.items() if key != STEP_SIZE}, order="sorted")


def _row(values: Values, cells: Sequence[Cell]) -> Row:
    if not cells:
        return Row(values=values, seeds=0)
    scores = [cell.score for cell in cells if cell.score is not None]
    good, diverged = len(scores) == len(cells), sum(cell.diverged for cell in cells)
    discarded = sum(cell.discarded for cell in cells)
    ended = discarded + sum(map(_used, cells))
    return Row(
        values=values,
        seeds=len(cells),
        score=statistics.fmean(scores) if good else None,
        standard_error=statistics.stdev(scores) / len(scores) ** 0.5 if good and len(scores) > 1 else None,
        diverged=diverged,
        missed=len(cells) - len(scores) - diverged,
        versions=statistics.fmean(cell.versions for cell in cells),
        discarded_share=discarded / ended if ended else 0.0,
    )


def _used(cell: Cell) -> int:
    """How many gradients were used; where that wasn't kept, as if none had been cancelled."""
    return cell.used if cell.used is not None else max(0, cell.gradients - cell.discarded)


def _edges(best: Row, grid: Mapping[str, Sequence[Any]]) -> list[str]:
    sentences = []
    for key, values in grid.items():
        numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
        value = best.values[key]
        if len(numbers) < max(2, len(values)) or value not in (min(numbers), max(numbers)):
            continue
        end = "largest" if value == max(numbers) else "smallest"
        sentences.append(f"the best {key} = {value:.4g} is the {end} that was tried: the grid should be extended")
    return sentences


def _chosen(rows: Sequence[Row], seeds: Sequence[int]) -> list[str]:
    """What the score of the best is worth: the more points and noise, the more of it is luck."""
    if len(rows) < 2:
        return []
    chosen_by = f"seeds {seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"seed {seeds[0]}"
    return [
        f"the best score is the best of {len(rows)} points with {chosen_by}, which chose it; report runs with other "
        f"seeds ({seeds[0]}, the configured one, chose too)"
    ]


def _no_best(goal: Goal) -> list[str]:
    what = "diverged" if goal.score == "final" else f"diverged or didn't reach {goal.metric} = {goal.target:g}"
    return [f"there is no best: at every point of the grid a run {what}"]
