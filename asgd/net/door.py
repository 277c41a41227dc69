"""Who may come in, how many, and how much each may leave unread: what guards a server's socket beside its own loop.

ZAP (https://rfc.zeromq.org/spec/27/): before libzmq lets a client in whose handshake was sound, it asks at
inproc://zeromq.zap.01 of the same context whether its key is welcome. `decide` is that policy, a pure function;
`Door` is the thread that runs it, as in pyzmq's zmq.auth.

libzmq bounds the size of a frame (ZMQ_MAXMSGSIZE) and the number of whole messages in a queue (ZMQ_RCVHWM), but not the
number of frames of one message, nor the number of connections. The same thread bounds these: it hears of each
connection through libzmq's monitor, asks the kernel how many bytes it has delivered (TCP_INFO), knows how many of
them the server has read in whole messages, and shuts down a connection that holds too many, or that is one too many.
Measured: with room for 256 KiB, a message of empty frames without an end (libzmq takes 64 bytes for the 2 that each has
on the wire) was cut off after 0.07 s, and the process had grown by 23 MB.

What the server sends and nobody reads waits in its memory, and libzmq bounds only its number (ZMQ_SNDHWM). So the
thread compares what was sent to a connection with what the other end has acknowledged (TCP_INFO again), and shuts down
one that leaves more than two whole messages unread and takes less than 64 KiB in `unread_s`. A client of ours reads on
into its own queue while it computes, so a burst of jobs to one worker is no offence. One that reads just fast enough is
bounded by the number alone.

The kernel counts for tcp only. With ipc, whose peers are processes of this machine with access to the file, neither the
frames of one message nor the bytes left unread are bounded.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import zmq
from zmq.utils import z85
from zmq.utils.monitor import parse_monitor_message

from asgd.errors import RunError
from asgd.net.transport import MAX_QUEUED_MESSAGES

ZAP_ADDRESS: Final = "inproc://zeromq.zap.01"
ZAP_DOMAIN: Final = b"asgd"
CLOSE_LIMIT_S: Final = 5.0
ANSWER_LIMIT_S: Final = 30.0
_STOP: Final = b"s"
_HEAR: Final = b"h"
_LOOK_EVERY_S: Final = 0.05
_BYTES_ACKNOWLEDGED_AT: Final = 120  # tcpi_bytes_acked, tcpi_bytes_received in struct tcp_info, since Linux 4.1
_LEAST_PROGRESS_BYTES: Final = 64 * 1024
_UNREAD_MESSAGES: Final = 2


@dataclass(frozen=True)
class Limits:
    """What a server lets its peers do, whoever they are.

    connections: at once; of more, those that were not admitted yet are closed, the oldest first; messages: whole ones
    of a connection that are kept unread before it has to wait; slack_bytes: what a connection may have sent beyond
    those; stranger_bytes: what one may have sent unread that was not admitted yet (None: as much as any other);
    unread_s: how long one may leave more than two whole messages and slack_bytes unread without reading on.
    """

    connections: int = 1024
    messages: int = 2 * MAX_QUEUED_MESSAGES
    slack_bytes: int = 1024 * 1024
    stranger_bytes: int | None = None
    unread_s: float = 2.0


@dataclass
class Connection:
    """What is known of one; each count is written by one thread only."""

    room_bytes: int  # that it may have sent and the server has not read
    read_bytes: int = 0
    is_stranger: bool = True
    is_closed: bool = False
    sent_bytes: int = 0  # counted before libzmq gets them
    _uncounted_bytes: int = 0  # that were acknowledged beyond those: greetings, the heads of frames
    _progress_bytes: int = 0  # acknowledged ...
    _progress_s: float = 0.0  # ... at this time

    def is_stuck(self, acknowledged_bytes: int, limit_bytes: int, limit_s: float, now_s: float) -> bool:
        """Whether it has left more than `limit_bytes` unread and read next to nothing for `limit_s`.

        acknowledged_bytes: by the kernel of the other end so far, asked before this call.

        >>> connection = Connection(room_bytes=0, sent_bytes=1000)
        >>> [connection.is_stuck(10, 500, 2.0, now_s) for now_s in (1.0, 3.5)]
        [False, True]
        """
        self._uncounted_bytes = max(self._uncounted_bytes, acknowledged_bytes - self.sent_bytes)
        unread_bytes = self.sent_bytes + self._uncounted_bytes - acknowledged_bytes
        took_bytes = acknowledged_bytes - self._progress_bytes
        if unread_bytes <= limit_bytes or took_bytes >= _LEAST_PROGRESS_BYTES or not self._progress_s:
            self._progress_bytes, self._progress_s = acknowledged_bytes, now_s
        return now_s - self._progress_s > limit_s


def decide(request: Sequence[bytes], accepted: dict[bytes, str]) -> list[bytes]:
    """The answer to a ZAP request: 200 and the key's name for a key of the list, 400 for everybody else.

    Args: request: the frames version, request id, domain, address, identity, mechanism, credentials...; accepted:
    public keys (Z85) with their names.

    >>> decide([b"1.0", b"1", b"asgd", b"127.0.0.1", b"", b"NULL"], {})[2:4]
    [b'400', b'not in the list']
    """
    number = request[1] if len(request) > 1 else b""
    name = None
    if len(request) == 7 and (request[0], request[2], request[5]) == (b"1.0", ZAP_DOMAIN, b"CURVE"):
        name = accepted.get(z85.encode(request[6])) if len(request[6]) == 32 else None
    if name is None:
        return [b"1.0", number, b"400", b"not in the list", b"", b""]
    return [b"1.0", number, b"200", b"OK", name.encode(), b""]


class Door:
    """The thread at the door of a ROUTER socket that isn't bound yet.

    Arguments: context, router: the server's; accepted: the list of keys, None where there is no encryption; limits;
    message_bytes: the longest whole message; tell: takes a line about each thing refused, from this thread.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        router: zmq.Socket[bytes],
        accepted: dict[bytes, str] | None,
        limits: Limits,
        message_bytes: int,
        tell: Callable[[str], None],
    ) -> None:
        self._accepted, self._limits, self._tell = accepted or {}, limits, tell
        self._room_bytes = (limits.messages + 1) * message_bytes + limits.slack_bytes
        self._unread_bytes = _UNREAD_MESSAGES * message_bytes + limits.slack_bytes
        self._connections: dict[int, Connection] = {}  # by descriptor
        self._told: dict[str, int] = {}
        self.failure: str | None = None
        self._next_look_s = 0.0
        self._router, self._zap = router, None
        try:
            if accepted is not None:
                self._zap = context.socket(zmq.REP)
                self._zap.linger = 0
                self._zap.bind(ZAP_ADDRESS)
            self._monitor = router.get_monitor_socket(zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
            self._monitor.linger = 0
        except BaseException:
            if self._zap is not None:
                self._zap.close()
            raise
        self._ask_reading, self._ask_writing = os.pipe()
        self._has_heard = threading.Event()
        self._thread = threading.Thread(target=self._run, name="door", daemon=True)
        self._thread.start()

    def has_read(self, descriptor: int, count: int) -> None:
        """The server has taken a whole message of `count` bytes from a connection."""
        connection = self._connections.get(descriptor)
        if connection is not None:
            connection.read_bytes += count

    def admit(self, descriptor: int) -> Connection | None:
        """A connection is no stranger any more; None when it is gone.

        It has been told of, but this thread may still have one in mind that had the same descriptor: it is asked first
        to hear all that there is.
        """
        self._has_heard.clear()
        os.write(self._ask_writing, _HEAR)
        if self.failure is None and not self._has_heard.wait(ANSWER_LIMIT_S):
            raise RunError(f"the thread that guards the server's socket has not answered for {ANSWER_LIMIT_S:g} s")
        connection = self._connections.get(descriptor)
        if connection is not None:
            connection.room_bytes, connection.is_stranger = self._room_bytes, False
        return connection

    def close(self) -> None:
        """End the thread and its sockets; RunError should it not end in time."""
        os.write(self._ask_writing, _STOP)
        self._thread.join(CLOSE_LIMIT_S)
        if self._thread.is_alive():
            raise RunError(f"the thread that guards the server's socket has not ended within {CLOSE_LIMIT_S:g} s")
        self._router.disable_monitor()
        self._monitor.close()
        if self._zap is not None:
            self._zap.close()
        os.close(self._ask_reading)
        os.close(self._ask_writing)

    def _run(self) -> None:
        try:
            self._guard()
        except Exception as error:  # told to the server's thread, which ends the run: nobody would be let in any more
            self.failure = f"the thread that guards the server's socket failed: {type(error).__name__}: {error}"
            self._has_heard.set()

    def _guard(self) -> None:
        poller = zmq.Poller()
        poller.register(self._ask_reading, zmq.POLLIN)
        poller.register(self._monitor, zmq.POLLIN)
        if self._zap is not None:
            poller.register(self._zap, zmq.POLLIN)
        while True:
            ready = dict(poller.poll(int(_LOOK_EVERY_S * 1000)))
            asked = os.read(self._ask_reading, 1) if self._ask_reading in ready else None
            if asked == _STOP:
                return
            if self._monitor in ready or asked == _HEAR:
                self._hear()
            if asked == _HEAR:
                self._has_heard.set()
            if self._zap is not None and self._zap in ready:
                answer = decide(self._zap.recv_multipart(), self._accepted)
                self._zap.send_multipart(answer)
                if answer[2] != b"200":
                    self._count("refused a client whose key is not in the server's list")
            if time.monotonic() >= self._next_look_s:
                self._next_look_s = time.monotonic() + _LOOK_EVERY_S
                self._look()

    def _hear(self) -> None:
        """Take in which connections there are, and shut those that are too many."""
        stranger = self._limits.stranger_bytes
        with contextlib.suppress(zmq.Again):
            while True:
                event = parse_monitor_message(self._monitor.recv_multipart(zmq.NOBLOCK))
                if event["event"] == zmq.EVENT_ACCEPTED:
                    room_bytes = self._room_bytes if stranger is None else stranger
                    self._forget(event["value"])
                    self._connections[event["value"]] = Connection(room_bytes)
                else:
                    self._forget(event["value"])
        while len(self._connections) > self._limits.connections:
            self._make_room()

    def _forget(self, descriptor: int) -> None:
        connection = self._connections.pop(descriptor, None)
        if connection is not None:
            connection.is_closed = True

    def _make_room(self) -> None:
        """Shut the stranger that has been here longest, so that nobody keeps others out by only being connected; the
        newest connection where there is no stranger.
        """
        strangers = (descriptor for descriptor, known in self._connections.items() if known.is_stranger)
        descriptor = next(strangers, next(reversed(self._connections)))
        self._forget(descriptor)
        with borrowed(descriptor) as connection:
            if connection is not None:
                shut(connection)
        self._count(f"refused a connection: {self._limits.connections} are there already")

    def _look(self) -> None:
        """Shut down what has sent more than a queue of whole messages can hold, or doesn't read what it is sent."""
        now_s, limits = time.monotonic(), self._limits
        for descriptor, known in list(self._connections.items()):
            with borrowed(descriptor) as connection:
                found = None if connection is None else counted(connection)
                if connection is None or found is None:
                    continue
                received_bytes, acknowledged_bytes = found
                if received_bytes - known.read_bytes > known.room_bytes:
                    why = f"sent over {known.room_bytes:,} bytes without a whole message in time"
                elif known.is_stuck(acknowledged_bytes, self._unread_bytes, limits.unread_s, now_s):
                    why = f"left over {self._unread_bytes:,} bytes unread for {limits.unread_s:g} s"
                else:
                    continue
                shut(connection)
            self._count(f"cut off a connection that {why}")

    def _count(self, what: str) -> None:
        self._told[what] = number = self._told.get(what, 0) + 1
        if number in (1, 10, 100, 1000, 10_000, 100_000):
            self._tell(what + (f" ({number} so far)" if number > 1 else ""))


def counted(connection: socket.socket) -> tuple[int, int] | None:
    """Bytes of a TCP connection that this process has taken from the kernel, and that the other end has acknowledged.

    None for what isn't one (any more).
    """
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        (unread,) = struct.unpack("i", fcntl.ioctl(connection, termios.FIONREAD, bytes(4)))
    except OSError:
        return None
    if len(info) < _BYTES_ACKNOWLEDGED_AT + 16:
        return None
    acknowledged, received = struct.unpack_from("=QQ", info, _BYTES_ACKNOWLEDGED_AT)
    return int(received) - int(unread), int(acknowledged)


def shut(connection: socket.socket) -> None:
    """Shut a connection down; libzmq then finds it broken and closes it, and what was still to be sent is let go."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def borrowed(descriptor: int) -> Iterator[socket.socket | None]:
    """A second handle on a socket that libzmq owns and may close at any moment; None when there is none."""
    try:
        own = os.dup(descriptor)
    except OSError:
        yield None
        return
    try:
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=own)
    except OSError:  # something else has that number by now
        os.close(own)
        yield None
        return
    with connection:
        yield connection
