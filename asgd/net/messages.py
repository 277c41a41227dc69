"""The messages of the protocol and their strict encoding: MessagePack headers, one struct per message.

A message is a header (one of the structs below) and, for the three that carry a vector, a payload of raw little-endian
bytes that travels beside the header in frames of its own (transport.py). What is sent to the server is a request, what
the server sends is a reply; each direction has its decoder, so that a reply can't be smuggled in as a request.

Strict means: an unknown, missing, repeated or mistyped field, an unknown tag, trailing bytes, a bool in place of an
integer, an integer outside its range, a text or table beyond its bound, or a header above 64 KiB is refused with one
sentence. Nothing is ever unpickled.

Floating-point fields: durations and clocks are not negative, and at most 1e12 s. Losses and metrics may also be
infinite or NaN: a run that diverges is a fact to be recorded, not a breach of the protocol.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeVar, cast

import msgspec
from msgspec import Meta, Struct

from asgd.errors import ProtocolError

PROTOCOL_VERSION: Final = 3
MAX_HEADER_BYTES: Final = 64 * 1024
MAX_REASON_CHARS: Final = 4096
MAX_HELD_JOBS: Final = 1024
MAX_INT: Final = 2**63 - 1
MAX_SECONDS: Final = 1e12  # sums and products of durations stay finite, whoever sent them

T = TypeVar("T")
Count = Annotated[int, Meta(ge=0, le=MAX_INT)]
WorkerId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
WorkerOrAny = Annotated[int, Meta(ge=-1, le=2**31 - 1)]
JobOrNone = Annotated[int, Meta(ge=-1, le=MAX_INT)]
Name = Annotated[str, Meta(max_length=255)]
Reason = Annotated[str, Meta(max_length=MAX_REASON_CHARS)]
Jobs = Annotated[tuple[Count, ...], Meta(max_length=MAX_HELD_JOBS)]
Results = Annotated[dict[Name, float], Meta(max_length=64)]


def _check_duration(name: str, seconds: float) -> None:
    if not 0.0 <= seconds <= MAX_SECONDS:
        raise ValueError(f"{name} is {seconds}; allowed are seconds from 0 to {MAX_SECONDS:g}")


class Hello(Struct, frozen=True, tag="hello", forbid_unknown_fields=True):
    """The first message of a client: who it is and what it would compute. `worker` = -1 takes any free number.

    `jobs`: what a worker that was here before holds: jobs that it has not answered, and those whose answers it has no
    sign of having arrived, each once.
    """

    protocol: Count
    role: Literal["worker", "evaluator"]
    worker: WorkerOrAny
    layout: Name
    task: Name
    host: Name
    pid: Count
    jobs: Jobs

    def __post_init__(self) -> None:
        if len(set(self.jobs)) < len(self.jobs):
            raise ValueError("jobs names a job twice")
        if self.jobs and (self.role != "worker" or self.worker < 0):
            raise ValueError("jobs are for a worker with a number to name")


class Gradient(Struct, frozen=True, tag="gradient", forbid_unknown_fields=True):
    """A worker's answer to `Job`; the payload is the gradient (and the buffers) in the agreed layout.

    `queue_s`: how long the job lay at the worker before it was begun; `started_s`: when it was begun, by the server's
    clock as the worker estimates it.
    """

    job: Count
    version: Count
    loss: float
    samples: Count
    compute_s: float
    wait_s: float
    queue_s: float
    started_s: float

    def __post_init__(self) -> None:
        _check_duration("compute_s", self.compute_s)
        _check_duration("wait_s", self.wait_s)
        _check_duration("queue_s", self.queue_s)
        _check_duration("started_s", self.started_s)


class Ping(Struct, frozen=True, tag="ping", forbid_unknown_fields=True):
    """A sign of life; the server answers `Pong`."""


class Goodbye(Struct, frozen=True, tag="goodbye", forbid_unknown_fields=True):
    """A client leaves of its own will; its outstanding jobs are lost."""

    reason: Reason


class SnapshotRequest(Struct, frozen=True, tag="snapshot_request", forbid_unknown_fields=True):
    """An evaluator asks for the next version to evaluate."""


class Evaluated(Struct, frozen=True, tag="evaluated", forbid_unknown_fields=True):
    """What an evaluator measured at a version, and how long it took."""

    version: Count
    results: Results
    seconds: float

    def __post_init__(self) -> None:
        _check_duration("seconds", self.seconds)


class Welcome(Struct, frozen=True, tag="welcome", forbid_unknown_fields=True):
    """The handshake succeeded: the client's number, the bytes of every payload, the run's name and clock.

    `incarnation` counts the starts of the run's server, from 0. `sent_s` is the server's clock, which goes on before
    and after the run: when it sent this.
    """

    worker: WorkerOrAny
    payload_bytes: Count
    run: Name
    time_s: float
    sent_s: float
    incarnation: Count

    def __post_init__(self) -> None:
        _check_duration("time_s", self.time_s)
        _check_duration("sent_s", self.sent_s)


class Refused(Struct, frozen=True, tag="refused", forbid_unknown_fields=True):
    """The handshake failed, or a message was out of place; `may_retry` says whether a new `Hello` can help."""

    reason: Reason
    may_retry: bool


class Job(Struct, frozen=True, tag="job", forbid_unknown_fields=True):
    """Compute one gradient; the payload is the parameters (and buffers) of `version`; `sent_s` as in `Welcome`.

    `taken`: the last job whose answer the server has from this worker since its `Hello`, -1 for none; those that were
    sent before it have arrived too.
    """

    job: Count
    version: Count
    sent_s: float
    taken: JobOrNone

    def __post_init__(self) -> None:
        _check_duration("sent_s", self.sent_s)


class Cancel(Struct, frozen=True, tag="cancel", forbid_unknown_fields=True):
    """The job isn't wanted any more."""

    job: Count


