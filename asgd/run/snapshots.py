"""How the server hands out the snapshots that are to be evaluated, to the evaluators that ask for one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from asgd.net import messages as wire
from asgd.net.messages import encode
from asgd.net.transport import PeerGone

if TYPE_CHECKING:
    from asgd.run.server import Server


def hand_out(server: Server) -> None:
    """Give each evaluator that asked what there is, or its leave when all is evaluated; the next step is its own."""
    while server.asking:
        peer, is_over = server.asking[0], server.finish is not None
        snapshot = server.evaluations.next_for(peer, training=not is_over)
        if snapshot is None and not (is_over and server.evaluations.num_open == 0):
            return
        server.asking.popleft()
        session = server.sessions.of_peer(peer)
        if session is not None:
            session.owes_since_s = time.monotonic()
        if snapshot is None:
            server.reply(peer, wire.NoSnapshot(finished=True))
            continue
        try:
            server.transport.send(peer, encode(wire.Snapshot(snapshot.version)), snapshot.read().numpy().data)
            server.watch.lap("send_s")
        except PeerGone as error:
            if session is not None:
                server.drop(session, f"unreachable: {error}")
