"""What every transport promises, whatever carries the bytes: zeromq.py between processes, inprocess.py within one.

A message is a header of at most MAX_HEADER_BYTES and a payload of any length up to the transport's limit. The payload
is cut into frames of FRAME_BYTES on the way; the receiver gets the frames and copies them where it wants them.

The promises, tested by one suite over all transports (tests/net/test_transports.py):
- a message arrives whole or not at all, and never twice; messages between one peer and the server keep their order;
- `send` copies: the caller may overwrite its buffer as soon as it returns. `send` never waits for the other side;
- `recv` returns within its time-out, and at once when a file descriptor of `wake` is readable.
What isn't promised: `send` returning is no receipt. A message may be lost when a connection or a process dies on its
way; the loss isn't silent for ever, because the protocol above answers every message that matters and jobs have leases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Protocol, Self

from asgd.errors import AsgdError, ProtocolError, RunError

FRAME_BYTES: Final = 1024 * 1024
DEFAULT_MAX_PAYLOAD_BYTES: Final = 16 * 1024**3
MAX_QUEUED_MESSAGES: Final = 32  # so many to one peer are always taken; a transport refuses at most twice as many
LINGER_S: Final = 2.0


class PeerGone(AsgdError):
    """The message can't be delivered: the peer is unknown, has vanished, or doesn't read."""


class KeyRefused(RunError):
    """The server and this client don't agree on keys: it never gets in, however often it tries."""


class BadMessage(ProtocolError):
    """A message that the transport refused (too large, or no header); `peer` sent it, and may be told so."""

    def __init__(self, peer: bytes, sentence: str) -> None:
        super().__init__(sentence)
        self.peer = peer


@dataclass(frozen=True, slots=True)
class Received:
    """One message as it arrived: the peer (b"" at a client), the header, and the payload's frames in order.

    `name`: of the key that the peer has proved to have, by the server's list; "" without keys, and at a client.

    The frames belong to the transport's memory and live as long as this object; read them, or copy them once into a
    buffer that is kept.

    >>> received = Received(b"", b"header", [memoryview(b"abc"), memoryview(b"de")])
    >>> buffer = bytearray(5)
    >>> received.copy_payload_into(memoryview(buffer))
    >>> bytes(buffer)
    b'abcde'
    """

    peer: bytes
    header: bytes
    payload: Sequence[memoryview]
    name: str = ""

    @property
    def payload_bytes(self) -> int:
        """The payload's length in bytes, over all frames."""
        return sum(frame.nbytes for frame in self.payload)

    def copy_payload_into(self, view: memoryview) -> None:
        """Copy the whole payload into a contiguous writable buffer; ProtocolError unless it has exactly its length."""
        if view.nbytes != self.payload_bytes:
            raise ProtocolError(f"a payload of {self.payload_bytes} bytes came where {view.nbytes} were expected")
        target, start = as_bytes(view), 0
        for frame in self.payload:
            end = start + frame.nbytes
            target[start:end] = frame
            start = end


class ServerTransport(Protocol):
    """The server's end: many peers, each known by the identity that its messages came with."""

    @property
    def address(self) -> str:
        """Where clients connect to (a port that the system chose is filled in)."""

    @property
    def bytes_in(self) -> int:
        """Header and payload bytes received so far."""

    @property
    def bytes_out(self) -> int:
        """Header and payload bytes accepted for sending so far."""

    def recv(self, timeout_s: float, wake: Sequence[int] = ()) -> Received | None:
        """The next message; None after `timeout_s` seconds, or at once while a descriptor of `wake` is readable.

        `wake` goes first: as long as one of its descriptors stays readable no message is returned, so the caller reads
        it empty or stops passing it. Raises BadMessage for a message that was refused.
        """

    def send(self, peer: bytes, header: bytes, payload: memoryview | None = None) -> None:
        """Send to one peer; copies before returning. Raises PeerGone when the peer can't be reached."""

    def admit(self, peer: bytes) -> None:
        """The peer that sent the last message is one of us: what limits strangers doesn't limit it any more."""

    def cut_off(self, peer: bytes) -> None:
        """Break the connection of the peer that sent the last message, if the transport has connections."""

    def close(self) -> None:
        """Send what is queued, for at most LINGER_S seconds, and close; closing twice is allowed."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class ClientTransport(Protocol):
    """A client's end: one peer, the server."""

    @property
    def num_broken(self) -> int:
        """How often a connection to the server has broken so far; it is made again by itself, with a new identity."""

    def recv(self, timeout_s: float) -> Received | None:
        """The next message, or None after `timeout_s` seconds. Raises BadMessage for a message that was refused."""

    def send(self, header: bytes, payload: memoryview | None = None) -> None:
        """Send to the server; copies before returning. Raises PeerGone when too much waits to be sent already."""

    def close(self) -> None:
        """Send what is queued, for at most LINGER_S seconds, and close; closing twice is allowed."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


def as_bytes(view: memoryview) -> memoryview:
    """The same memory as a flat view of bytes; ProtocolError when it isn't contiguous."""
    if view.format == "B" and view.ndim == 1 and view.contiguous:
        return view
    if not view.c_contiguous:
        raise ProtocolError("a payload must be contiguous memory; the given view has gaps")
    return view.cast("B") if view.nbytes else memoryview(b"")


def cut(payload: memoryview | None) -> list[memoryview]:
    """The payload in frames of at most FRAME_BYTES; no frame at all for an empty one."""
    if payload is None or not payload.nbytes:
        return []
    view = as_bytes(payload)
    return [view[start : start + FRAME_BYTES] for start in range(0, view.nbytes, FRAME_BYTES)]
