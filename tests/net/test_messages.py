"""Messages: every one survives its encoding, and nothing else is ever taken for one."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgd.errors import ProtocolError
from asgd.net import messages
from asgd.net.messages import (
    MAX_HEADER_BYTES,
    MAX_HELD_JOBS,
    MAX_INT,
    MAX_REASON_CHARS,
    Cancel,
    Evaluated,
    Goodbye,
    Gradient,
    Hello,
    Job,
    NoSnapshot,
    Ping,
    Pong,
    Refused,
    Snapshot,
    SnapshotRequest,
    Stop,
    Welcome,
    check_payload,
    decode_reply,
    decode_request,
    encode,
    shorten,
)

counts = st.integers(0, MAX_INT)
workers = st.integers(-1, 2**31 - 1)
durations = st.floats(0.0, 1e12)
any_float = st.floats()
names = st.text(st.characters(codec="utf-8"), max_size=255)
reasons = st.text(st.characters(codec="utf-8"), max_size=300)

jobs_or_none = st.integers(-1, MAX_INT)
held = st.lists(counts, unique=True, max_size=MAX_HELD_JOBS).map(tuple)

REQUESTS: dict[type, st.SearchStrategy[Any]] = {
    Hello: st.builds(
        Hello, counts, st.sampled_from(["worker", "evaluator"]), workers, names, names, names, counts, st.just(())
    )
    | st.builds(Hello, counts, st.just("worker"), st.integers(0, 2**31 - 1), names, names, names, counts, held),
    Gradient: st.builds(Gradient, counts, counts, any_float, counts, durations, durations, durations, durations),
    Ping: st.builds(Ping),
    Goodbye: st.builds(Goodbye, reasons),
    SnapshotRequest: st.builds(SnapshotRequest),
    Evaluated: st.builds(Evaluated, counts, st.dictionaries(names, any_float, max_size=64), durations),
}
REPLIES: dict[type, st.SearchStrategy[Any]] = {
    Welcome: st.builds(Welcome, workers, counts, names, durations, durations, counts),
    Refused: st.builds(Refused, reasons, st.booleans()),
    Job: st.builds(Job, counts, counts, durations, jobs_or_none),
    Cancel: st.builds(Cancel, counts),
    Pong: st.builds(Pong, jobs_or_none),
    Stop: st.builds(Stop, reasons),
    Snapshot: st.builds(Snapshot, counts),
    NoSnapshot: st.builds(NoSnapshot, st.booleans()),
}
requests, replies = st.one_of(*REQUESTS.values()), st.one_of(*REPLIES.values())
DECODERS = (decode_request, decode_reply)


def same(first: Any, second: Any) -> bool:
    """Equal, with NaN equal to NaN; and of the same types (True is not 1)."""
    return type(first) is type(second) and repr(msgspec.structs.asdict(first)) == repr(msgspec.structs.asdict(second))


def refused(decode, header: bytes) -> bool:
    """Whether the bytes were refused with ProtocolError and a sentence; any other error is the test's failure."""
    try:
        decode(header)
    except ProtocolError as error:
        return bool(str(error))
    return False


def fields(message: Any, **changes: Any) -> bytes:
    """The header of a message with some fields changed or added, as another encoder would write it."""
    return msgspec.msgpack.encode(msgspec.to_builtins(message) | changes)


GRADIENT = Gradient(job=7, version=5, loss=0.25, samples=64, compute_s=0.5, wait_s=0.0, queue_s=0.25, started_s=2.5)


def test_the_strategies_cover_every_message():
    assert set(REQUESTS) == set(messages.Request.__args__)
    assert set(REPLIES) == set(messages.Reply.__args__)


@given(requests)
def test_every_request_survives_its_encoding(message):
    assert same(decode_request(encode(message)), message)
    assert refused(decode_reply, encode(message))


@given(replies)
def test_every_reply_survives_its_encoding(message):
    assert same(decode_reply(encode(message)), message)
    assert refused(decode_request, encode(message))


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data):
    for decode in DECODERS:
        assert refused(decode, data)


