"""What workers and evaluators share: the handshake, waiting for the server with a limit and signs of life, and coming
back to it when the connection has broken or the server was started again.
"""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from asgd.config import Config, task_digest
from asgd.errors import Interrupted, ProtocolError, RunError
from asgd.net.messages import (
    PROTOCOL_VERSION,
    Cancel,
    Goodbye,
    Gradient,
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
    printable,
    shorten,
)
from asgd.net.transport import ClientTransport, PeerGone, Received
from asgd.run.answers import Answers
from asgd.run.clock import ServerClock
from asgd.run.signals import StopRequests

# A client that waits says so this often at most, so that it isn't taken for dead; the server's silence allows several.
PING_EVERY_S = 5.0
RETRY_AFTER_S = 0.2  # and twice as long each time, up to ...
RETRY_AFTER_AT_MOST_S = 2.0
LOOK_EVERY_S = 0.25  # how soon a stop request, or a broken connection, is seen
STOOD_STILL_S = 1.0  # a wait that took so much longer than it should: this process was stopped, not the server silent


class Refusal(RunError):
    """The server refused the handshake."""


class Got(NamedTuple):
    """A message of the server; `came_s`: when (time.monotonic) it was there, by estimate for a job that lay unseen."""

    reply: Reply
    received: Received
    came_s: float


