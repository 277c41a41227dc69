"""What workers and evaluators share: the handshake, and waiting for the server with a limit and signs of life."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections import deque
from typing import NamedTuple

from asgd.config import Config, task_digest
from asgd.errors import Interrupted, ProtocolError, RunError
from asgd.net.messages import (
    PROTOCOL_VERSION,
    Goodbye,
    Hello,
    Job,
    Ping,
    Pong,
    Refused,
    Reply,
    Request,
    Stop,
    Welcome,
    check_payload,
    decode_reply,
    encode,
    shorten,
)
from asgd.net.transport import ClientTransport, PeerGone, Received
from asgd.run.clock import ServerClock
from asgd.run.signals import StopRequests

# A client that waits says so this often at most, so that it isn't taken for dead; the server's silence allows several.
PING_EVERY_S = 5.0
RETRY_AFTER_S = 0.2
LOOK_EVERY_S = 0.25  # how soon a stop request is seen


class Refusal(RunError):
    """The server refused the handshake."""


class Got(NamedTuple):
    """A message of the server; `came_s`: when (time.monotonic) it was there, by estimate for a job that lay unseen."""

    reply: Reply
    received: Received
    came_s: float


class Connection:
    """A client's conversation with the server.

    Arguments: transport: connected; address: for messages; config: time-outs and the digest of the work; role:
    "worker" or "evaluator"; worker: its number, -1 for any; layout: digest of the parameter layout; payload_bytes:
    the length that this client's model needs; stops: ends a wait with `Interrupted`.
    Errors: RunError when the server is silent for longer than `cluster.server_timeout_s` or refuses the handshake.
    """

    def __init__(
        self,
        transport: ClientTransport,
        address: str,
        config: Config,
        role: str,
        worker: int,
        layout: str,
        payload_bytes: int,
        stops: StopRequests,
    ) -> None:
        self._stops = stops
        self._transport = transport
        self._address = address
        self._role, self._worker, self._layout = role, worker, layout
        self._task = task_digest(config)
        self._payload_bytes = payload_bytes
        self._limit_s = config.cluster.server_timeout_s
        self._start_limit_s = config.cluster.start_timeout_s
        self.ping_s = min(PING_EVERY_S, self._limit_s / 4, config.cluster.min_lease_s / 4)
        self._held: deque[Got] = deque()
        self._heard_s = time.monotonic()
        self._clock: ServerClock | None = None

    def server_s(self, local_s: float) -> float:
        """The server's clock at a moment of time.monotonic(), by estimate; after the handshake."""
        assert self._clock is not None
        return self._clock.server_s(local_s)

    def hello(self) -> Welcome:
        """Say hello until the server lets us in; Refusal when it never will."""
        hello = Hello(
            protocol=PROTOCOL_VERSION,
            role="worker" if self._role == "worker" else "evaluator",
            worker=self._worker,
            layout=self._layout,
            task=self._task,
            host=platform.node()[:255],
            pid=os.getpid(),
        )
        deadline = time.monotonic() + self._start_limit_s
        self._held.clear()  # jobs from before, which are lost by now
        ask_again_s: float | None = time.monotonic()
        while True:
            now_s = time.monotonic()
            if ask_again_s is not None and now_s >= ask_again_s:
                self.send(hello)
                ask_again_s = None
            reason = self._stops.take()
            if reason is not None:
                raise Interrupted(reason)
            got = self._receive(LOOK_EVERY_S if ask_again_s is None else max(0.0, ask_again_s - now_s))
            reply = None if got is None else got.reply
            if isinstance(reply, Welcome):
                if reply.payload_bytes != self._payload_bytes:
                    raise Refusal(
                        f"the server at {self._address} sends {reply.payload_bytes} bytes, not {self._payload_bytes}"
                    )
                self._worker = reply.worker
                return reply
            if isinstance(reply, Stop):
                raise Refusal(f"the server at {self._address} has stopped: {reply.reason}")
            if isinstance(reply, Refused) and (not reply.may_retry or now_s >= deadline):
                raise Refusal(f"the server at {self._address} refused us: {reply.reason}")
            if isinstance(reply, Refused) and ask_again_s is None:
                ask_again_s = now_s + RETRY_AFTER_S
            if now_s >= deadline:
                raise RunError(f"no server answers at {self._address} (waited {self._start_limit_s:g} s)")

    def send(self, message: Request, payload: memoryview | None = None) -> None:
        try:
            self._transport.send(encode(message), payload)
        except PeerGone as error:
            raise RunError(f"the server at {self._address} doesn't take our messages: {error}") from error

    def goodbye(self, reason: str) -> None:
        """Tell the server that we leave, if it still listens."""
        with contextlib.suppress(PeerGone):  # nobody is there to be told
            self._transport.send(encode(Goodbye(shorten(reason))))

    def _receive(self, timeout_s: float) -> Got | None:
        received, waited = self._transport.recv(0.0), False
        if received is None and timeout_s > 0.0:
            received, waited = self._transport.recv(timeout_s), True
        if received is None:
            return None
        came_s = self._heard_s = time.monotonic()
        reply = decode_reply(received.header)
        try:
            check_payload(reply, received.payload_bytes, self._payload_bytes)
        except ProtocolError as error:
            raise RunError(f"the server at {self._address} broke the protocol: {error}") from error
        if isinstance(reply, Welcome):
            self._clock = ServerClock(reply.sent_s, came_s)
        elif isinstance(reply, Job) and self._clock is not None:
            came_s = self._clock.job_came_s(reply.sent_s, came_s, waited=waited)
        return Got(reply, received, came_s)

    def wait(self, until_s: float | None = None) -> Got | None:
        """The next message that isn't a sign of life; None at `until_s` (of time.monotonic), without it there is no
        end but the limit.
        """
        if self._held and until_s is None:
            return self._held.popleft()
        asked_s = time.monotonic()
        self._heard_s = max(self._heard_s, asked_s)  # what the server owes us counts from now
        pinged_s = asked_s
        while True:
            now_s = time.monotonic()
            reason = self._stops.take()
            if reason is not None:
                raise Interrupted(reason)
            if now_s - self._heard_s > self._limit_s:
                raise RunError(f"the server at {self._address} has not answered for {self._limit_s:g} s")
            if now_s - pinged_s >= self.ping_s:
                self.send(Ping())
                pinged_s = now_s
            step_s = LOOK_EVERY_S if until_s is None else min(LOOK_EVERY_S, until_s - now_s)
            got = self._receive(max(0.0, step_s))
            if got is not None and not isinstance(got.reply, Pong):
                return got
            if got is None and until_s is not None and time.monotonic() >= until_s:
                return None

    def hold(self, got: Got) -> None:
        """Keep a message for the next `wait` without an end."""
        self._held.append(got)

    def forget(self, job: int) -> None:
        """Drop a job that is kept: it was cancelled."""
        self._held = deque(got for got in self._held if not (isinstance(got.reply, Job) and got.reply.job == job))
