"""Training from Python: the functions behind the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asgd.config import Config, load_config, to_toml
from asgd.errors import ConfigError, RunError
from asgd.run.build import resumed, validate
from asgd.run.cluster import Watcher, run_cluster
from asgd.run.display import Display, make_display
from asgd.run.paths import default_run_directory, resolve_data_root
from asgd.run.records import JOURNAL, RunDirectory, claim, discard_unbegun
from asgd.run.result import Run
from asgd.run.signals import StopRequests

if TYPE_CHECKING:
    from asgd.run.replay import Replay


def train(
    config: Path | str | Mapping[str, Any] | Config,
    overrides: Sequence[str] = (),
    *,
    run_dir: Path | str | None = None,
    data_root: Path | str | None = None,
    overwrite: bool = False,
    display: Display | None = None,
    stops: StopRequests | None = None,
    watcher: Watcher | None = None,
) -> Run:
    """Train with a whole cluster on this machine: a server, `cluster.num_workers` workers and an evaluator, as
    processes.

    Args:
        config: a TOML file, a dict with its content, or a typed `Config`.
        overrides: "a.b=value" strings that replace single keys.
        run_dir: a directory for the run that doesn't hold one yet; by default a new one below `runs/`.
        data_root: where data sets are; see `resolve_data_root`.
        overwrite: replace a run that is in `run_dir`.
        display: shows the run (nothing is shown without one); stops: requests to stop it.
        watcher: looks on in every turn of the supervisor, see asgd.run.cluster.

    Errors: ConfigError and RunError, one sentence each. What was done until then is in the run directory.

    Example:
        run = asgd.train("configs/shapes.toml", ["budget.samples=20000"])
        print(run.summary.test_accuracy, run.model())
    """
    resolved = load_config(config, overrides)
    validate(resolved)
    path = Path(run_dir) if run_dir is not None else default_run_directory(config)
    with claim(path):
        RunDirectory.create(path, to_toml(resolved), overwrite).close()
        try:
            return _run(resolved, path, data_root, display, stops, resume=False, watcher=watcher)
        except ConfigError:
            discard_unbegun(path)
            raise


def resume(
    run_dir: Path | str,
    config: Config | None = None,
    overrides: Sequence[str] = (),
    *,
    data_root: Path | str | None = None,
    display: Display | None = None,
    stops: StopRequests | None = None,
) -> Run:
    """Go on with the run in `run_dir` where it ended, as configured there or by `config`, e.g. with a larger budget:
    from its newest good checkpoint, or, with `recovery.mode = "exact"`, with what its journal has beyond it as well.

    Errors: ConfigError and RunError, one sentence each, e.g. when there is no checkpoint.
    """
    path = Path(run_dir)
    resolved = resumed_config(path, config, overrides)
    with claim(path):
        with RunDirectory.open(path, mode="write") as directory:
            from_journal = resolved.recovery.mode == "exact" and (path / JOURNAL).exists()
            if not from_journal and not list((path / "checkpoints").glob("*.safetensors")):
                raise RunError(f"{path} has no checkpoint to resume from; start the run anew (--overwrite)")
            directory.write_config(to_toml(resolved))
        return _run(resolved, path, data_root, display, stops, resume=True)


def resumed_config(path: Path, config: Path | str | Config | None = None, overrides: Sequence[str] = ()) -> Config:
    """The configuration that a run goes on with: its own, or `config`, with `overrides`, as far as it may change."""
    with RunDirectory.open(path):
        old = load_config(path / "config.toml")
    resolved = resumed(old, load_config(config or old, overrides))
    validate(resolved)
    return resolved


def simulate(
    config: Path | str | Mapping[str, Any] | Config,
    overrides: Sequence[str] = (),
    *,
    run_dir: Path | str | None = None,
    data_root: Path | str | None = None,
    overwrite: bool = False,
    times: Path | str | None = None,
    progress: Callable[[float, float], None] = lambda fraction, now_s: None,
    say: Callable[[str], None] = lambda line: None,
    stops: StopRequests | None = None,
) -> Run:
    """Run a configuration in virtual time, in this process: the same core, task and speeds, and nobody waits.

    Args:
        config, overrides, run_dir, data_root, overwrite: as for `train`.
        times: a real run's directory; its recorded times take the place of `cluster.speeds`.
        progress: takes the used part of the budget (0 to 1) and the virtual time in seconds, at each evaluation.
        say: takes the lines that a server's log begins with: who has which data, and where the method doesn't suit it.
        stops: requests to stop: the run ends after the event at hand, with all its files.

    Errors: ConfigError and RunError, one sentence each.

    Example:
        run = asgd.simulate("configs/shapes.toml", ["cluster.speeds.profile=half_slower"])
    """
    from asgd.sim.simulate import emulated, simulate_new
    from asgd.sim.times import RecordedTimes

    resolved = load_config(config, overrides)
    validate(resolved)
    fed = None if times is None else RecordedTimes.read(times)
    end_of_job = emulated(resolved) if fed is None else fed.end_of_job
    path = Path(run_dir) if run_dir is not None else default_run_directory(config)
    simulate_new(
        resolved,
        path,
        end_of_job,
        data_root=resolve_data_root(data_root),
        overwrite=overwrite,
        progress=progress,
        say=say,
        times=fed,
        stops=stops,
    )
    return Run(path, data_root)


def replay(
    run: Path | str,
    *,
    until: int | None = None,
    check: bool = False,
    data_root: Path | str | None = None,
    progress: Callable[[float], None] = lambda fraction: None,
) -> Replay:
    """Compute a run again in this process from its journal and seeds, and compare it with its record to the bit.

    Args:
        run: its directory; of a real run or a simulated one.
        until: a version to stop at; the model is then that of this version.
        check: stop at the first difference.
        data_root: where data sets are; see `resolve_data_root`.
        progress: takes the part of the journal that is done, 0 to 1.

    Errors: ConfigError and RunError, one sentence each.

    Example:
        replayed = asgd.replay("runs/first")
        print(replayed.is_exact, replayed.differences, replayed.model())
    """
    from asgd.run.replay import replay

    return replay(run, until=until, check_only=check, data_root=resolve_data_root(data_root), progress=progress)


def _run(
    config: Config,
    path: Path,
    data_root: Path | str | None,
    display: Display | None,
    stops: StopRequests | None,
    resume: bool,
    watcher: Watcher | None = None,
) -> Run:
    shown = display or make_display(None, config.cluster.num_workers, path.name)
    run_cluster(config, path, resolve_data_root(data_root), shown, stops or StopRequests(), resume, watcher)
    return Run(path, data_root)