class Connection:
    """A client's conversation with the server.

    When the connection breaks, or the server doesn't know us any more, `wait` comes back to it by itself: it names what
    we hold, sends the answers again of which there is no sign that they arrived, calls `on_return`, and goes on.

    Arguments: transport: connected; address: for messages; config: time-outs and the digest of the work; role:
    "worker" or "evaluator"; worker: its number, -1 for any; layout: digest of the parameter layout; payload_bytes:
    the length that this client's model needs; stops: ends a wait with `Interrupted`; note: takes one line about each
    thing worth telling.
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
        note: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._stops, self._note = stops, note
        self._transport = transport
        self._address = address
        self._role, self._worker, self._layout = role, worker, layout
        self._any_number = worker < 0
        self._task = task_digest(config)
        self._payload_bytes = payload_bytes
        self._limit_s = config.cluster.server_timeout_s
        self._start_limit_s = config.cluster.start_timeout_s
        self.ping_s = min(PING_EVERY_S, self._limit_s / 4, config.cluster.min_lease_s / 4)
        self.on_return: Callable[[Welcome], None] = lambda welcome: None
        self.at_work: int | None = None  # the job that is being computed
        self._answers = Answers()
        self._inbox: deque[Got] = deque()  # what came before we were back
        self._held: deque[Got] = deque()
        self._heard_s = time.monotonic()
        self._clock: ServerClock | None = None
        self._num_broken = 0
        self._incarnation: int | None = None

    def server_s(self, local_s: float) -> float:
        """The server's clock at a moment of time.monotonic(), by estimate; after the handshake."""
        assert self._clock is not None
        return self._clock.server_s(local_s)

    def hello(self) -> Welcome:
        """Say hello until the server lets us in; Refusal when it never will."""
        self._num_broken = self._transport.num_broken
        deadline_s = time.monotonic() + self._start_limit_s
        return self._say_hello(deadline_s, f"no server answers at {self._address} (waited {self._start_limit_s:g} s)")

    def _hello(self, worker: int, jobs: tuple[int, ...]) -> Hello:
        return Hello(
            protocol=PROTOCOL_VERSION,
            role="worker" if self._role == "worker" else "evaluator",
            worker=worker,
            layout=self._layout,
            task=self._task,
            host=platform.node()[:255],
            pid=os.getpid(),
            jobs=jobs,
        )

    def _say_hello(self, deadline_s: float, too_late: str) -> Welcome:
        hello = self._hello(self._worker, self._jobs())
        next_s, apart_s, waits = time.monotonic(), RETRY_AFTER_S, False
        while True:
            now_s = time.monotonic()
            if self._transport.num_broken > self._num_broken:  # and what we said may have gone with it
                self._num_broken, waits, next_s = self._transport.num_broken, False, now_s
            if not waits and now_s >= next_s:
                self.send(hello)
                waits, next_s = True, now_s + max(self._limit_s / 4, RETRY_AFTER_AT_MOST_S)
            elif now_s >= next_s:
                waits = False
            reason = self._stops.take()
            if reason is not None:
                raise Interrupted(reason)
            got = self._receive(max(0.0, min(LOOK_EVERY_S, next_s - now_s)))
            reply = None if got is None else got.reply
            if isinstance(reply, Welcome):
                if reply.payload_bytes != self._payload_bytes:
                    raise Refusal(
                        f"the server at {self._address} sends {reply.payload_bytes} bytes, not {self._payload_bytes}"
                    )
                self._worker, self._incarnation = reply.worker, reply.incarnation
                return reply
            if isinstance(reply, Stop):
                raise Refusal(f"the server at {self._address} has stopped: {reply.reason}")
            if isinstance(reply, Refused) and (not reply.may_retry or now_s >= deadline_s):
                raise Refusal(f"the server at {self._address} refused us: {reply.reason}")
            if isinstance(reply, Refused) and waits:
                waits, next_s = False, now_s + apart_s
                apart_s = min(2 * apart_s, RETRY_AFTER_AT_MOST_S)
                if self._any_number and apart_s >= RETRY_AFTER_AT_MOST_S:  # another has got our number meanwhile
                    hello = self._hello(-1, ())
            if isinstance(reply, Job):
                assert got is not None
                self._inbox.append(got)
            if now_s >= deadline_s:
                raise RunError(too_late)

    def _jobs(self) -> tuple[int, ...]:
        """What we hold: answers without a sign of arrival, the job that is being computed, and those that wait."""
        waiting = [got.reply.job for got in (*self._held, *self._inbox) if isinstance(got.reply, Job)]
        at_work = [] if self.at_work is None else [self.at_work]
        return tuple(dict.fromkeys([*self._answers.jobs, *at_work, *waiting]))

    def _come_back(self, why: str) -> None:
        """Say hello again after the server was lost, for as long as it may be silent."""
        while (got := self._receive(0.0)) is not None:  # what came before belongs to what we hold
            if isinstance(got.reply, Job | Cancel | Stop):
                self._inbox.append(got)
            elif isinstance(got.reply, Refused) and not got.reply.may_retry:
                raise RunError(f"the server at {self._address} refused us: {got.reply.reason}")
        if any(isinstance(got.reply, Stop) for got in self._inbox):
            return
        before = self._incarnation
        self._note(f"{why}; saying hello again to the server at {self._address}")
        self._num_broken = self._transport.num_broken
        late = f"the server at {self._address} was lost ({why}) and did not come back within {self._limit_s:g} s"
        welcome = self._say_hello(time.monotonic() + self._limit_s, late)
        again = (
            "" if welcome.incarnation == before else f", which was started again (incarnation {welcome.incarnation})"
        )
        self._note(f"back at the server{again}")
        for gradient, payload in self._answers:
            self.send(gradient, payload)
        self.on_return(welcome)

    def answer(self, gradient: Gradient, payload: memoryview) -> None:
        """Send an answer, and keep it until the server has it; its memory must not change before `before_work`."""
        self.send(gradient, payload)
        self._answers.sent(gradient, payload)

    def before_work(self, job: int) -> None:
        """A job is begun: the memory of the last answer is needed again."""
        self._answers.secure()
        self.at_work = job

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
        if isinstance(reply, Refused | Stop):  # what it says ends up on somebody's terminal
            reply = msgspec.structs.replace(reply, reason=printable(reply.reason))
        elif isinstance(reply, Welcome):
            reply = msgspec.structs.replace(reply, run=printable(reply.run))
        try:
            check_payload(reply, received.payload_bytes, self._payload_bytes)
        except ProtocolError as error:
            raise RunError(f"the server at {self._address} broke the protocol: {error}") from error
        if isinstance(reply, Welcome):
            self._clock = ServerClock(reply.sent_s, came_s)
        elif isinstance(reply, Job) and self._clock is not None:
            came_s = self._clock.job_came_s(reply.sent_s, came_s, waited=waited)
        if isinstance(reply, Job | Pong):
            self._answers.taken(reply.taken)
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
            if self._inbox:
                return self._inbox.popleft()
            now_s = time.monotonic()
            reason = self._stops.take()
            if reason is not None:
                raise Interrupted(reason)
            if now_s - self._heard_s > self._limit_s:
                raise RunError(f"the server at {self._address} has not answered for {self._limit_s:g} s")
            if now_s - pinged_s >= self.ping_s:
                self.send(Ping())
                pinged_s = now_s
            step_s = max(0.0, LOOK_EVERY_S if until_s is None else min(LOOK_EVERY_S, until_s - now_s))
            got = self._receive(step_s)
            if got is None:
                stood_still_s = time.monotonic() - now_s - step_s
                self._heard_s += stood_still_s if stood_still_s > STOOD_STILL_S else 0.0
                if self._transport.num_broken > self._num_broken:
                    self._come_back("the connection broke")
                elif until_s is not None and time.monotonic() >= until_s:
                    return None
            elif isinstance(got.reply, Refused) and got.reply.may_retry:
                self._come_back(got.reply.reason)
            elif not isinstance(got.reply, Pong | Welcome):
                return got

    def hold(self, got: Got) -> None:
        """Keep a message for the next `wait` without an end."""
        self._held.append(got)

    def forget(self, job: int) -> None:
        """Drop a job that is kept: it was cancelled."""
        self._held = deque(got for got in self._held if not (isinstance(got.reply, Job) and got.reply.job == job))
