"""Tuning in virtual time: a grid of step sizes, and of other keys, times seeds; simulated in parallel and compared."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from asgd.config import Config, load_config, to_toml
from asgd.errors import ConfigError, Interrupted
from asgd.run.build import validate
from asgd.run.paths import resolve_data_root
from asgd.run.signals import StopRequests
from asgd.sim.parallel import Work, simulate_all
from asgd.sim.result_files import read_result, refuse_another, write_result
from asgd.sim.tuning import (
    STEP_SIZE,
    Cell,
    Goal,
    ScoreName,
    Tuning,
    Values,
    cell_key,
    make_tuning,
    overrides_of,
    points,
)

PER_OCTAVE = 3
DEFAULT_RANGE = 8.0
MOST_POINTS = 10_000


def octaves(lowest: float, highest: float, per_octave: int = PER_OCTAVE) -> list[float]:
    """The step sizes 2^(k / per_octave), k whole, from `lowest` to `highest`, which may be among them.

    Arguments: 0 < lowest <= highest; per_octave >= 1.
    Errors: ConfigError naming the option, also when there is none in the range.

    Example:
        >>> octaves(0.25, 1.0, per_octave=1)
        [0.25, 0.5, 1.0]
        >>> [round(step_size, 3) for step_size in octaves(0.4, 0.8)]
        [0.5, 0.63, 0.794]
    """
    if not (0 < lowest <= highest < math.inf):
        raise ConfigError(f"--from {lowest:g} --to {highest:g}: allowed are numbers above 0, the second not below")
    if per_octave < 1:
        raise ConfigError(f"--per-octave {per_octave}: allowed is a whole number of at least 1")
    slack = 1e-9  # an end that is itself on the grid belongs to it, however it was rounded
    first = math.ceil(per_octave * math.log2(lowest) - slack)
    last = math.floor(per_octave * math.log2(highest) + slack)
    if last - first >= MOST_POINTS:
        raise ConfigError(
            f"--from {lowest:g} --to {highest:g} --per-octave {per_octave}: these are {last - first + 1} step sizes; "
            f"allowed are {MOST_POINTS}"
        )
    if last < first:
        raise ConfigError(f"--from {lowest:g} --to {highest:g}: there is no 2^(k/{per_octave}) between them")
    return [2.0 ** (k / per_octave) for k in range(first, last + 1)]


def tune(
    config: Path | str | Mapping[str, Any] | Config,
    overrides: Sequence[str] = (),
    *,
    step_sizes: Sequence[float] | None = None,
    also: Mapping[str, Sequence[Any]] | None = None,
    seeds: int = 3,
    metric: str = "test_loss",
    score: ScoreName = "final",
    target: float | None = None,
    jobs: int | None = None,
    out: Path | str | None = None,
    data_root: Path | str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    stops: StopRequests | None = None,
) -> Tuning:
    """Tune the step size, and other keys, in virtual time: simulate every point of a grid with several seeds.

    Formula: the score of a point is the mean over its seeds, with standard error s / sqrt(seeds), s the standard
    deviation; a point of which a run diverged or missed the target is worse than all others.

    Args:
        config, overrides: as for `asgd.simulate`, with emulated speeds; the budget is that of each simulation.
        step_sizes: the values of method.step_size, > 0; by default 2^(k/3) from an eighth of the configured one to
            eight times it (`octaves` makes other ranges).
        also: further keys with the values to try; every combination is simulated.
        seeds: how many, >= 1: config.seed, config.seed + 1, ...
        metric, score, target: see `Goal`.
        jobs: simulations at a time, each with one thread; by default as many as there are cores. The result doesn't
            depend on it.
        out: a JSON file to keep the result in. What is there already, of the same configuration and goal, isn't
            simulated again: so an interrupted tuning goes on, and a grid is extended.
        data_root: where data sets are; see `resolve_data_root`.
        progress: takes the simulations that have ended, and all of them.
        stops: requests to stop: the result is then that of the simulations which had ended.

    Errors: ConfigError and RunError, one sentence each; Interrupted when asked to stop before anything had ended.

    Example:
        tuning = asgd.tune("configs/shapes.toml", ["cluster.speeds.profile=half_slower"], step_sizes=[0.1, 0.2, 0.4])
        run = asgd.train("configs/shapes.toml", tuning.overrides)
    """
    base = load_config(config, overrides)
    goal = Goal(metric=metric, score=score, target=target)
    goal.check()
    grid = _grid(base, step_sizes, also or {})
    if seeds < 1:
        raise ConfigError(f"seeds = {seeds}: allowed is a whole number of at least 1")
    if jobs is not None and jobs < 1:
        raise ConfigError(f"jobs = {jobs}: allowed is a whole number of at least 1")
    all_seeds = [base.seed + i for i in range(seeds)]
    wanted = [(values, seed) for values in points(grid) for seed in all_seeds]
    _check(base, wanted)
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(base))
    file = Path(out) if out is not None else None
    cells = _stored(file, plain, goal) if file else {}
    missing = [(values, seed) for values, seed in wanted if cell_key(values, seed) not in cells]

    def result() -> Tuning:
        return make_tuning(plain, goal, grid, all_seeds, cells.values())

    progress(len(wanted) - len(missing), len(wanted))
    if missing:
        work = Work(
            config=to_toml(base),
            overrides=[[*overrides_of(values), f"seed={seed}"] for values, seed in missing],
            goal=goal,
            data_root=str(resolve_data_root(data_root)),
            jobs=jobs or len(os.sched_getaffinity(0)),
        )
        stops = stops or StopRequests()
        ended = 0
        with contextlib.closing(simulate_all(work, stops)) as results:
            for done in results:
                values, seed = missing[done.index]
                cells[cell_key(values, seed)] = Cell(values=values, seed=seed, **msgspec.structs.asdict(done.measured))
                ended += 1
                if file:
                    write_result(file, result())
                progress(len(wanted) - len(missing) + ended, len(wanted))
        if not cells and stops.asked:
            raise Interrupted(f"{stops.take()}, before the first simulation had ended")
    return result()


def _grid(base: Config, step_sizes: Sequence[float] | None, also: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """The values of each key, without repetitions; step sizes rise, and change fastest."""
    configured = base.method.step_size
    if step_sizes is None:
        step_sizes = octaves(configured / DEFAULT_RANGE, configured * DEFAULT_RANGE)
    grid: dict[str, list[Any]] = {}
    for key, values in also.items():
        if key in (STEP_SIZE, "seed"):
            raise ConfigError(f"also {key}: the tuning varies it anyway; allowed is another key")
        wrong = [value for value in values if not isinstance(value, bool | int | float | str)]
        if wrong:
            raise ConfigError(f"also {key} = {wrong[0]!r}: allowed are numbers, text and booleans")
        grid[key] = list(dict.fromkeys(values))
    grid[STEP_SIZE] = sorted({float(step_size) for step_size in step_sizes})
    empty = [key for key, values in grid.items() if not values]
    if empty:
        raise ConfigError(f"{empty[0]}: there is no value to try; give at least one")
    return grid


def _check(base: Config, wanted: Iterable[tuple[Values, int]]) -> None:
    """Refuse what can't be simulated, or scored, before anything is started; ConfigError."""
    if base.evaluation.evaluate == "never":
        raise ConfigError('evaluation.evaluate = "never": tuning scores evaluations; allowed are "during" and "after"')
    for values, seed in wanted:
        config = load_config(base, [*overrides_of(values), f"seed={seed}"])
        validate(config)
        if config.cluster.speeds.profile == "real":
            raise ConfigError(
                'cluster.speeds.profile = "real": tuning runs in virtual time and needs emulated speeds '
                "(--set cluster.speeds.profile=equal, or another that the README lists)"
            )


def _stored(file: Path, config: dict[str, Any], goal: Goal) -> dict[bytes, Cell]:
    """The simulations that an earlier tuning has left in `file`; ConfigError if it was another one's."""
    if not file.absolute().parent.is_dir():
        raise ConfigError(f"--out {file}: there is no directory {file.absolute().parent}")
    if not file.exists():
        return {}
    old = read_result(file, Tuning, "asgd tune")
    refuse_another(file, {"config": old.config, "goal": old.goal}, {"config": config, "goal": goal})
    return {cell_key(cell.values, cell.seed): cell for cell in old.cells}
