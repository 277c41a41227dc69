"""The server role from its start to its summary: task, resume, training, the last evaluations, the files of the end."""

from __future__ import annotations

import resource
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asgd.config import Config
from asgd.errors import RunError
from asgd.learn.flat import FlatModel
from asgd.learn.task import Task
from asgd.net.zeromq import ZmqServer
from asgd.run.board import follow_on_board
from asgd.run.build import make_state
from asgd.run.channel import Channel
from asgd.run.clock import Clock
from asgd.run.evaluations import Evaluations
from asgd.run.formats import Summary
from asgd.run.records import RunDirectory
from asgd.run.recovery import begin_journal, recover
from asgd.run.saving import Saver
from asgd.run.security import check_binding, limits, server_keys, warnings
from asgd.run.server import Server
from asgd.run.signals import StopRequests
from asgd.run.status import Status, WorkerStatus
from asgd.run.stopwatch import Stopwatch
from asgd.run.summary import summarise
from asgd.run.vectors import Vectors, kept_of_jobs, make_update

_POLL_S = 0.1
_STATUS_EVERY_S = 0.25
_KEPT_MESSAGES = 50
# Clients look again after at most a second (see asgd.net.zeromq); one that is at a long job may come later.
RESTART_PATIENCE_S = 1.5


@dataclass
class Serving:
    """What one server process is doing; see `serve`."""

    config: Config
    directory: RunDirectory
    channel: Channel | None
    stops: StopRequests
    say: Callable[[str], None]
    started_s: float
    messages: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT_MESSAGES))
    num_messages: int = 0
    overheard: deque[str] = field(default_factory=deque)  # lines of the transport's own thread, to be noted in ours
    restarts: dict[int, int] = field(default_factory=dict)
    server_restarts: int = 0
    evaluator_gone: str | None = None
    phase: str = "starting"
    began_s: float | None = None
    _next_status_s: float = 0.0
    _num_quarantined: int = 0  # that the supervisor knows of
    _rate: tuple[float, int, int] | None = None
    _rates: tuple[float | None, float | None] = (None, None)

    def note(self, line: str) -> None:
        self.messages.append(line)
        self.num_messages += 1
        self.say(line)

    def step(self, server: Server) -> None:
        """One message at most, then what happens by the clock and what the supervisor says."""
        wake = [self.channel.fileno()] if self.channel is not None and not self.channel.closed else []
        server.receive(_POLL_S, wake)
        server.housekeeping()
        while self.overheard:
            self.note(self.overheard.popleft())
        if self.began_s is None and server.state.begun:
            self.began_s, self.phase = time.monotonic(), "training"
            self._next_status_s = 0.0  # a display sees the workers at once, however short the run is
        if self.channel is not None:
            self.listen(server)
            if len(server.state.quarantined) > self._num_quarantined:
                self._num_quarantined = len(server.state.quarantined)
                self.channel.send({"quarantined": list(server.state.quarantined)})
            if time.monotonic() >= self._next_status_s:
                self._next_status_s = time.monotonic() + _STATUS_EVERY_S
                self.channel.send({"status": self.status(server)}, droppable=True)
        reason = self.stops.take()
        if reason is not None:
            server.stop(reason)

    def listen(self, server: Server) -> None:
        """Take what the supervisor says."""
        assert self.channel is not None
        for message in self.channel.receive():
            if "died" in message:
                self.note(f"worker {message['died']} died: {message['reason']}")
                server.leave(message["pid"], message["reason"])
            elif "restarted" in message:
                self.restarts[message["restarted"]] = self.restarts.get(message["restarted"], 0) + 1
                self.note(f"worker {message['restarted']} is started again")
            elif "evaluator_died" in message:
                reason = message["evaluator_died"]
                self.evaluator_gone = None if message["again"] else reason
                self.note(f"the evaluator died: {reason}" + ("; it is started again" if message["again"] else ""))
                server.leave(message["pid"], reason)
            elif "server_died" in message:
                self._started_again(server, message)
            elif "no_worker_left" in message:
                if not list(server.state.workers):  # others may have joined from elsewhere
                    server.fail(message["no_worker_left"])
            elif message.get("failed"):
                server.fail(message["stop"])
            else:
                self.stops.ask(message["stop"])
        if self.channel.closed:
            self.stops.ask("the supervisor is gone")

    def _started_again(self, server: Server, message: dict[str, Any]) -> None:
        """The supervisor tells what the server that died knew, and how often that has happened."""
        self.server_restarts = message["server_restarts"]
        self.restarts = {int(worker): number for worker, number in message["restarts"].items()}
        self.note(f"the server died: {message['server_died']}; it is started again from what it had saved")
        if message["others"]:  # are there and come back by themselves
            server.patience_s = min(server.patience_s, RESTART_PATIENCE_S)

    def status(self, server: Server) -> Status:
        """What a display shows."""
        state, ledger, now_s = server.state, server.state.ledger, server.clock.now_s()
        if self._rate is None or now_s - self._rate[0] >= 1.0:
            if self._rate is not None:
                passed = now_s - self._rate[0]
                self._rates = ((state.version - self._rate[1]) / passed, (state.samples - self._rate[2]) / passed)
            self._rate = (now_s, state.version, state.samples)
        fraction = state.fraction_done(now_s)
        latest = server.evaluations.latest
        return Status(
            time_s=now_s,
            phase=self.phase,
            method=state.method.name,
            version=state.version,
            total_versions=state.budget.versions,
            arrivals=state.gradients,
            samples=state.samples,
            total_samples=state.budget.samples,
            updates_per_s=self._rates[0],
            samples_per_s=self._rates[1],
            train_loss=server.course.train_loss,
            test_loss=latest.test_loss if latest else None,
            test_accuracy=latest.test_accuracy if latest else None,
            evaluated_version=latest.version if latest else None,
            mean_delay=ledger.mean_used_delay(),
            max_delay=ledger.max_used_delay if ledger.num_used else None,
            concurrency=ledger.concurrency,
            fraction_done=fraction,
            remaining_s=now_s * (1 - fraction) / fraction if fraction > 0.01 else None,
            workers=self._workers(server),
            messages=list(self.messages),
            first_message=self.num_messages - len(self.messages),
        )

    def _workers(self, server: Server) -> list[WorkerStatus]:
        known = set(server.state.ledger.per_worker) | set(range(self.config.cluster.num_workers))
        rows = []
        for worker in sorted(known):
            stats = server.state.ledger.per_worker.get(worker)
            session = server.sessions.of_worker(worker)
            rows.append(
                WorkerStatus(
                    worker=worker,
                    state="computing"
                    if session and session.jobs
                    else "waiting"
                    if session
                    else "gone"
                    if stats
                    else "starting",
                    applied=stats.used if stats else 0,
                    discarded=stats.discarded if stats else 0,
                    lost=stats.lost if stats else 0,
                    last_delay=server.course.last_delay.get(worker),
                    mean_delay=stats.delay_sum / stats.used if stats and stats.used else None,
                    job_s=session.last_job_s if session else None,
                    restarts=self.restarts.get(worker, 0),
                    pid=session.pid if session else None,
                )
            )
        return rows

    def finish_evaluations(self, server: Server) -> None:
        """Let the evaluator work off the snapshots; give up when it is gone, or when somebody asks to stop (again)."""
        if server.evaluations.num_open == 0 and server.num_evaluators == 0:
            return
        self.phase = "evaluating"
        self.stops.clear()
        alone_since_s, limit_s = time.monotonic(), self.config.cluster.start_timeout_s
        if self.channel is None and server.num_evaluators == 0:  # nobody here starts one
            if server.finish is not None and not server.finish.complete:
                self.note(f"evaluations that are missing: {server.evaluations.num_missing}; no evaluator is there")
                return
            self.note(f"waiting for an evaluator, for {limit_s:g} s (Ctrl-C ends without)")
        while server.evaluations.num_open or server.num_evaluators:
            self.step(server)
            now_s = time.monotonic()
            if server.num_evaluators:
                alone_since_s = now_s
            elif self.evaluator_gone or now_s - alone_since_s > limit_s:
                why = self.evaluator_gone or f"none has been there for {limit_s:g} s"
                self.note(f"{server.evaluations.num_missing} evaluations are missing: the evaluator is gone ({why})")
                return
            if self.stops.asked:
                server.dismiss_evaluators("asked to stop")
                self.note(f"{server.evaluations.num_missing} evaluations are missing: asked to stop")
                return