@given(st.one_of(requests, replies), st.data())
def test_every_truncation_and_every_extension_is_refused(message, data):
    header = encode(message)
    cut = data.draw(st.integers(0, len(header) - 1))
    extra = data.draw(st.binary(min_size=1, max_size=20))
    for decode in DECODERS:
        assert refused(decode, header[:cut])
        assert refused(decode, header + extra)


@given(st.one_of(requests, replies), st.data())
def test_mutated_messages_are_refused_or_are_messages_within_all_limits(message, data):
    header = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        header[data.draw(st.integers(0, len(header) - 1))] = data.draw(st.integers(0, 255))
    for decode in DECODERS:
        try:
            found = decode(bytes(header))
        except ProtocolError:
            continue
        assert same(decode(encode(found)), found)


json_like = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.one_of(requests, replies), st.data())
def test_a_field_of_another_type_is_refused(message, data):
    names_of_fields = message.__struct_fields__
    if not names_of_fields:
        return
    name = data.draw(st.sampled_from(names_of_fields))
    value = data.draw(json_like)
    old = getattr(message, name)
    kinds = {float: (float, int), int: (int,), str: (str,), bool: (bool,), dict: (dict,), tuple: (list,)}[type(old)]
    header = fields(message, **{name: value})
    if type(value) not in kinds:
        assert all(refused(decode, header) for decode in DECODERS)


@pytest.mark.parametrize(
    "change",
    [
        {"job": True},
        {"job": -1},
        {"job": 2**63},
        {"job": 2**64 - 1},
        {"job": 7.0},
        {"job": "7"},
        {"job": None},
        {"loss": True},
        {"loss": "0.25"},
        {"loss": None},
        {"compute_s": -0.001},
        {"compute_s": math.nan},
        {"compute_s": 1.7e308},
        {"wait_s": math.inf},
        {"queue_s": -1e-9},
        {"queue_s": math.inf},
        {"started_s": -1.0},
        {"started_s": math.nan},
        {"started_s": None},
        {"surprise": 1},
        {"type": "gradients"},
        {"type": 3},
    ],
    ids=str,
)
def test_a_gradient_with_one_wrong_field_is_refused(change):
    assert decode_request(fields(GRADIENT)) == GRADIENT
    assert refused(decode_request, fields(GRADIENT, **change))


@pytest.mark.parametrize("message", [Job(1, 0, 2.5, -1), Welcome(0, 4, "run", 1.5, 2.5, 0)], ids=["job", "welcome"])
@pytest.mark.parametrize("wrong", [-0.5, math.nan, math.inf, None, "2.5", True])
def test_a_stamp_that_is_no_time_is_refused(message, wrong):
    assert decode_reply(fields(message)) == message
    assert refused(decode_reply, fields(message, sent_s=wrong))


def test_a_diverged_loss_is_no_breach_of_the_protocol():
    for loss in (math.nan, math.inf, -math.inf):
        found = decode_request(encode(msgspec.structs.replace(GRADIENT, loss=loss)))
        assert isinstance(found, Gradient) and repr(found.loss) == repr(loss)


def test_a_missing_field_is_refused_by_name():
    for name in GRADIENT.__struct_fields__:
        rest = {key: value for key, value in msgspec.to_builtins(GRADIENT).items() if key != name}
        with pytest.raises(ProtocolError, match=name):
            decode_request(msgspec.msgpack.encode(rest))


def test_a_repeated_field_is_refused():
    header = b"\x83\xa4type\xa7goodbye\xa6reason\xa1a\xa6reason\xa1b"
    with pytest.raises(ProtocolError, match="given twice"):
        decode_request(header)
    with pytest.raises(ProtocolError, match="given twice"):
        decode_request(b"\x82\xa4type\xa4ping\xa4type\xa4ping")


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\xc0",
        b"\x81\xa4type\xa4\xff\xff\xff\xff",
        b"\x82\xa4type\xa7goodbye\xa6reason\xa2\xff\xfe",
        b"\x82\xa1a" + b"\x91" * 60_000 + b"\x01\xa4type\xa4ping",
        b"\xdf\xff\xff\xff\xff",
        b"\x82\xa4type\xa7goodbye\xa6reason\xdb\xff\xff\xff\xff",
    ],
    ids=["empty", "nil", "tag not utf-8", "text not utf-8", "deeply nested", "huge table", "huge text"],
)
def test_hostile_headers_are_refused(header):
    assert all(refused(decode, header) for decode in DECODERS)