class Pong(Struct, frozen=True, tag="pong", forbid_unknown_fields=True):
    """The server's answer to `Ping`; `taken` as in `Job`."""

    taken: JobOrNone


class Stop(Struct, frozen=True, tag="stop", forbid_unknown_fields=True):
    """The run is over: finish and leave."""

    reason: Reason


class Snapshot(Struct, frozen=True, tag="snapshot", forbid_unknown_fields=True):
    """A version to evaluate; the payload is its parameters and buffers."""

    version: Count


class NoSnapshot(Struct, frozen=True, tag="no_snapshot", forbid_unknown_fields=True):
    """Nothing to evaluate now, or (`finished`) nothing any more."""

    finished: bool


Request = Hello | Gradient | Ping | Goodbye | SnapshotRequest | Evaluated
Reply = Welcome | Refused | Job | Cancel | Pong | Stop | Snapshot | NoSnapshot
Message = Request | Reply
WITH_PAYLOAD: Final = (Gradient, Job, Snapshot)

_encoder = msgspec.msgpack.Encoder()
_request_decoder: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_reply_decoder: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)
_message_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> bytes:
    """The header's bytes of a message.

    Raises ProtocolError when the message itself breaks a limit (a negative job, a reason beyond 4,096 characters), so
    that a fault shows where it was made and not at the other end. Texts of unknown length go through `shorten`.

    >>> decode_reply(encode(Job(job=7, version=3, sent_s=0.5, taken=6)))
    Job(job=7, version=3, sent_s=0.5, taken=6)
    """
    try:
        header = _encoder.encode(message)
    except (TypeError, ValueError, OverflowError) as error:  # e.g. an integer beyond 64 bits
        raise ProtocolError(f"cannot encode {type(message).__name__}: {error}") from error
    _decode(_message_decoder, header, "own message")
    return header


def decode_request(header: bytes) -> Request:
    """The message that a client sent; ProtocolError for anything that isn't exactly one."""
    return _decode(_request_decoder, header, "request")


def decode_reply(header: bytes) -> Reply:
    """The message that the server sent; ProtocolError for anything that isn't exactly one."""
    return _decode(_reply_decoder, header, "reply")


def check_payload(message: Message, payload_bytes: int, agreed_bytes: int) -> None:
    """Refuse a payload where none belongs, or one that hasn't the agreed length.

    Arguments: the decoded message, the bytes that came with it, and the length agreed in `Welcome.payload_bytes`.
    Raises ProtocolError naming the message and both numbers.

    >>> check_payload(Ping(), payload_bytes=0, agreed_bytes=4096)
    """
    expected = agreed_bytes if isinstance(message, WITH_PAYLOAD) else 0
    if payload_bytes != expected:
        raise ProtocolError(
            f"{type(message).__name__} came with a payload of {payload_bytes} bytes; {expected} were agreed"
        )


def shorten(text: str, limit: int = MAX_REASON_CHARS) -> str:
    """The text itself, or its beginning and " ..." so that it has at most `limit` characters; always encodable."""
    text = text.encode("utf-8", "replace").decode("utf-8")  # lone surrogates (file names) have no UTF-8
    return text if len(text) <= limit else text[: limit - 4] + " ..."


def printable(text: str) -> str:
    """A text of somebody else, such that it can be shown: control characters and line ends become "?".

    >>> printable("a\\x1b[2Jb\\nc")
    'a?[2Jb?c'
    """
    return text if text.isprintable() else "".join(sign if sign.isprintable() else "?" for sign in text)


def _decode(decoder: msgspec.msgpack.Decoder[T], header: bytes, what: str) -> T:
    if len(header) > MAX_HEADER_BYTES:
        raise ProtocolError(f"{what} has a header of {len(header)} bytes; at most {MAX_HEADER_BYTES} are allowed")
    try:
        message = decoder.decode(header)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:  # ValueError: text that isn't UTF-8
        raise ProtocolError(f"malformed {what}: {error}") from error
    # Every field is required and no other is allowed, so a longer table can only name a field twice.
    if header[0] != 0x80 | (len(cast(Struct, message).__struct_fields__) + 1):
        raise ProtocolError(f"malformed {what}: a field of {type(message).__name__} is given twice")
    return message
