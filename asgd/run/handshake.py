"""How the server lets clients in: who they are, what they hold from before, and what becomes of it.

A worker that comes back (its connection broke, it had been given up, or the server was started again) names the jobs
that it holds. If these are all that are outstanding for it, it goes on with them and the core hears nothing. Otherwise
it left and joins anew: what was outstanding is lost, and what it still holds is taken back.

Host and process, by which a client is known again, are what it says of itself. With keys a session belongs to the name
of the key that opened it, and nobody with another key can take it over. Whoever has the same key can: a key shared by
all protects nobody from the others, and neither does a server that was started again and has no sessions yet.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from asgd.core.events import Join, Leave
from asgd.errors import ProtocolError
from asgd.net import messages as wire
from asgd.net.messages import printable
from asgd.run.build import run_name
from asgd.run.refusals import TURNS_APART_S, refuse
from asgd.run.sessions import Session

if TYPE_CHECKING:
    from asgd.run.server import Server

# Messages that only find out whether a client is there: until it is heard again, and because of one hello.
_MAX_PROBES = 8
_TOLD_BY_NAME = 100  # clients that were turned away


def welcome(server: Server, peer: bytes, hello: wire.Hello, name: str) -> None:
    """Answer a `Hello` of somebody with the key of this name: let the client in, or say why not."""
    known = server.sessions.of_peer(peer)
    if known is not None:  # it has asked twice
        refuse(server, peer, ProtocolError("said hello again"), reply=False)
        if server.sessions.of_peer(peer) is known:
            _greet(server, known)
        return
    over = server.finish is not None and (hello.role == "worker" or server.evaluations.num_open == 0)
    members = server.state.workers
    refusal = ("the run is over", False) if over else server.sessions.why_refused(hello, name, members)
    had_session = False
    if refusal is None or refusal[1]:
        had_session = _make_room(server, hello, name)
        refusal = server.sessions.why_refused(hello, name, server.state.workers)
    if refusal is not None:
        _turn_away(server, peer, hello, *refusal)
        return
    server.transport.admit(peer)
    session = server.sessions.open(peer, hello, time.monotonic(), name, expected=server.state.workers)
    _greet(server, session)
    if session.role == "worker":
        _take_up(server, session, hello.jobs, "reconnected" if had_session else "the server was restarted")


def _turn_away(server: Server, peer: bytes, hello: wire.Hello, reason: str, may_retry: bool) -> None:
    if may_retry and not server.offences.is_hasty(peer, time.monotonic(), TURNS_APART_S):
        server.reply(peer, wire.Refused(reason, may_retry=True))
        return
    if not may_retry:
        server.offences.num_turned_away += 1
        if server.offences.num_turned_away <= _TOLD_BY_NAME:
            server.note(f"refused {hello.role} {printable(hello.host)} (process {hello.pid}): {reason}")
    refuse(server, peer, ProtocolError(reason), may_retry=may_retry)


def _make_room(server: Server, hello: wire.Hello, name: str) -> bool:
    """Close what a client had here before its connection broke, and say whether it had something; find out whether the
    holder of its number is there, or where all places are taken, some of those who have been silent longest.
    """
    had_session = False
    if len(server.sessions) >= server.sessions.most:
        silent = sorted(server.sessions, key=lambda session: (session.num_probes, session.last_heard_s))
        _probe(server, silent[:_MAX_PROBES])
    for session in server.sessions:
        if (session.role, *session.process) != (hello.role, name, hello.host, hello.pid):
            is_asked_for = hello.role == session.role == "worker" and hello.worker == session.worker
            if is_asked_for:
                _probe(server, [session])
        elif session.role == "worker" and session.worker == hello.worker:
            server.sessions.close(session)  # whether it has left is for `_take_up` to see
            had_session = True
        elif session.role == "evaluator":
            server.drop(session, "reconnected")
            server.drain()
    return had_session


def _probe(server: Server, sessions: Sequence[Session]) -> None:
    """Find out who of these is gone: they are dropped."""
    for session in sessions:
        if session.num_probes < _MAX_PROBES:  # it may be computing, and reads nothing
            session.num_probes += 1
            server.reply(session.peer, wire.Pong(session.taken))


def _take_up(server: Server, session: Session, held: tuple[int, ...], why_lost: str) -> None:
    """Let a worker go on with its outstanding jobs if it holds them all, or join anew; `why_lost`: the others."""
    worker, state = session.worker, server.state
    outstanding = {job.job for job in state.outstanding if job.worker == worker}
    goes_on = worker in state.workers and outstanding.issubset(held)
    if goes_on:
        session.jobs = dict.fromkeys(sorted(outstanding), time.monotonic())
        session.from_before = outstanding
        if outstanding:
            server.note(f"worker {worker} is back and goes on with {_jobs(outstanding)}")
    for job in held:
        if not goes_on or job not in outstanding:
            server.take_back(session, job)
    if not goes_on and worker in state.workers:
        server.handle(Leave(worker, why_lost, server.clock.now_s()))
    if not goes_on and server.sessions.of_worker(worker) is session:  # it may be gone again
        server.handle(Join(worker, server.clock.now_s()))


def _jobs(numbers: set[int]) -> str:
    return ("job " if len(numbers) == 1 else "jobs ") + ", ".join(str(number) for number in sorted(numbers))


def _greet(server: Server, session: Session) -> None:
    name = run_name(server.directory.path)[:255]
    now_s, sent_s = server.clock.now_s(), time.monotonic()
    message = wire.Welcome(session.worker, server.payload_bytes, name, now_s, sent_s, server.directory.incarnation)
    server.reply(session.peer, message)
