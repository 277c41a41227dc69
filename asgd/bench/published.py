"""The published least-squares setting on real processes: 40 workers, 32,000 computed gradients, tuned step sizes.

Every method's step size is tuned on the grid 2^(k/3) on the real processes: by octaves, then by thirds of one, until
neither neighbour is better; the best one is then run with further seeds.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from rich.table import Table

from asgd.api import train
from asgd.config import Config, load_config
from asgd.errors import RunError
from asgd.run.files import write_atomically
from asgd.run.result import Run
from asgd.sim.tune import octaves

METRIC = "suboptimality"
LAST = 0.1  # the share of the budget at its end that the score is a mean over
PER_OCTAVE = 3
GRID = octaves(2**-6, 2**5, PER_OCTAVE)
START = GRID.index(0.125)

CONTENDERS: dict[str, list[str]] = {
    "mini-batch": ["method.name=minibatch"],
    "asynchronous, constant": ["method.name=asynchronous", "method.rule=constant"],
    "asynchronous, scale": ["method.name=asynchronous", "method.rule=scale"],
    "THROTTLE, q = 1.1": ["method.name=throttle", "method.options={q = 1.1}"],
    "THROTTLE, q = 1.5": ["method.name=throttle", "method.options={q = 1.5}"],
    "Ringmaster, R = 40": ["method.name=ringmaster", "method.options={R = 40}"],
    "Rennala, S = 10": ["method.name=rennala", "method.options={batch = 10}"],
    "m-synchronous, m = 20": ["method.name=m_synchronous", "method.options={m = 20}"],
    "Rescaled": ["method.name=rescaled", "method.rule=constant"],
    "FedBuff, K = 10": ["method.name=fedbuff", "method.options={buffer = 10}"],
}
# THROTTLE (2026): mean of F - F* over the last 10%, and the tuned step size.
PUBLISHED = {
    "mini-batch": (3.46e-3, 0.198),
    "asynchronous, constant": (1.37e-4, 0.5),
    "THROTTLE, q = 1.1": (7.1e-6, 1.587),
    "THROTTLE, q = 1.5": (2.6e-6, 3.175),
}


class Score(msgspec.Struct, frozen=True):
    """The mean of F - F* over the last tenth of the budget, None if it diverged: `answered` counts the gradients that
    arrived, used or not; `given` counts the cancelled jobs too, whether or not their worker had begun them.
    """

    answered: float | None
    given: float | None


class Result(msgspec.Struct, frozen=True):
    """A contender's best step size with its scores by seed, and all that was tried on real processes."""

    step_size: float
    scores: list[Score]
    tried: list[tuple[float, float | None]]  # step size, score
    gradients_per_s: float | None
    cancelled: int


def score_of(run: Run, gradients: int) -> Score:
    """The scores of a run of at least `gradients` gradients."""
    answered_at, given_at = {0: 0}, {0: 0}  # version -> gradients when it was reached
    answered = 0
    for given, row in enumerate(run.trace, start=1):
        answered += row.samples > 0
        if row.steps:
            answered_at[row.version + 1], given_at[row.version + 1] = answered, given

    def mean(at: dict[int, int]) -> float | None:
        low = (1 - LAST) * gradients
        values = [row.results[METRIC] for row in run.metrics if low <= at[row.version] <= gradients]
        finite = [value for value in values if value is not None]
        return sum(finite) / len(finite) if finite and len(finite) == len(values) else None

    return Score(mean(answered_at), mean(given_at))


