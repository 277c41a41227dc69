"""Who may come in, how many, and how much each may leave unread: what guards a server's socket beside its own loop.

ZAP (https://rfc.zeromq.org/spec/27/): before libzmq lets a client in whose handshake was sound, it asks at
inproc://zeromq.zap.01 of the same context whether its key is welcome. `decide` is that policy, a pure function;
`Door` is the thread that runs it, as in pyzmq's zmq.auth.

libzmq bounds the size of a frame (ZMQ_MAXMSGSIZE) and the number of whole messages in a queue (ZMQ_RCVHWM), but not the
number of frames of one message, nor the number of connections. The same thread bounds these: it hears of each
connection through libzmq's monitor, asks the kernel how many bytes it has delivered (TCP_INFO), knows how many of
them the server has read in whole messages, and shuts down a connection that holds too many, or that is one too many.
Measured: with room for 256 KiB, a message of empty frames without an end (libzmq takes 64 bytes for the 2 that each has
on the wire) was cut off after 0.07 s, and the process had grown by 23 MB. The kernel doesn't count for ipc, whose
peers are processes of this machine with access to the file.
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
_LOOK_EVERY_S: Final = 0.05
_BYTES_RECEIVED_AT: Final = 128  # tcpi_bytes_received in struct tcp_info, since Linux 4.1


@dataclass(frozen=True)
class Limits:
    """What a server lets its peers do, whoever they are.

    connections: at once; of more, those that were not admitted yet are closed, the oldest first; messages: whole ones
    of a connection that are kept unread before it has to wait; slack_bytes: what a connection may have sent beyond
    those; stranger_bytes: what one may have sent unread that was not admitted yet (None: as much as any other).
    """

    connections: int = 1024
    messages: int = 2 * MAX_QUEUED_MESSAGES
    slack_bytes: int = 1024 * 1024
    stranger_bytes: int | None = None


@dataclass
class _Connection:
    room_bytes: int  # that it may have sent and the server has not read
    read_bytes: int = 0
    is_stranger: bool = True


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
        self._connections: dict[int, _Connection] = {}  # by descriptor
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
        self._stop_reading, self._stop_writing = os.pipe()
        self._thread = threading.Thread(target=self._run, name="door", daemon=True)
        self._thread.start()

    def has_read(self, descriptor: int, count: int) -> None:
        """The server has taken a whole message of `count` bytes from a connection."""
        connection = self._connections.get(descriptor)
        if connection is not None:
            connection.read_bytes += count

    def admit(self, descriptor: int) -> None:
        """A connection is no stranger any more."""
        connection = self._connections.get(descriptor)
        if connection is not None:
            connection.room_bytes, connection.is_stranger = self._room_bytes, False

    def close(self) -> None:
        """End the thread and its sockets; RunError should it not end in time."""
        os.write(self._stop_writing, b"x")
        self._thread.join(CLOSE_LIMIT_S)
        if self._thread.is_alive():
            raise RunError(f"the thread that guards the server's socket has not ended within {CLOSE_LIMIT_S:g} s")
        self._router.disable_monitor()
        self._monitor.close()
        if self._zap is not None:
            self._zap.close()
        os.close(self._stop_reading)
        os.close(self._stop_writing)

    def _run(self) -> None:
        try:
            self._guard()
        except Exception as error:  # told to the server's thread, which ends the run: nobody would be let in any more
            self.failure = f"the thread that guards the server's socket failed: {type(error).__name__}: {error}"

    def _guard(self) -> None:
        poller = zmq.Poller()
        poller.register(self._stop_reading, zmq.POLLIN)
        poller.register(self._monitor, zmq.POLLIN)
        if self._zap is not None:
            poller.register(self._zap, zmq.POLLIN)
        while True:
            ready = dict(poller.poll(int(_LOOK_EVERY_S * 1000)))
            if self._stop_reading in ready:
                return
            if self._monitor in ready:
                self._hear()
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
                    self._connections[event["value"]] = _Connection(room_bytes)
                else:
                    self._connections.pop(event["value"], None)
        while len(self._connections) > self._limits.connections:
            self._make_room()

    def _make_room(self) -> None:
        """Shut the stranger that has been here longest, so that nobody keeps others out by only being connected; the
        newest connection where there is no stranger.
        """
        strangers = (descriptor for descriptor, known in self._connections.items() if known.is_stranger)
        descriptor = next(strangers, next(reversed(self._connections)))
        del self._connections[descriptor]
        with borrowed(descriptor) as connection:
            if connection is not None:
                shut(connection)
        self._count(f"refused a connection: {self._limits.connections} are there already")

    def _look(self) -> None:
        """Shut down what has sent more than a queue of whole messages can hold."""
        for descriptor, known in list(self._connections.items()):
            with borrowed(descriptor) as connection:
                received = None if connection is None else received_bytes(connection)
                if connection is None or received is None or received - known.read_bytes <= known.room_bytes:
                    continue
                shut(connection)
            self._count(
                f"cut off a connection that sent over {known.room_bytes:,} bytes without a whole message in time"
            )

    def _count(self, what: str) -> None:
        self._told[what] = number = self._told.get(what, 0) + 1
        if number in (1, 10, 100, 1000, 10_000, 100_000):
            self._tell(what + (f" ({number} so far)" if number > 1 else ""))


def received_bytes(connection: socket.socket) -> int | None:
    """Bytes of a TCP connection that this process has taken from the kernel; None for what isn't one (any more)."""
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        (unread,) = struct.unpack("i", fcntl.ioctl(connection, termios.FIONREAD, bytes(4)))
    except OSError:
        return None
    if len(info) < _BYTES_RECEIVED_AT + 8:
        return None
    return int(struct.unpack_from("=Q", info, _BYTES_RECEIVED_AT)[0]) - int(unread)


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
