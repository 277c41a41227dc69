"""An evaluator: fetches snapshots from the server, evaluates them on the test data, sends the results back."""

from __future__ import annotations

import time
from collections.abc import Callable

from asgd.config import Config
from asgd.errors import RunError
from asgd.learn.flat import FlatModel
from asgd.learn.gradient import evaluate
from asgd.learn.task import Task
from asgd.net.messages import Evaluated, NoSnapshot, Ping, Refused, Snapshot, SnapshotRequest, Stop
from asgd.net.zeromq import ZmqClient
from asgd.run.client import Connection
from asgd.run.security import client_keys
from asgd.run.signals import StopRequests


def run_evaluator(
    config: Config,
    task: Task,
    flat: FlatModel,
    address: str,
    stops: StopRequests,
    note: Callable[[str], None] = lambda line: None,
) -> None:
    """Evaluate what the server at `address` gives until there is nothing more.

    Errors: RunError when the server can't be reached, refuses us or falls silent.
    """
    payload_bytes = flat.state_view().nbytes
    with ZmqClient(address, max_payload_bytes=payload_bytes, keys=client_keys(config)) as transport:
        layout = flat.layout.digest
        connection = Connection(transport, address, config, "evaluator", -1, layout, payload_bytes, stops, note)
        welcome = connection.hello()
        note(f"evaluator of run {welcome.run} at {address}")
        # A result on its way when the server was lost is of no use: the server asks for it again, or it is undone.
        connection.on_return = lambda welcome: connection.send(SnapshotRequest())
        alive = _SignOfLife(connection)
        connection.send(SnapshotRequest())
        while True:
            got = connection.wait()
            assert got is not None
            reply = got.reply
            if isinstance(reply, Snapshot):
                started_s = time.monotonic()
                got.received.copy_payload_into(flat.state_view())
                results = evaluate(task, flat, config.evaluation.batch_size, on_batch=alive)
                connection.send(Evaluated(reply.version, results, time.monotonic() - started_s))
                connection.send(SnapshotRequest())
            elif isinstance(reply, Stop) or (isinstance(reply, NoSnapshot) and reply.finished):
                note("evaluator done")
                connection.goodbye("done")
                return
            elif isinstance(reply, Refused):
                raise RunError(f"the server refused the evaluator: {reply.reason}")


class _SignOfLife:
    """Called between batches: keeps the server from taking a long evaluation for a death."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._last_s = time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self._last_s >= self._connection.ping_s:
            self._connection.send(Ping())
            self._last_s = time.monotonic()
