"""The published least-squares setting on real processes: 40 workers, 32,000 computed gradients, tuned step sizes.

Every method's step size is tuned on the grid 2^(k/3) on the real processes with one seed: by octaves, then by thirds of
one, until neither neighbour is better. That is a local search: where the score has several valleys it ends in one of
them. The best step size is then run with other seeds, and only those runs are reported: the one that it was chosen by
is better than it should be, as the best of several is.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.table import Table

from asgd.api import train
from asgd.config import Config, load_config
from asgd.errors import ConfigError, RunError
from asgd.run.build import validate
from asgd.run.result import Run
from asgd.sim.result_files import read_result, refuse_another, write_result
from asgd.sim.tune import octaves

METRIC = "suboptimality"
LAST = 0.1  # the share of the budget at its end that the score is a mean over
PER_OCTAVE = 3
GRID = octaves(2**-6, 2**5, PER_OCTAVE)
# Where the search begins; mini-batch SGD's step is for the mean of 40 gradients, and so much longer.
START, STARTS = 0.125, {"mini-batch": 4.0}

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
CHOSEN_HERE = ("method.name", "method.rule", "method.options", "method.step_size")
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
    """A contender's best step size and all that was tried with the seed of the search; what the other seeds gave with
    it. `at_edge`: the best one is the smallest or largest of the grid. The speed, and the cancelled jobs, are those of
    the first run of `scores` that didn't diverge.
    """

    step_size: float
    at_edge: bool
    tried: list[tuple[float, float | None]]  # step size, score
    scores: list[Score]
    gradients_per_s: float | None
    cancelled: int


class Published(msgspec.Struct, frozen=True):
    """The content of a result file: of which setting, with which overrides and how many seeds, and the results."""

    config: dict[str, Any]
    overrides: list[str]
    seeds: int
    results: dict[str, Result]


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


def measure(config: Config, name: str, seeds: int, say: Callable[[str], None]) -> Result:
    """Tune a contender on real processes with the configured seed; run its best step size with the next `seeds`."""
    overrides = CONTENDERS[name]
    tried: dict[int, Score] = {}

    def at(place: int) -> float:
        if not 0 <= place < len(GRID):
            return float("inf")
        if place not in tried:
            tried[place], _ = run_real(config, [*overrides, f"method.step_size={GRID[place]}"])
            say(f"  step size {GRID[place]:.4g}: {_text(tried[place].answered)}")
        answered = tried[place].answered
        return float("inf") if answered is None else answered

    best = lowest(at, GRID.index(STARTS.get(name, START)), PER_OCTAVE)
    scores, runs = [], []
    for seed in range(config.seed + 1, config.seed + 1 + seeds):
        score, run = run_real(config, [*overrides, f"method.step_size={GRID[best]}", f"seed={seed}"])
        say(f"  seed {seed}: {_text(score.answered)}")
        scores.append(score)
        runs.append(run)
    kept = next((run for run in runs if run is not None), None)
    return Result(
        GRID[best],
        best in (0, len(GRID) - 1),
        [(GRID[place], score.answered) for place, score in sorted(tried.items())],
        scores,
        kept.summary.arrivals / kept.summary.wall_s if kept else None,
        sum(row.samples == 0 for row in kept.trace) if kept else 0,
    )


def lowest(at: Callable[[int], float], start: int, stride: int) -> int:
    """The place of a lowest value: neither neighbour, at a distance of `stride` first and of 1 then, is lower.

    Arguments: at: the value at a place, infinite where there is none; start: where to begin; stride: >= 1. From
    infinite values the search goes down. It is local: a lower value beyond a higher one isn't found.

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
    path: Path,
    say: Callable[[str], None],
    seeds: int = 3,
    only: Sequence[str] = (),
    out: Path | None = None,
    overrides: Sequence[str] = (),
) -> Published:
    """All contenders, or `only` those.

    Arguments: path: the configuration of the setting; say: takes a line about what is going on; seeds: runs of each
    best step size; out: a JSON file that is written after each contender; those that are in it aren't run again;
    overrides: "key=value" of the setting, for all contenders.
    Errors: ConfigError when an override is of a key that each contender has its own value of, when the setting has no
    budget in gradients or can't be run, or when the file is of another setting or number of seeds.
    """
    config = load_config(path, overrides)
    _check(config, overrides)
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(config))
    published = Published(plain, list(overrides), seeds, {})
    if out is not None and out.exists():
        published = _stored(out, published)
    for name in CONTENDERS:
        if name not in published.results and (not only or name in only):
            say(f"{name} ...")
            published.results[name] = measure(config, name, seeds, say)
            if out is not None:
                write_result(out, published)
    return published


def _check(config: Config, overrides: Sequence[str]) -> None:
    """Refuse what can't be run or scored before anything is; ConfigError."""
    for key in (override.partition("=")[0].strip() for override in overrides):
        if key == "method" or any(key == own or key.startswith(f"{own}.") for own in CHOSEN_HERE):
            raise ConfigError(f"--set {key}: each method of the table has its own; allowed are the other keys")
    if not config.budget.gradients:
        raise ConfigError(
            "budget.gradients = 0: allowed is a number above 0: the score is a mean over the last 10% of them"
        )
    for of_contender in CONTENDERS.values():
        validate(load_config(config, of_contender))


def _stored(file: Path, now: Published) -> Published:
    """What an earlier call has left in `file`; ConfigError if it was another setting's."""
    before = read_result(file, Published, "asgd bench published")
    refuse_another(file, {"config": before.config, "seeds": before.seeds}, {"config": now.config, "seeds": now.seeds})
    return before


def table(published: Published) -> Table:
    """The results beside the published ones."""
    workers = published.config["cluster"]["num_workers"]
    shown = Table(title=f"least squares, {workers} workers: mean of F - F* over the last 10% (median of the seeds)")
    if published.overrides:
        shown.caption = f"with {', '.join(published.overrides)}; the published numbers are without"
    for column in ("method", "step size", "F - F*", "cancelled counted", "published (step size)", "gradients/s"):
        shown.add_column(column)
    for name, result in published.results.items():
        theirs = PUBLISHED.get(name)
        shown.add_row(
            name,
            f"{result.step_size:.4g}" + (", the edge of the grid" if result.at_edge else ""),
            _of_seeds([score.answered for score in result.scores]),
            _of_seeds([score.given for score in result.scores]) if result.cancelled else "the same",
            f"{theirs[0]:.3g} ({theirs[1]:g})" if theirs else "",
            "" if result.gradients_per_s is None else f"{result.gradients_per_s:,.0f}",
        )
    return shown


def _of_seeds(values: list[float | None]) -> str:
    """The median, and the smallest and largest; divergence is the largest."""
    ordered = sorted(values, key=lambda value: float("inf") if value is None else value)
    return f"{_text(ordered[len(ordered) // 2])} ({_text(ordered[0])} to {_text(ordered[-1])})"


def _text(value: float | None) -> str:
    return "diverged" if value is None else f"{value:.3g}"
