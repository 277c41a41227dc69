"""A run in virtual time: the configured core, task and speeds; in memory, or into a run directory as a real run's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import torch

from asgd.config import Config, to_toml
from asgd.core.events import Stop
from asgd.core.trace import TraceRow
from asgd.errors import ConfigError, RunError
from asgd.learn.gradient import evaluate
from asgd.learn.task import Task
from asgd.run.board import follow_on_board
from asgd.run.build import make_state
from asgd.run.compute import TaskCompute
from asgd.run.evaluations import Evaluations
from asgd.run.files import reason_of
from asgd.run.formats import MetricsRow, Summary
from asgd.run.records import RunDirectory, claim
from asgd.run.recovery import begin_journal
from asgd.run.saving import Saver
from asgd.run.signals import StopRequests
from asgd.run.speeds import job_seconds
from asgd.run.summary import summarise
from asgd.sim.times import RecordedTimes
from asgd.sim.virtual import EndOfJob, Handled, VirtualCluster

_ME = b"simulator"


def emulated(config: Config) -> EndOfJob:
    """When a job is done by the configured speeds; ConfigError for the profile "real", which has none."""
    speeds, num_workers = config.cluster.speeds, config.cluster.num_workers
    if speeds.profile == "real":
        raise ConfigError(
            'cluster.speeds.profile = "real": a simulation needs emulated speeds (see `asgd methods` and the README), '
            "or the times of a real run (--times RUN)"
        )

    def end_of_job(worker: int, job: int, now_s: float) -> float:
        seconds = job_seconds(speeds, worker=worker, num_workers=num_workers, job=job, seed=config.seed, now_s=now_s)
        assert seconds is not None
        return now_s + seconds + speeds.communication_s

    return end_of_job


class Simulation:
    """A run in virtual time, in memory; whoever wants a record of it takes its lines as they come.

    Arguments: config, task: the run's; end_of_job: the speeds; times: a real run's, whose `end_of_job` it then is;
    stops: requests to stop, which end the run after the event that is being handled.
    Attributes: state: the core, which an event `Stop` ends early; compute: the model and its optimizer; now_s: the
    time.

    Example:
        >>> from asgd.config import load_config
        >>> from asgd.learn.tasks import quadratic
        >>> speeds = {"profile": "equal", "seconds": 1.0}
        >>> config = load_config({"budget": {"versions": 8}, "cluster": {"num_workers": 2, "speeds": speeds}})
        >>> Simulation(config, quadratic(dimension=4), emulated(config)).run().wall_s
        4.0
    """

    def __init__(
        self,
        config: Config,
        task: Task,
        end_of_job: EndOfJob,
        times: RecordedTimes | None = None,
        stops: StopRequests | None = None,
    ) -> None:
        self.config, self._task, self._end_of_job, self._times = config, task, end_of_job, times
        self._stops = stops or StopRequests()
        self.state = make_state(config)
        self.compute = TaskCompute(config, task)
        self.now_s = 0.0

    def run(
        self,
        on_row: Callable[[TraceRow], None] = lambda row: None,
        on_metrics: Callable[[MetricsRow], None] = lambda row: None,
        progress: Callable[[float, float], None] = lambda fraction, now_s: None,
        on_handled: Handled = lambda event, actions, finished_before: None,
    ) -> Summary:
        """Run to the end of the budget, once; returns the summary, also of a run that has diverged.

        Arguments: on_row, on_metrics: take the lines of trace.jsonl and metrics.jsonl; progress: takes the used part
        of the budget and the time; on_handled: as for `VirtualCluster`.
        Errors: RunError when the run doesn't take the course of the one whose times it is fed with.
        """
        state, compute, times, stops = self.state, self.compute, self._times, self._stops
        evaluations = Evaluations(_evaluated_at_once(self.config), Path())
        recent: list[float] = []
        stopped: Stop | None = None

        def hear_row(row: TraceRow) -> None:
            if times is not None:
                times.check(row)
            on_row(row)
            evaluations.heard_loss(row.loss)
            if row.loss is not None:
                recent.append(row.loss)
                del recent[:-100]

        def on_event(now_s: float) -> None:
            nonlocal stopped
            if stops.asked and state.finished is None and (reason := stops.take()) is not None:
                stopped = Stop(reason, now_s)
                on_handled(stopped, state.handle(stopped), False)
            if evaluations.keep_if_due(state, compute.flat.state_S, now_s):
                evaluate_all()
                progress(state.fraction_done(now_s), now_s)

        def evaluate_all() -> None:
            while (snapshot := evaluations.next_for(_ME, training=False)) is not None:
                model = compute.evaluated(snapshot.read())
                results = evaluate(self._task, model, self.config.evaluation.batch_size)
                row = evaluations.result(_ME, snapshot.version, results)
                assert row is not None
                on_metrics(row)

        on_event(0.0)
        num_workers = self.config.cluster.num_workers
        self.now_s = VirtualCluster(
            state,
            num_workers,
            self._end_of_job,
            compute,
            on_row=hear_row,
            on_event=on_event,
            on_handled=on_handled,
            seconds={} if times is None else times.seconds,
            stop=None if times is None else times.stop,
        ).run()
        assert state.finished is not None
        if times is not None and stopped is None:  # both may have been stopped for one reason
            times.check_end(state.finished.reason, state.rows, state.concurrency)
        return summarise(
            self.config,
            state,
            compute.flat,
            state.finished,
            evaluations.latest,
            train_loss=sum(recent) / len(recent) if recent else None,
            wall_s=self.now_s,
        )


def _evaluated_at_once(config: Config) -> Config:
    """In virtual time an evaluation disturbs nobody: what waits for the end of a real run is evaluated at once."""
    if config.evaluation.evaluate != "after":
        return config
    return msgspec.structs.replace(config, evaluation=msgspec.structs.replace(config.evaluation, evaluate="during"))


class Diverged(RunError):
    """A simulated run has diverged; its directory holds all of it."""


def simulate_new(
    config: Config,
    path: Path,
    end_of_job: EndOfJob,
    *,
    data_root: Path,
    overwrite: bool = False,
    progress: Callable[[float, float], None] = lambda fraction, now_s: None,
    say: Callable[[str], None] = lambda line: None,
    times: RecordedTimes | None = None,
    stops: StopRequests | None = None,
) -> None:
    """Load the configured task and simulate a run of it into a new directory; its logs/ begin as a server's do.

    Arguments: config: resolved and checked; overwrite: replace a run that is there; say: takes the lines that the log
    begins with; the others as for `simulate_into`.
    Errors: ConfigError of the task; RunError for a directory that can't be made; those of `simulate_into`.
    """
    from asgd.run.opening import opening_lines
    from asgd.run.roles import prepare  # loads the network too, which those who simulate in memory don't need

    prepared = prepare(config, data_root)
    torch.set_num_threads(config.cluster.threads_per_worker)
    with claim(path):
        RunDirectory.create(path, to_toml(config), overwrite).close()
        lines = opening_lines(prepared.config, prepared.task, prepared.shards)
        _keep_lines(path, lines)
        for line in lines:
            say(line)
        simulate_into(prepared.config, prepared.task, path, end_of_job, progress, times, stops)


def _keep_lines(path: Path, lines: Sequence[str]) -> None:
    """Write what a simulation tells of itself into the run's logs/, as the server does; nothing without lines."""
    if not lines:
        return
    log = path / "logs" / "simulator.log"
    try:
        log.parent.mkdir(exist_ok=True)
        log.write_text("".join(f"{line}\n" for line in lines))
    except OSError as error:
        raise RunError(f"{log} cannot be written: {reason_of(error)}.") from error


