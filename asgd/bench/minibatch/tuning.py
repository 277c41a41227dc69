"""Which simulations a benchmark's tuning needs, and which step size they choose: pure functions of what is known.

All contenders of a setting have one grid. What is still missing, how far the grid was widened and what is best all
follow from the record, so that an interrupted benchmark goes on where it was.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from asgd.bench.minibatch.plan import Contender, Plan
from asgd.bench.minibatch.results import Cell, RealRun, Record
from asgd.sim.tuning import STEP_SIZE, Goal, Values, points

ROOM = 1.5  # a confirming run's seconds, relative to what the best point needed when it was tuned


class Wanted(NamedTuple):
    """One run of tuning that is to be done."""

    setting: str
    contender: Contender
    values: Values
    seed: int


class Rank(NamedTuple):
    """How good a point is, the smaller the better: `kind` 0 reached the target with every seed (or there is none), 1
    missed it, 2 diverged; `missed` seeds; `badness` the mean seconds, or the metric's mean where it was missed, with
    the sign that makes less better.
    """

    kind: int
    missed: int
    badness: float


class Choice(NamedTuple):
    """What a contender's tuning comes to.

    `values`: the best point; `rank`: its; `grid`: the step sizes that were tried; `candidates`: the points that are
    confirmed for real, the best one first; `confirm_s`: for how long.
    """

    values: Values
    rank: Rank
    grid: list[float]
    candidates: list[Values]
    confirm_s: float


def rank(cells: Sequence[Cell], goal: Goal) -> Rank:
    """The rank of a point by its cells, one for each seed.

    Example:
        >>> def cell(score, final=None, diverged=False):
        ...     return Cell(setting="", contender="", values={}, seed=0, score=score, final=final, diverged=diverged,
        ...                 gradients=1, time_s=1.0)
        >>> time = Goal(metric="test_accuracy", score="time", target=0.5)
        >>> rank([cell(2.0), cell(4.0)], time), rank([cell(2.0), cell(None, 0.4)], time)
        (Rank(kind=0, missed=0, badness=3.0), Rank(kind=1, missed=1, badness=-0.4))
    """
    # Not every value is finite that a run ends with, though it was told to go on.
    if any(cell.diverged or (cell.score is None and cell.final is None) for cell in cells):
        return Rank(2, len(cells), math.inf)
    sign = -1.0 if goal.metric_rises else 1.0
    scores = [cell.score for cell in cells if cell.score is not None]
    if len(scores) == len(cells):
        return Rank(0, 0, statistics.fmean(scores) * (sign if goal.score == "final" else 1.0))
    finals = [cell.final for cell in cells if cell.score is None and cell.final is not None]
    return Rank(1, len(cells) - len(scores), sign * statistics.fmean(finals))


def grid_points(plan: Plan, step_sizes: Iterable[float]) -> list[Values]:
    """Every point of the grid: the step sizes with each combination of the keys that are tuned along."""
    return points({**plan.protocol.also, STEP_SIZE: list(step_sizes)})


def missing(plan: Plan, record: Record, setting: str) -> list[Wanted]:
    """The runs of tuning that a setting still needs before the next decision; none when it is tuned."""
    return _missing(plan, record, setting, _widened(plan, record, setting))


def choose(plan: Plan, record: Record, setting: str, contender: Contender) -> Choice:
    """A contender's best point of a setting that is tuned."""
    step_sizes = _widened(plan, record, setting)
    best, best_rank = _best(plan, record, setting, contender, grid_points(plan, step_sizes))
    place = step_sizes.index(best[STEP_SIZE])
    near = [step_sizes[i] for i in (place, place - 1, place + 1) if 0 <= i < len(step_sizes)]
    needed_s = best_rank.badness if best_rank.kind == 0 and plan.protocol.target is not None else math.inf
    candidates = [{**best, STEP_SIZE: step_size} for step_size in near]
    return Choice(best, best_rank, step_sizes, candidates, min(plan.config.budget.time_s, round(ROOM * needed_s, 3)))


