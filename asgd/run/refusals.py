"""How the server refuses: messages that are out of place, the clients that go on sending such, workers without worth.

What may happen very often is told when it has happened 1, 10, 100 ... times.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgd.errors import ProtocolError
from asgd.net import messages as wire
from asgd.net.messages import printable, shorten
from asgd.run.course import TOLD
from asgd.run.sessions import Session

if TYPE_CHECKING:
    from asgd.run.server import Server

TURNS_APART_S = 0.02  # the shortest time between two signs of life, or two attempts to get in, of one client
_MAX_WHY = 1000  # characters of a sentence about a message


def title(session: Session | None) -> str:
    if session is None:
        return "a client"
    return f"worker {session.worker}" if session.role == "worker" else "the evaluator"


def refuse(server: Server, peer: bytes, error: ProtocolError, *, may_retry: bool = False, reply: bool = True) -> None:
    """Tell a client what was wrong with its message. One that goes on is told so, dropped and from then on ignored.

    Without `reply` it hears of it only then: where an answer would be taken for one to something else.
    """
    if server.offences.ignores(peer):
        server.transport.cut_off(peer)
        return
    is_last = server.offences.refused(peer)
    session = server.sessions.of_peer(peer)
    whose, why = "" if session is None else f" of {title(session)}", printable(shorten(str(error), _MAX_WHY))
    if server.offences.num_refused in TOLD:
        server.note(f"refused a message{whose}: {why} ({server.offences.num_refused} so far)")
    if is_last:
        limit = server.offences.limit
        if session is not None or server.offences.num_ignored_clients in TOLD:
            server.note(f"cut off {title(session)}: {limit} of its messages were refused, at last because: {why}")
        server.reply(peer, wire.Refused(f"cut off: {limit} of your messages were refused; {why}", may_retry=False))
        if session is not None and server.sessions.of_peer(peer) is session:
            server.drop(session, f"cut off: {limit} of its messages were refused")
            server.drain()
    elif reply:
        server.reply(peer, wire.Refused(why, may_retry=may_retry))


def refuse_answer(server: Server, worker: int, job: int, reason: str) -> None:
    """An answer that the core has no use for: not a worker's fault if the job was taken back from it."""
    session = server.sessions.of_worker(worker)
    if session is None:
        return
    if session.cancelled:
        session.cancelled -= 1
        return
    refuse(server, session.peer, ProtocolError(f"an answer to job {job}: {reason}"), reply=False)


def quarantine(server: Server, worker: int, reason: str) -> None:
    """Tell a worker why it gets no more jobs; neither its number nor its process is let in again."""
    server.note(f"worker {worker} is {reason}")
    session = server.sessions.of_worker(worker)
    if session is not None:
        server.sessions.quarantine(session, reason)
        server.reply(session.peer, wire.Refused(shorten(reason), may_retry=False))
        if server.sessions.of_peer(session.peer) is session:
            server.drop(session, reason)
