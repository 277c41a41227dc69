"""What both ends of the ZeroMQ transport have in common: a socket with its limits, whole messages sent and received."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

import zmq

from asgd.errors import ProtocolError
from asgd.net.memory import keep_freed_memory
from asgd.net.messages import MAX_HEADER_BYTES
from asgd.net.transport import FRAME_BYTES, LINGER_S, MAX_QUEUED_MESSAGES, BadMessage, Received, cut

# A host that vanishes without closing its connection is noticed after these times, by the kernel: neither a long
# message nor a long computation looks like silence to it. Not by libzmq's own heartbeats (ZMQ_HEARTBEAT_IVL): in libzmq
# 4.3.5 their timer aborts the process when it finds a connection broken whose messages have not all been read
# ("Assertion failed: !_io_error", https://github.com/zeromq/libzmq/pull/4852), so a peer could bring the server down.
_KEEPALIVE_S: Final = 5  # silence, and the time between questions
_KEEPALIVE_COUNT: Final = 5
_UNACKNOWLEDGED_MS: Final = 30_000
_RECONNECT_MS: Final = 50
_RECONNECT_MAX_MS: Final = 1_000
_HANDSHAKE_MS: Final = 10_000  # a connection that hasn't shaken hands by then is closed
MAX_FRAME_BYTES: Final = max(FRAME_BYTES, MAX_HEADER_BYTES)


class Endpoint:
    """A socket of its own context, counted bytes, sending and receiving whole messages."""

    def __init__(self, kind: int, max_payload_bytes: int) -> None:
        keep_freed_memory()
        self.bytes_in = 0
        self.bytes_out = 0
        self._max_payload_bytes = max_payload_bytes
        self._source = -1  # the descriptor that the last message came from
        self._names_peers = False  # by their keys, as decided at the door
        self._linger_ms = int(LINGER_S * 1000)
        self._context = zmq.Context()
        self._socket = self._context.socket(kind)
        self._pollers: dict[tuple[int, ...], zmq.Poller] = {}
        options = {
            zmq.LINGER: self._linger_ms,
            zmq.HANDSHAKE_IVL: _HANDSHAKE_MS,
            # Readers give room back half a queue at a time, so only half of these is sure to be free after all is read.
            zmq.SNDHWM: 2 * MAX_QUEUED_MESSAGES,
            zmq.RCVHWM: 2 * MAX_QUEUED_MESSAGES,
            zmq.MAXMSGSIZE: MAX_FRAME_BYTES,
            zmq.RECONNECT_IVL: _RECONNECT_MS,
            zmq.RECONNECT_IVL_MAX: _RECONNECT_MAX_MS,
        }
        for option, value in options.items():
            self._socket.setsockopt(option, value)

    def _prepare_tcp(self, host: str) -> None:
        self._socket.setsockopt(zmq.IPV6, int(host.startswith("[")))
        self._socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
        self._socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, _KEEPALIVE_S)
        self._socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, _KEEPALIVE_S)
        self._socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, _KEEPALIVE_COUNT)
        self._socket.setsockopt(zmq.TCP_MAXRT, _UNACKNOWLEDGED_MS)

    def _wait(self, timeout_s: float, wake: Sequence[int]) -> bool:
        """Whether a message can be read and none of `wake` is readable."""
        key = tuple(wake)
        poller = self._pollers.get(key)
        if poller is None:
            poller = zmq.Poller()
            poller.register(self._socket, zmq.POLLIN)
            for descriptor in key:
                poller.register(descriptor, zmq.POLLIN)
            if len(self._pollers) >= 64:
                self._pollers.clear()
            self._pollers[key] = poller
        ready = poller.poll(math.ceil(max(0.0, timeout_s) * 1000))
        return len(ready) == 1 and ready[0][0] is self._socket

    def _recv(self, timeout_s: float, wake: Sequence[int], with_peer: bool) -> Received | None:
        if not self._wait(timeout_s, wake):
            return None
        peer = self._socket.recv(zmq.NOBLOCK) if with_peer else b""
        more = bool(self._socket.getsockopt(zmq.RCVMORE)) if with_peer else True
        header, payload, payload_bytes, name = b"", [], 0, ""
        if more:
            first = self._socket.recv(zmq.NOBLOCK, copy=False)
            header, more = bytes(first.buffer[: MAX_HEADER_BYTES + 1]), first.more
            self._source = int(first.get(zmq.SRCFD)) if with_peer else -1
            name = str(first.get("User-Id")) if self._names_peers else ""
        while more:
            frame = self._socket.recv(zmq.NOBLOCK, copy=False)
            more = frame.more
            payload_bytes += len(frame)
            if payload_bytes <= self._max_payload_bytes:
                payload.append(frame.buffer)
            else:
                payload.clear()  # refused below; let each frame go as it is read
        self.bytes_in += len(header) + payload_bytes
        if len(header) > MAX_HEADER_BYTES:
            raise BadMessage(peer, f"a message had a header of more than {MAX_HEADER_BYTES} bytes")
        if payload_bytes > self._max_payload_bytes:
            raise BadMessage(
                peer, f"a message had a payload of {payload_bytes} bytes; at most {self._max_payload_bytes} are allowed"
            )
        return Received(peer, header, payload, name)

    def _send(self, prefix: list[bytes], header: bytes, payload: memoryview | None) -> None:
        if len(header) > MAX_HEADER_BYTES:
            raise ProtocolError(
                f"a header of {len(header)} bytes can't be sent; at most {MAX_HEADER_BYTES} are allowed"
            )
        frames = cut(payload)
        size = sum(frame.nbytes for frame in frames)
        if size > self._max_payload_bytes:
            raise ProtocolError(
                f"a payload of {size} bytes can't be sent; at most {self._max_payload_bytes} are allowed"
            )
        parts: list[bytes | memoryview] = [*prefix, header, *frames]
        try:
            self._socket.send_multipart(parts, flags=zmq.NOBLOCK, copy=True)
        except zmq.Again:
            # Only the first part can fail. libzmq looks for room given back once a millisecond at most; asking for
            # EVENTS makes it look.
            self._socket.getsockopt(zmq.EVENTS)
            self._socket.send_multipart(parts, flags=zmq.NOBLOCK, copy=True)
        self.bytes_out += len(header) + size

    def close(self) -> None:
        """Send what is queued, for at most LINGER_S seconds, and close; closing twice is allowed."""
        if not self._socket.closed:
            self._pollers.clear()
            self._socket.close(linger=self._linger_ms)
            self._context.term()  # returns when the queues are empty or the linger time is over

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
