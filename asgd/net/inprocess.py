"""Messages within one process: the same promises as zeromq.py over plain queues, for tests and small experiments.

What can be lost, doubled or reordered, and why not here: nothing. A message is in exactly one queue; a queue ends with
its owner, and sending to an owner that has closed raises PeerGone. Ends may live in different threads; one end is used
by one thread at a time.
"""

from __future__ import annotations

import itertools
import math
import os
import select
import threading
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from asgd.errors import ProtocolError, RunError
from asgd.net.messages import MAX_HEADER_BYTES
from asgd.net.transport import DEFAULT_MAX_PAYLOAD_BYTES, MAX_QUEUED_MESSAGES, BadMessage, PeerGone, Received, cut


class InProcessHub:
    """The meeting point of one server and its clients.

    >>> hub = InProcessHub()
    >>> with hub.server() as server, hub.client() as client:
    ...     client.send(b"hello")
    ...     server.recv(timeout_s=1.0).header
    b'hello'
    """

    def __init__(self, *, max_payload_bytes: int = DEFAULT_MAX_PAYLOAD_BYTES) -> None:
        self.max_payload_bytes = max_payload_bytes
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._waiting: dict[bytes, list[Received]] = {}  # sent before there was a server
        self._clients: dict[bytes, _Queue] = {}
        self._server: _Queue | None = None

    def server(self) -> InProcessServer:
        """The server's end; RunError while there is another."""
        with self._lock:
            if self._server is not None:
                raise RunError("cannot listen at this in-process hub: it has a server already")
            self._server = _Queue()
            for messages in self._waiting.values():
                for message in messages:
                    self._server.put(message)
            self._waiting.clear()
            return InProcessServer(self, self._server)

    def client(self, *, max_payload_bytes: int | None = None) -> InProcessClient:
        """A new client's end; it may come before the server. Its own limit on payloads is the hub's by default."""
        limit = self.max_payload_bytes if max_payload_bytes is None else max_payload_bytes
        with self._lock:
            peer, queue = next(self._numbers).to_bytes(5, "big"), _Queue()
            self._clients[peer] = queue
            return InProcessClient(self, peer, queue, limit)

    def _to_server(self, message: Received) -> None:
        with self._lock:
            waiting = self._waiting.setdefault(message.peer, []) if self._server is None else None
            pending = self._server.count(message.peer) if self._server is not None else len(waiting or ())
            if pending > MAX_QUEUED_MESSAGES:
                raise PeerGone(
                    f"the server can't be reached or doesn't read: more than {MAX_QUEUED_MESSAGES} messages wait"
                )
            if self._server is not None:
                self._server.put(message)
            elif waiting is not None:
                waiting.append(message)

    def _to_client(self, peer: bytes, message: Received) -> None:
        with self._lock:
            queue = self._clients.get(peer)
            if queue is None:
                raise PeerGone(f"peer {peer.hex()} isn't connected")
            if queue.count(b"") > MAX_QUEUED_MESSAGES:
                raise PeerGone(f"peer {peer.hex()} has left more than {MAX_QUEUED_MESSAGES} messages unread")
            queue.put(message)

    def _drop_client(self, peer: bytes) -> None:
        with self._lock:
            self._clients.pop(peer, None)

    def _drop_server(self) -> None:
        with self._lock:
            self._server = None