def test_a_header_beyond_the_limit_is_refused_before_it_is_read():
    header = fields(Goodbye("x" * MAX_HEADER_BYTES))
    with pytest.raises(ProtocolError, match=f"{len(header)} bytes; at most {MAX_HEADER_BYTES}"):
        decode_request(header)


@pytest.mark.parametrize(
    "message",
    [
        Job(-1, 0, 0.0, -1),
        Job(True, 0, 0.0, -1),
        Job(2**63, 0, 0.0, -1),
        Job(2**70, 0, 0.0, -1),
        Stop("x" * (MAX_REASON_CHARS + 1)),
        Stop("\ud800"),
        Welcome(-2, 0, "", 0.0, 0.0, 0),
        Hello(1, "worker", 0, "", "", "", 1, (5, -1)),
        Job(1, 0, 0.0, -2),
        Pong(-2),
        Welcome(0, 0, "", 0.0, 0.0, -1),
        Hello(1, "boss", 0, "", "", "", 1, ()),  # type: ignore[arg-type]
        Evaluated(1, {str(number): 0.0 for number in range(65)}, 1.0),
    ],
    ids=lambda message: repr(message)[:40],
)
def test_a_message_that_would_be_refused_is_not_encoded(message):
    with pytest.raises(ProtocolError):
        encode(message)


def test_a_full_table_of_long_names_is_within_the_header_limit():
    message = Evaluated(1, {chr(0x10000 + number) * 255: 0.0 for number in range(60)}, 1.0)
    assert same(decode_request(encode(message)), message)


@given(st.text(max_size=50), st.integers(4, 40))
def test_shortened_texts_can_be_encoded(text, limit):
    short = shorten(text, limit)
    assert len(short) <= limit
    encode(Stop(short))
    if len(text) <= limit and text.isprintable() and text.isascii():
        assert short == text
    encode(Refused(shorten(text * 1000), may_retry=False))


def test_payloads_come_with_three_messages_only_and_in_the_agreed_length():
    for message in (GRADIENT, Job(1, 1, 0.0, -1), Snapshot(1)):
        check_payload(message, 4096, 4096)
        with pytest.raises(ProtocolError, match=f"{type(message).__name__} .* 4092 bytes; 4096"):
            check_payload(message, 4092, 4096)
        with pytest.raises(ProtocolError):
            check_payload(message, 0, 4096)
    check_payload(Ping(), 0, 4096)
    with pytest.raises(ProtocolError, match=r"Cancel .* 4096 bytes; 0"):
        check_payload(Cancel(1), 4096, 4096)


@pytest.mark.parametrize(
    ("role", "worker", "jobs", "sentence"),
    [
        ("worker", 0, [4, 4], "jobs names a job twice"),
        ("worker", -1, [4], "jobs are for a worker with a number to name"),
        ("evaluator", -1, [4], "jobs are for a worker with a number to name"),
        ("worker", 0, list(range(MAX_HELD_JOBS + 1)), "length <= 1024"),
        ("worker", 0, [1.5], "Expected `int`"),
        ("worker", 0, [True], "Expected `int`"),
        ("worker", 0, None, "Expected `array`"),
    ],
    ids=["twice", "no number", "evaluator", "too many", "float", "bool", "none"],
)
def test_what_a_hello_may_not_hold(role, worker, jobs, sentence):
    plain = {"type": "hello", "protocol": 3, "role": role, "worker": worker, "layout": "l", "task": "t"}
    plain |= {"host": "h", "pid": 1, "jobs": jobs}
    with pytest.raises(ProtocolError, match=sentence):
        decode_request(msgspec.msgpack.encode(plain))
    assert decode_request(msgspec.msgpack.encode(plain | {"role": "worker", "worker": 0, "jobs": [1, 2]})).jobs == (
        1,
        2,
    )