def simulate_into(
    config: Config,
    task: Task,
    path: Path,
    end_of_job: EndOfJob,
    progress: Callable[[float, float], None] = lambda fraction, now_s: None,
    times: RecordedTimes | None = None,
    stops: StopRequests | None = None,
) -> Summary:
    """Simulate a run into its directory, which has its config.toml already; returns the summary.

    Arguments: config, task: the run's; end_of_job: the speeds; progress: takes the used part of the budget and the
    time; times: a real run's; stops: requests to stop; see `Simulation`.
    Errors: Diverged, one sentence, after the files were written; those of `Simulation.run`.
    """
    with RunDirectory.open(path, mode="write") as directory:
        directory.next_incarnation()
        follow_on_board(config, directory, 0.0, every_s=0.0)
        simulation = Simulation(config, task, end_of_job, times, stops)
        begin_journal(config, directory, simulation.state)
        journal = directory.journal
        summary = simulation.run(directory.append_trace, directory.append_metrics, progress, journal.append)
        nothing_open = Evaluations(config, path / "snapshots")  # each version was evaluated at once
        saver = Saver(config, directory, nothing_open, directory.notes.append)
        saver.save_last(simulation.state, simulation.compute.vectors, simulation.now_s)
        directory.write_summary(summary)
    finish = simulation.state.finished
    if finish is not None and finish.failed:
        raise Diverged(f"{finish.reason}; the run is in {path}")
    return summary