class _Queue:
    """Messages, and a pipe that is readable exactly while there are any, so that select can wait for them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._messages: deque[Received] = deque()
        self._read_end, self._write_end = os.pipe()
        self.closed = False

    def count(self, peer: bytes) -> int:
        with self._lock:
            return sum(message.peer == peer for message in self._messages)

    def put(self, message: Received) -> None:
        with self._lock:
            if not self.closed:
                self._messages.append(message)
                if len(self._messages) == 1:
                    os.write(self._write_end, b"x")

    def get(self, timeout_s: float, wake: Sequence[int]) -> Received | None:
        poll = select.poll()
        for descriptor in (self._read_end, *wake):
            poll.register(descriptor, select.POLLIN)
        ready = [descriptor for descriptor, _ in poll.poll(math.ceil(max(0.0, timeout_s) * 1000))]
        if ready != [self._read_end]:
            return None
        with self._lock:
            message = self._messages.popleft()
            if not self._messages:
                os.read(self._read_end, 1)
            return message

    def close(self) -> None:
        with self._lock:
            if not self.closed:
                self.closed = True
                self._messages.clear()
                os.close(self._read_end)
                os.close(self._write_end)


class _Endpoint:
    def __init__(self, hub: InProcessHub, queue: _Queue, max_payload_bytes: int) -> None:
        self.bytes_in = 0
        self.bytes_out = 0
        self._hub = hub
        self._queue = queue
        self._max_payload_bytes = max_payload_bytes

    def _recv(self, timeout_s: float, wake: Sequence[int]) -> Received | None:
        message = self._queue.get(timeout_s, wake)
        if message is not None:
            size = message.payload_bytes
            self.bytes_in += len(message.header) + size
            if size > self._max_payload_bytes:
                raise BadMessage(
                    message.peer,
                    f"a message had a payload of {size} bytes; at most {self._max_payload_bytes} are allowed",
                )
        return message

    def _pack(self, peer: bytes, header: bytes, payload: memoryview | None) -> Received:
        if len(header) > MAX_HEADER_BYTES:
            raise ProtocolError(
                f"a header of {len(header)} bytes can't be sent; at most {MAX_HEADER_BYTES} are allowed"
            )
        message = Received(peer, bytes(header), [memoryview(bytearray(frame)) for frame in cut(payload)])
        if message.payload_bytes > self._max_payload_bytes:
            raise ProtocolError(
                f"a payload of {message.payload_bytes} bytes can't be sent;"
                f" at most {self._max_payload_bytes} are allowed"
            )
        return message

    def close(self) -> None:
        """Leave the hub; closing twice is allowed."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class InProcessServer(_Endpoint):
    """The server's end; see ServerTransport."""

    address = "inprocess"

    def __init__(self, hub: InProcessHub, queue: _Queue) -> None:
        super().__init__(hub, queue, hub.max_payload_bytes)

    def recv(self, timeout_s: float, wake: Sequence[int] = ()) -> Received | None:
        """See ServerTransport.recv."""
        return self._recv(timeout_s, wake)

    def send(self, peer: bytes, header: bytes, payload: memoryview | None = None) -> None:
        """See ServerTransport.send."""
        message = self._pack(b"", header, payload)
        self._hub._to_client(peer, message)
        self.bytes_out += len(header) + message.payload_bytes

    def admit(self, peer: bytes) -> None:
        """See ServerTransport.admit: nobody is a stranger here."""

    def cut_off(self, peer: bytes) -> None:
        """See ServerTransport.cut_off: its messages find nobody from now on."""
        self._hub._drop_client(peer)

    def close(self) -> None:
        """Leave the hub; clients keep what was sent."""
        if not self._queue.closed:
            self._hub._drop_server()
            self._queue.close()


class InProcessClient(_Endpoint):
    """A client's end; see ClientTransport. Within a process no connection breaks."""

    num_broken = 0

    def __init__(self, hub: InProcessHub, peer: bytes, queue: _Queue, max_payload_bytes: int) -> None:
        super().__init__(hub, queue, max_payload_bytes)
        self._peer = peer

    def recv(self, timeout_s: float) -> Received | None:
        """See ClientTransport.recv."""
        return self._recv(timeout_s, ())

    def send(self, header: bytes, payload: memoryview | None = None) -> None:
        """See ClientTransport.send."""
        message = self._pack(self._peer, header, payload)
        self._hub._to_server(message)
        self.bytes_out += len(header) + message.payload_bytes

    def close(self) -> None:
        """Leave the hub; what was sent still arrives."""
        if not self._queue.closed:
            self._hub._drop_client(self._peer)
            self._queue.close()
