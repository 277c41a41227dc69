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
from asgd.errors import ConfigError, Interrupted, RunError
from asgd.run.build import validate
from asgd.run.files import reason_of, write_atomically
from asgd.run.paths import resolve_data_root
from asgd.run.signals import StopRequests
from asgd.sim.parallel import Work, simulate_all
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
                    _store(file, result())
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
    refuse_no_file(file)
    try:
        old = msgspec.json.decode(file.read_bytes(), type=Tuning)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"--out {file}: it is no result of asgd tune, and is left alone ({error})") from error
    refuse_another(file, {"config": old.config, "goal": old.goal}, {"config": config, "goal": goal})
    return {cell_key(cell.values, cell.seed): cell for cell in old.cells}


def refuse_no_file(file: Path) -> None:
    """Refuse a device or a directory as a result file, which may have no end; ConfigError."""
    if not file.is_file():
        raise ConfigError(f"--out {file}: it is there and is no file; allowed is a file, or one that is to be made")


def refuse_another(file: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to extend a result file that was made with something else; ConfigError naming the first key that differs.

    Example:
        >>> refuse_another(Path("out.json"), {"config": {"seed": 0}}, {"config": {"seed": 1}})
        Traceback (most recent call last):
        asgd.errors.ConfigError: --out out.json: it was made with seed = 0, and here it is 1; give another file
    """
    old, new = flattened(dict(before)), flattened(dict(now))
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            raise ConfigError(
                f"--out {file}: it was made with {key} = {old.get(key)!r}, and here it is {new.get(key)!r}; "
                "give another file"
            )


def flattened(value: Any, key: str = "") -> dict[str, Any]:
    """A nested table as one with dotted keys."""
    if isinstance(value, msgspec.Struct):
        value = msgspec.to_builtins(value)
    if not isinstance(value, dict):
        return {key.removeprefix("config."): value}
    return {k: v for name, item in value.items() for k, v in flattened(item, f"{key}.{name}" if key else name).items()}


def _store(file: Path, tuning: Tuning) -> None:
    try:
        write_atomically(file, msgspec.json.format(msgspec.json.encode(tuning), indent=1) + b"\n")
    except OSError as error:
        raise RunError(f"{file} cannot be written: {reason_of(error)}") from error