def edge_of(step_sizes: Sequence[float], values: Values) -> str | None:
    """Whether a point's step size is the "smallest" or "largest" of the grid; an only one is the "smallest".

    Example:
        >>> edge_of([0.5, 1.0, 2.0], {STEP_SIZE: 2.0}), edge_of([0.5, 1.0, 2.0], {STEP_SIZE: 1.0})
        ('largest', None)
    """
    ends = {step_sizes[-1]: "largest", step_sizes[0]: "smallest"}
    return ends.get(values[STEP_SIZE])


def other_edges(plan: Plan, record: Record, setting: str, contender: Contender) -> list[Values]:
    """Of each combination of what is tuned along but the best one's: the best point, if it is at an edge of the grid.

    The grid isn't widened for these, so that such a combination may be better than it looks.
    """
    step_sizes = _widened(plan, record, setting)
    chosen, _ = _best(plan, record, setting, contender, grid_points(plan, step_sizes))
    found = []
    for also in points(plan.protocol.also):
        if also != {key: chosen[key] for key in also}:
            wanted = [{**also, STEP_SIZE: step_size} for step_size in step_sizes]
            found.append(_best(plan, record, setting, contender, wanted)[0])
    return [values for values in found if edge_of(step_sizes, values)]


def confirmed(choice: Choice, runs: Sequence[RealRun], goal: Goal) -> Values:
    """The best of the candidates by their real runs, each with the same seed; the earlier candidate if they are equal.

    Arguments: runs: of every candidate, in the order of `choice.candidates`.
    """
    ranks = [rank([run.cell(goal)], goal) for run in runs]
    return choice.candidates[ranks.index(min(ranks))]


def _widened(plan: Plan, record: Record, setting: str) -> list[float]:
    """The grid of a setting, as often widened as what is known says it must be."""
    step_sizes = plan.protocol.step_sizes
    for _ in range(plan.protocol.widen):
        if _missing(plan, record, setting, step_sizes):
            break
        wanted = grid_points(plan, step_sizes)
        best = [_best(plan, record, setting, contender, wanted)[0][STEP_SIZE] for contender in plan.tuned]
        below, above = step_sizes[0] in best, step_sizes[-1] in best
        if not below and not above:
            break
        step_sizes = _longer(step_sizes, plan.protocol.per_octave, below, above)
    return step_sizes


def _longer(step_sizes: Sequence[float], per_octave: int, below: bool, above: bool) -> list[float]:
    """The grid with an octave more below, above, or both.

    Example:
        >>> _longer([0.5, 1.0], 1, below=True, above=False)
        [0.25, 0.5, 1.0]
    """
    low = [step_size / 2 for step_size in step_sizes[:per_octave]] if below else []
    high = [step_size * 2 for step_size in step_sizes[-per_octave:]] if above else []
    return sorted({*low, *step_sizes, *high})


def _missing(plan: Plan, record: Record, setting: str, step_sizes: Sequence[float]) -> list[Wanted]:
    return [
        Wanted(setting, contender, values, seed)
        for values in grid_points(plan, step_sizes)
        for contender in plan.tuned
        for seed in plan.tuning_seeds
        if record.cell(setting, contender.key, values, seed) is None
    ]


def _best(
    plan: Plan, record: Record, setting: str, contender: Contender, wanted: Iterable[Values]
) -> tuple[Values, Rank]:
    """The best of these points, all of whose cells are there."""
    ranked = []
    for values in wanted:
        cells = [record.cell(setting, contender.key, values, seed) for seed in plan.tuning_seeds]
        ranked.append((rank([cell for cell in cells if cell is not None], plan.protocol.goal), values))
    best_rank, best = min(ranked, key=lambda pair: pair[0])
    return best, best_rank