def serve(
    config: Config,
    task: Task,
    flat: FlatModel,
    path: Path,
    address: str,
    *,
    resume: bool = False,
    channel: Channel | None = None,
    stops: StopRequests | None = None,
    say: Callable[[str], None] = lambda line: None,
    started_s: float,
    notes: Sequence[str] = (),
) -> Summary:
    """Run the server of one run to its end and return its summary.

    Arguments: config: resolved; task: loaded; flat: its model at version 0; path: the run's directory, which has its
    config.toml already; address: where to listen; resume: go on where the run ended, as `recovery.mode` says; channel:
    to a supervisor; stops: asks to stop, e.g. by signals; say: takes one line about each thing worth telling;
    started_s: when (time.monotonic) the run was asked for; notes: lines to tell first.
    Errors: RunError or ConfigError, one sentence; a run that ended without having used up its budget because it could
    not go on raises RunError after its files were written.
    """
    with RunDirectory.open(path, mode="write") as directory:
        serving = Serving(config, directory, channel, stops or StopRequests(), say, started_s)
        check_binding(config, address)
        for line in [*warnings(config, address), *notes]:
            serving.note(line)
        directory.next_incarnation()
        vectors = Vectors(flat, make_update(config, flat), kept_of_jobs(config))
        evaluations = Evaluations(config, directory.path / "snapshots")
        saver = Saver(config, directory, evaluations, serving.note)
        clock, watch, kept = Clock(), Stopwatch(), False
        try:
            if resume:
                recovered = recover(config, task, directory, flat, vectors, evaluations, serving.note)
                state, clock, kept = recovered.state, recovered.clock, recovered.kept
                watch.go_on_from(recovered.times)
                saver.resume_at(*recovered.saved_at)
            else:
                state = make_state(config, directory.incarnation)
                begin_journal(config, directory, state)
            follow_on_board(config, directory, clock.now_s())
            with ZmqServer(
                address,
                max_payload_bytes=flat.state_view().nbytes,
                keys=server_keys(config),
                limits=limits(config),
                tell=serving.overheard.append,
            ) as transport:
                server = Server(
                    config, state, flat, vectors, directory, transport, clock, watch, evaluations, saver, serving.note
                )
                serving.note(f"listening at {transport.address}")
                if channel is not None:
                    server.sessions.reserved = frozenset(range(config.cluster.num_workers))
                if resume:
                    server.resume(kept)
                else:
                    evaluations.keep_if_due(state, flat.state_S, 0.0)
                    # Before anybody is there: a run whose journal has somebody in it can always be gone on with.
                    saver.save_now(state, vectors, 0.0, watch.times())
                    saver.wait()
                if channel is not None and (server.finish is None or evaluations.num_open):
                    channel.send({"address": transport.address})
                elif channel is not None:
                    serving.listen(server)  # how often the server was started is for the summary
                    channel.send({"nothing_left": True})  # that others could do: nobody will tell them that it's over
                while server.finish is None:
                    serving.step(server)
                wall_s = clock.now_s()
                if channel is not None:
                    channel.send({"ending": True})
                server.dismiss_workers()
                saver.save_last(state, vectors, wall_s, watch.times())
                if not server.finish.failed:
                    serving.finish_evaluations(server)
                summary = summarise(
                    config,
                    state,
                    flat,
                    server.finish,
                    evaluations.latest,
                    train_loss=server.course.train_loss,
                    wall_s=wall_s,
                    bytes_in=transport.bytes_in,
                    bytes_out=transport.bytes_out,
                    times=watch.times(),
                    refused_messages=server.offences.num_refused,
                    clients_cut_off=server.offences.num_ignored_clients,
                    max_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                    restarts=sum(serving.restarts.values()),
                    server_restarts=serving.server_restarts,
                    evaluations_missing=evaluations.num_missing,
                    startup_s=(serving.began_s or time.monotonic()) - started_s,
                )
        finally:
            saver.close()
        directory.write_summary(summary)
        if channel is not None:
            channel.send({"status": serving.status(server)})
        if server.finish.failed:
            raise RunError(f"{server.finish.reason}; the checkpoint of version {state.version} is in {path}")
    return summary
