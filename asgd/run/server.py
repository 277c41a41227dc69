"""The server: frames -> net decodes -> Event -> core.ServerState.handle(event) -> actions -> executed here, in order.

One thread owns the parameters, the optimizer and the core. What leaves it is a copy of one version (the transport
copies before `send` returns), so a version that was sent never changes.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Callable

from torch import Tensor

from asgd.config import Config, task_digest
from asgd.core.actions import Action, Assign, Cancel, Finish, Quarantine, Record, Refuse
from asgd.core.events import Arrival, Begin, Event, Leave, Resume, Stop, Tick
from asgd.core.methods import METHODS
from asgd.core.state import ServerState
from asgd.errors import ProtocolError
from asgd.learn.corrections import distance
from asgd.learn.flat import FlatModel
from asgd.learn.update import is_finite, norm_of
from asgd.net import messages as wire
from asgd.net.messages import check_payload, decode_request, encode, printable, shorten
from asgd.net.transport import BadMessage, PeerGone, Received, ServerTransport
from asgd.run.clock import Clock
from asgd.run.course import Course
from asgd.run.evaluations import Evaluations
from asgd.run.expected import Expected
from asgd.run.handshake import welcome
from asgd.run.jobs import samples_per_job
from asgd.run.offences import Offences
from asgd.run.records import RunDirectory
from asgd.run.refusals import TURNS_APART_S, quarantine, refuse, refuse_answer, title
from asgd.run.saving import Saver
from asgd.run.security import most_clients
from asgd.run.sessions import Session, Sessions
from asgd.run.snapshots import hand_out
from asgd.run.stopwatch import Stopwatch
from asgd.run.vectors import Vectors

_HOUSEKEEPING_S = 0.1
_STOOD_STILL_S = 1.0


class Server:
    """Drives the core of one run over a transport.

    Arguments: config: the run's; state: the core; flat: the server's model, whose state_S are the parameters and
    whose answer_S receives each gradient; vectors: what steps it; directory: open for writing, its journal too;
    transport: listening; clock, watch: not yet begun; evaluations, saver: see there; note: takes one line about each
    thing worth telling.
    """

    def __init__(
        self,
        config: Config,
        state: ServerState,
        flat: FlatModel,
        vectors: Vectors,
        directory: RunDirectory,
        transport: ServerTransport,
        clock: Clock,
        watch: Stopwatch,
        evaluations: Evaluations,
        saver: Saver,
        note: Callable[[str], None],
    ) -> None:
        self.config, self.state, self.clock, self.watch = config, state, clock, watch
        self.evaluations = evaluations
        leases_s = config.cluster.min_lease_s, config.cluster.max_lease_s
        self.sessions = Sessions(flat.layout.digest, task_digest(config), *leases_s, most_clients(config))
        self.sessions.quarantined.update(state.quarantined)  # by an earlier server of this run
        self.offences = Offences(config.security.max_refusals)
        self.expected = Expected(state, self.sessions, config.recovery.grace_s)
        self.finish: Finish | None = state.finished
        self.course = Course(note)
        self._flat, self._vectors, self.directory, self._journal = flat, vectors, directory, directory.journal
        self._measures = METHODS[config.method.name].needs_distance
        self._guards = config.method.norm_guard > 0
        self._read_P: Tensor | None = None  # what the job of the arrival being handled was given
        self.transport, self.saver, self.note = transport, saver, note
        self.payload_bytes = flat.state_view().nbytes
        self.asking: deque[bytes] = deque()  # evaluators that wait for a snapshot
        self._events, self._draining = deque[Event](), False
        self._alone_since_s = time.monotonic()
        self.patience_s = config.cluster.start_timeout_s  # how long the run's beginning waits for all workers
        self._next_housekeeping_s = time.monotonic()

    # Events in, actions executed.

    def handle(self, event: Event) -> None:
        """Give an event to the core and execute what it answers; for an `Arrival`, answer_S holds the gradient.

        The journal has it before anything of it leaves the server.
        """
        self._events.append(event)
        self.drain()

    def drain(self) -> None:
        """Handle the events that wait, in order; what an action brings about waits until its event is over."""
        if self._draining or not self._events:
            return
        self._draining = True
        try:
            self._handle_all()
        finally:
            self._draining = False
        kept = self.evaluations.keep_if_due(self.state, self._flat.state_S, self.clock.now_s())
        self.watch.lap("record_s")
        if kept:
            hand_out(self)

    def _handle_all(self) -> None:
        while self._events:
            event, finished_before = self._events.popleft(), self.state.finished is not None
            actions = self.state.handle(event)
            self.watch.lap("decide_s")
            self._journal.append(event, actions, finished_before)
            self.watch.lap("record_s")
            if self.state.begun:  # before the first jobs are sent: their way is part of the run
                self.clock.begin()
                self.watch.start()
            for action in actions:
                self._execute(action)

    def _execute(self, action: Action) -> None:
        if self._vectors.execute(action, self._flat.answer_S, self._read_P):
            self.watch.lap("apply_s")
            return
        match action:
            case Assign(worker, number, version):
                if self._vectors.given(number):
                    self.watch.lap("apply_s")
                self._send_job(worker, number, version)
            case Cancel(worker, number):
                self._cancel_job(worker, number)
            case Record(row):
                self._vectors.reads.ended(row.job)
                self.directory.append_trace(row)
                self.watch.lap("record_s")
                self.evaluations.heard_loss(row.loss)
                self.course.heard(row)
            case Refuse(worker, number, reason):
                refuse_answer(self, worker, number, reason)
            case Quarantine(worker, reason):
                quarantine(self, worker, reason)
            case Finish():
                self.finish = action
                self.watch.stop()

    def _send_job(self, worker: int, job: int, version: int) -> None:
        session = self.sessions.of_worker(worker)
        if session is None:  # dropped a moment ago: its leaving is the next event, and the job is lost with it
            return
        sent_s = session.jobs[job] = time.monotonic()
        try:
            header = encode(wire.Job(job, version, sent_s, session.taken))
            self.transport.send(session.peer, header, self._flat.state_view())
            self.watch.lap("send_s")
        except PeerGone as error:
            self.drop(session, f"unreachable: {error}")

    def _cancel_job(self, worker: int, job: int) -> None:
        session = self.sessions.of_worker(worker)
        if session is not None:
            session.jobs.pop(job, None)
            self.take_back(session, job)

    def take_back(self, session: Session, job: int) -> None:
        """Tell a worker that a job isn't wanted; its answer may be on its way already."""
        session.cancelled += 1
        self.reply(session.peer, wire.Cancel(job))

    def drop(self, session: Session, reason: str, *, late: bool = False) -> None:
        """A client is gone: its jobs are lost, its snapshot is evaluated by another; `late`: it took too long."""
        self.sessions.close(session)
        if session.role == "worker":
            self._events.append(Leave(session.worker, reason, self.clock.now_s()))
            self._alone_since_s = time.monotonic()
        else:
            self.evaluations.lost(session.peer, late=late)
            self.asking = deque(peer for peer in self.asking if peer != session.peer)

    def leave(self, pid: int, reason: str) -> None:
        """The supervisor says that a process of this machine is dead; its successor may be there already."""
        for session in self.sessions:
            if (session.pid, session.host) == (pid, socket.gethostname()):
                self.drop(session, reason)
        self.drain()

    # Messages.

    def receive(self, timeout_s: float, wake: list[int]) -> None:
        """Take one message, waiting for at most `timeout_s` (or until a descriptor of `wake` is readable)."""
        self.watch.lap("other_s")
        try:
            received = self.transport.recv(0.0)
            if received is None:
                self.watch.lap("receive_s")
                received = self.transport.recv(timeout_s, wake)
                self.watch.lap("idle_s")
        except BadMessage as error:
            refuse(self, error.peer, error)
            return
        if received is not None:
            self._take(received)

    def _take(self, received: Received) -> None:
        if self.offences.ignores(received.peer):
            self.transport.cut_off(received.peer)
            return
        session = self.sessions.of_peer(received.peer)
        try:
            request = decode_request(received.header)
            self.watch.lap("receive_s")
            if isinstance(request, wire.Hello):
                check_payload(request, received.payload_bytes, self.payload_bytes)
                welcome(self, received.peer, request, received.name)
                return
            if session is None:
                unknown = ProtocolError("you are not known here (any more): say hello")
                refuse(self, received.peer, unknown, may_retry=True)
                return
            check_payload(request, received.payload_bytes, self.payload_bytes)
            session.last_heard_s, session.num_probes = time.monotonic(), 0
            self._dispatch(session, request, received)
        except ProtocolError as error:
            refuse(self, received.peer, error)

    def _dispatch(self, session: Session, request: wire.Request, received: Received) -> None:
        match request:
            case wire.Gradient() if session.role == "worker":
                self._gradient(session, request, received)
            case wire.Ping():
                apart_s = min(TURNS_APART_S, self.config.cluster.min_lease_s / 64)
                if self.offences.is_hasty(session.peer, session.last_heard_s, apart_s):
                    refuse(self, session.peer, ProtocolError("more signs of life than anybody needs"), reply=False)
                    return
                self.reply(session.peer, wire.Pong(session.taken))
            case wire.Goodbye(reason):
                self.drop(session, f"left: {printable(reason)}")
                self.drain()
            case wire.SnapshotRequest() if session.role == "evaluator":
                if session.peer in self.asking or self.evaluations.is_at_work(session.peer):
                    early = ProtocolError("asked for a snapshot before the last one was evaluated")
                    refuse(self, session.peer, early, reply=False)
                    return
                session.owes_since_s = None
                self.asking.append(session.peer)
                hand_out(self)
            case wire.Evaluated(version, results, _) if session.role == "evaluator":
                row = self.evaluations.result(session.peer, version, results)
                if row is None:
                    unasked = ProtocolError(f"results of version {version}, which it was not asked for")
                    refuse(self, session.peer, unasked, reply=False)
                    return
                session.owes_since_s = session.last_heard_s
                self.directory.append_metrics(row)
                self.directory.flush()
                self.evaluations.recorded(row.version)
                self.watch.lap("record_s")
            case _:
                raise ProtocolError(f"{type(request).__name__} is not for a {session.role} to send")

    def _gradient(self, session: Session, gradient: wire.Gradient, received: Received) -> None:
        if self.finish is not None:
            return  # a job that was in flight when the run ended
        expected = samples_per_job(self.config)
        if gradient.samples != expected:
            raise ProtocolError(f"an answer for {gradient.samples} samples where jobs have {expected}")
        received.copy_payload_into(self._flat.answer_view())
        self.watch.lap("receive_s")
        now_s = self.clock.now_s()
        started_s = None if gradient.job in session.from_before else self.clock.at(gradient.started_s)
        session.answered(gradient.job, session.last_heard_s)
        self._read_P = self._vectors.read_P(gradient.job)
        finite, moved, refused = is_finite(self._flat.answer_S), self._distance(), self.state.refused
        norm = norm_of(self._flat.answer_S[: self._flat.layout.size_P]) if self._guards else None
        self.watch.lap("apply_s")
        self.handle(
            Arrival(
                session.worker,
                gradient.job,
                gradient.version,
                gradient.loss,
                gradient.samples,
                gradient.compute_s,
                now_s,
                wait_s=gradient.wait_s,
                finite=finite,
                distance=moved,
                queue_s=gradient.queue_s,
                started_s=started_s,
                norm=norm,
            )
        )
        if self.state.refused == refused:
            self.offences.made_up(received.peer)

    def _distance(self) -> float | None:
        if not self._measures or self._read_P is None:
            return None
        return distance(self._flat.params_P, self._read_P)

    def reply(self, peer: bytes, message: wire.Reply) -> None:
        try:
            self.transport.send(peer, encode(message))
            self.watch.lap("send_s")
        except PeerGone as error:
            session = self.sessions.of_peer(peer)
            if session is not None:
                self.drop(session, f"unreachable: {error}")
                self.drain()

    # Time.

    def housekeeping(self) -> None:
        """What happens by the clock: silent clients, time budgets, files. Cheap to call often."""
        now_s = time.monotonic()
        if now_s < self._next_housekeeping_s:
            return
        if now_s - self._next_housekeeping_s > _STOOD_STILL_S:  # stopped by a signal, say: nobody else was silent
            self.sessions.excuse(now_s - self._next_housekeeping_s)
        self._next_housekeeping_s = now_s + _HOUSEKEEPING_S
        self.watch.lap("other_s")
        for session in self.sessions.overdue(now_s):
            self.note(f"{title(session)} is overdue ({session.how_late(now_s)}): taken for dead")
            self.drop(session, "overdue", late=True)
        self.drain()
        if self.finish is None:
            self._watch_start(now_s)
            for worker, reason in self.expected.overdue(now_s):
                self.handle(Leave(worker, reason, self.clock.now_s()))
            self.handle(Tick(self.clock.now_s()))
            self.saver.save_if_due(self.state, self._vectors, self.clock.now_s(), self.watch.times())
        else:
            hand_out(self)
        self.directory.flush()
        self._journal.sync_if_due(now_s)
        self.watch.lap("record_s")

    def _watch_start(self, now_s: float) -> None:
        """The run begins with the workers that are there, or ends if there have been none for too long."""
        if list(self.state.workers):
            self._alone_since_s = now_s if self.state.begun else self._alone_since_s
        num_workers, limit_s = len(list(self.state.workers)), self.config.cluster.start_timeout_s
        if num_workers and not self.state.begun:
            limit_s = self.patience_s
        if now_s - self._alone_since_s <= limit_s:
            return
        if num_workers and not self.state.begun:
            self.note(f"beginning with {num_workers} of {self.config.cluster.num_workers} workers after {limit_s:g} s")
            self.handle(Begin(self.clock.now_s()))
        elif not num_workers:
            self.fail(f"no worker has been there for {limit_s:g} s")

    def stop(self, reason: str) -> None:
        """End the run in good order."""
        self.handle(Stop(reason, self.clock.now_s()))

    def fail(self, reason: str) -> None:
        """End the run as one that could not go on."""
        self.handle(Stop(reason, self.clock.now_s(), failed=True))

    def resume(self, kept: bool) -> None:
        """Go on after a restart: with what was in flight as lost, or, if it was `kept`, waiting for the workers of
        before to come back with their jobs, for `recovery.grace_s`.
        """
        if kept:
            self.expected.begin(time.monotonic())
        else:
            self.handle(Resume(self.clock.now_s()))

    def dismiss_workers(self) -> None:
        """Tell every worker that the run is over."""
        assert self.finish is not None
        for session in self.sessions:
            if session.role == "worker" or self.finish.failed:
                self.reply(session.peer, wire.Stop(shorten(self.finish.reason)))
        hand_out(self)

    def dismiss_evaluators(self, reason: str) -> None:
        """Tell every evaluator that nobody waits for its results."""
        for session in self.sessions:
            if session.role == "evaluator":
                self.reply(session.peer, wire.Stop(shorten(reason)))

    @property
    def num_evaluators(self) -> int:
        return sum(session.role == "evaluator" for session in self.sessions)