def run_real(config: Config, overrides: Sequence[str]) -> tuple[Score, Run | None]:
    """One run on real processes, into a directory that is removed; no scores when it diverged."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            run = train(config, overrides, run_dir=Path(folder) / "run")
        except RunError as error:
            if "diverged" not in str(error):
                raise
            return Score(None, None), None
        if not run.summary.finished:
            raise RunError(f"a run ended before its budget was used up: {run.summary.stopped_because}")
        return score_of(run, config.budget.gradients), run


def measure(config: Config, overrides: Sequence[str], seeds: int, say: Callable[[str], None]) -> Result:
    """Tune a contender on real processes, and run its best step size with all seeds."""
    tried: dict[int, Score] = {}
    runs: dict[int, Run | None] = {}

    def at(place: int) -> float:
        if not 0 <= place < len(GRID):
            return float("inf")
        if place not in tried:
            tried[place], runs[place] = run_real(config, [*overrides, f"method.step_size={GRID[place]}"])
            say(f"  step size {GRID[place]:.4g}: {_text(tried[place].answered)}")
        answered = tried[place].answered
        return float("inf") if answered is None else answered

    best = lowest(at, START, PER_OCTAVE)
    scores = [tried[best]]
    for seed in range(1, seeds):
        more = [*overrides, f"method.step_size={GRID[best]}", f"seed={config.seed + seed}"]
        scores.append(run_real(config, more)[0])
    kept = runs[best]
    return Result(
        GRID[best],
        scores,
        [(GRID[place], score.answered) for place, score in sorted(tried.items())],
        kept.summary.arrivals / kept.summary.wall_s if kept else None,
        sum(row.samples == 0 for row in kept.trace) if kept else 0,
    )


def lowest(at: Callable[[int], float], start: int, stride: int) -> int:
    """The place of a lowest value: neither neighbour, at a distance of `stride` first and of 1 then, is lower.

    Arguments: at: the value at a place, infinite where there is none; start: where to begin; stride: >= 1. From
    infinite values the search goes down.

    Example:
        >>> lowest(lambda place: abs(place - 4) if 0 <= place < 20 else float("inf"), start=10, stride=3)
        4
    """
    best = start
    while at(best) == float("inf") and best > 0:
        best = max(0, best - stride)
    for step in sorted({stride, 1}, reverse=True):
        while True:
            better = min((best - step, best + step), key=at)
            if not at(better) < at(best):
                break
            best = better
    return best


def run(
    path: Path, say: Callable[[str], None], seeds: int = 3, only: Sequence[str] = (), out: Path | None = None
) -> dict[str, Result]:
    """All contenders, or `only` those.

    Arguments: path: the configuration of the setting; say: takes a line about what is going on; seeds: runs of each
    best step size; out: a JSON file that is written after each contender; those that are in it aren't run again.
    """
    config = load_config(path)
    results: dict[str, Result] = {}
    if out is not None and out.exists():
        results = msgspec.json.decode(out.read_bytes(), type=dict[str, Result])
    for name, overrides in CONTENDERS.items():
        if name not in results and (not only or name in only):
            say(f"{name} ...")
            results[name] = measure(config, overrides, seeds, say)
            if out is not None:
                write_atomically(out, encode(results))
    return results


def table(results: dict[str, Result]) -> Table:
    """The results beside the published ones."""
    shown = Table(title="least squares, 40 workers: mean of F - F* over the last 10% (median of the seeds)")
    for column in ("method", "step size", "F - F*", "cancelled counted", "published (step size)", "gradients/s"):
        shown.add_column(column)
    for name, result in results.items():
        published = PUBLISHED.get(name)
        shown.add_row(
            name,
            f"{result.step_size:.4g}",
            _of_seeds([score.answered for score in result.scores]),
            _of_seeds([score.given for score in result.scores]) if result.cancelled else "the same",
            f"{published[0]:.3g} ({published[1]:g})" if published else "",
            "" if result.gradients_per_s is None else f"{result.gradients_per_s:,.0f}",
        )
    return shown


def _of_seeds(values: list[float | None]) -> str:
    """The median, and the smallest and largest; divergence is the largest."""
    ordered = sorted(values, key=lambda value: float("inf") if value is None else value)
    return f"{_text(ordered[len(ordered) // 2])} ({_text(ordered[0])} to {_text(ordered[-1])})"


def _text(value: float | None) -> str:
    return "diverged" if value is None else f"{value:.3g}"


def encode(results: dict[str, Result]) -> bytes:
    """The JSON text of a result file."""
    return msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n"
