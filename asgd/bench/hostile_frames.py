"""What a hostile client sends: an endless, seeded stream of messages that a server must refuse, of every kind.

Run as a process of its own: `python -m asgd.bench.hostile_frames ADDRESS ...` sends so many frames and prints, as one
JSON object, what it has sent. It is no worker: nothing of what it sends is an answer that the server waits for.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import signal
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final, Literal

from asgd.net.messages import (
    MAX_HEADER_BYTES,
    PROTOCOL_VERSION,
    Cancel,
    Evaluated,
    Goodbye,
    Gradient,
    Hello,
    Job,
    Ping,
    Reply,
    Snapshot,
    SnapshotRequest,
    Stop,
    Welcome,
    encode,
)
from asgd.net.transport import PeerGone
from asgd.net.zeromq import ZmqClient

# ZMTP 3.0 by hand (https://rfc.zeromq.org/spec/23/): the greeting of a client without keys, and its READY command.
GREETING: Final = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31)
_READY: Final = b"\x05READY" + b"\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"
READY: Final = b"\x04" + bytes([len(_READY)]) + _READY
CLIENTS: Final = 8
NUM_WORKERS: Final = 4  # whose numbers are asked for

REPLIES: Final[list[Reply]] = [
    Welcome(0, 4096, "run", 0.0, 0.0, 0),
    Job(3, 1, 0.0, -1),
    Cancel(2),
    Stop("stop!"),
    Snapshot(7),
]

Frame = tuple[bytes, bytes]  # header and payload


def hello(
    chance: random.Random, layout: str, task: str, role: Literal["worker", "evaluator"] = "worker", worker: int = -1
) -> bytes:
    host, pid = f"host{chance.randrange(100)}", chance.randrange(1, 2**22)
    return encode(Hello(PROTOCOL_VERSION, role, worker, layout, task, host, pid, ()))


def garbage(chance: random.Random, layout: str, task: str, size: int) -> Iterator[Frame]:
    """Bytes that are nothing, and headers as long as any may be."""
    while True:
        yield chance.randbytes(chance.choice((0, 1, 2, 30, 300))), chance.randbytes(chance.choice((0, 0, 64)))
        if chance.random() < 0.001:
            yield bytes(MAX_HEADER_BYTES), b""


def mutated(chance: random.Random, layout: str, task: str, size: int) -> Iterator[Frame]:
    """Messages of the protocol, cut short, prolonged, or with a few bits turned over."""
    originals = [*requests(chance, layout, task), hello(chance, "x", "y")]
    while True:
        header = bytearray(chance.choice(originals))
        for _ in range(chance.randrange(1, 4)):
            kind = chance.randrange(3)
            if kind == 0:
                header[chance.randrange(len(header))] ^= 1 << chance.randrange(8)
            elif kind == 1 and len(header) > 2:
                del header[chance.randrange(1, len(header)) :]
            else:
                header += chance.randbytes(chance.randrange(1, 9))
        if bytes(header) not in originals:
            yield bytes(header), b""


def wrong_sizes(chance: random.Random, layout: str, task: str, size: int) -> Iterator[Frame]:
    """Payloads that are shorter or longer than agreed, or where none belongs; some beyond every limit."""
    while True:
        wrong = chance.choice((1, size - 4, size + 4, 2 * size))
        yield encode(Gradient(chance.randrange(2**40), 0, 0.0, 4, 0.0, 0.0, 0.0, 0.0)), bytes(wrong)
        yield encode(Ping()), bytes(16)
        if chance.random() < 0.001:
            yield encode(Ping()), bytes(64 * size)


def foreign(chance: random.Random, layout: str, task: str, size: int) -> Iterator[Frame]:
    """What only a server says, and hellos of other protocols, models and runs."""
    while True:
        yield encode(chance.choice(REPLIES)), b""
        yield hello(chance, "another layout", task), b""
        yield hello(chance, layout, "another task", worker=chance.randrange(NUM_WORKERS)), b""
        yield encode(Hello(PROTOCOL_VERSION + 1, "worker", -1, layout, task, "\x1b[2J\n", 1, ())), b""


def strangers(chance: random.Random, layout: str, task: str, size: int) -> Iterator[Frame]:
    """Sound messages of somebody who never said hello: answers to every job that there may be."""
    while True:
        for header in requests(chance, layout, task):
            yield header, bytes(size) if b"gradient" in header else b""


def doubles(chance: random.Random, layout: str, task: str, size: int) -> Iterator[Frame]:
    """A worker of the same run that wants a number which another has, again and again."""
    while True:
        yield hello(chance, layout, task, worker=chance.randrange(NUM_WORKERS)), b""


def insiders(chance: random.Random, layout: str, task: str, size: int) -> Iterator[Frame]:
    """An evaluator that was let in, and then says everything out of turn, over and over."""
    while True:
        yield hello(chance, layout, task, "evaluator"), b""
        for _ in range(40):
            yield encode(Evaluated(chance.randrange(1000), {"loss": 0.0}, 0.0)), b""
            yield (
                encode(Gradient(chance.randrange(2000), chance.randrange(500), 0.0, 4, 0.0, 0.0, 0.0, 0.0)),
                bytes(size),
            )
            yield encode(SnapshotRequest()), b""
            yield encode(Ping()), b""
        if chance.random() < 0.1:
            yield encode(Goodbye("\x1b]0;owned\x07")), b""


def requests(chance: random.Random, layout: str, task: str) -> list[bytes]:
    job, version = chance.randrange(100_000), chance.randrange(5_000)
    return [
        encode(Gradient(job, version, 0.0, 4, 0.0, 0.0, 0.0, 0.0)),
        encode(Ping()),
        encode(SnapshotRequest()),
        encode(Evaluated(version, {"loss": 0.0}, 0.0)),
        encode(Goodbye("bye")),
    ]


KINDS: Final[dict[str, Callable[[random.Random, str, str, int], Iterator[Frame]]]] = {
    "garbage": garbage,
    "mutated": mutated,
    "wrong sizes": wrong_sizes,
    "foreign": foreign,
    "strangers": strangers,
    "doubles": doubles,
    "insiders": insiders,
}


def raw(chance: random.Random, address: str) -> str:
    """One connection below the messages; returns what it did. Nothing is waited for: the server must not care."""
    host, port = address.removeprefix("tcp://").rsplit(":", 1)
    kind = chance.choice(("other program", "half a greeting", "endless message", "frame too long", "says nothing"))
    with socket.create_connection((host, int(port)), timeout=2.0) as connection:
        try:
            if kind == "other program":
                connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 4)
            elif kind == "half a greeting":
                connection.sendall(GREETING[: chance.randrange(1, 64)])
            elif kind == "endless message":
                connection.sendall(GREETING + READY)
                for _ in range(40):
                    connection.sendall(b"\x01\x00" * 16_384)
            elif kind == "frame too long":
                connection.sendall(GREETING + READY + b"\x02" + struct.pack(">Q", 2**62) + bytes(65_536))
        except OSError:
            pass  # cut off in the middle of it
    return kind


def attack(
    address: str, frames: int, seed: int, layout: str, task: str, size: int, stopped: Callable[[], bool]
) -> dict[str, object]:
    """Send `frames` hostile messages, the kinds in turn, over clients that connect again whenever they are cut off."""
    chance, sent, began_s = random.Random(seed), Counter[str](), time.monotonic()
    clients = [ZmqClient(address, max_payload_bytes=256 * size) for _ in range(CLIENTS)]
    streams = {kind: make(chance, layout, task, size) for kind, make in KINDS.items()}
    num_full = 0
    try:
        while (total := sum(sent.values())) < frames and not stopped():
            for number, (kind, stream) in enumerate(streams.items()):
                client = clients[number % CLIENTS]
                for _ in range(chance.randrange(1, 64)):
                    header, payload = next(stream)
                    try:
                        client.send(header, memoryview(payload))
                    except PeerGone:  # a full queue: the server is slower than we are, or has just cut us off
                        num_full += 1
                        client.recv(0.002)
                        break
                    sent[kind] += 1
                if number % 2:  # the others never read what they are answered
                    while client.recv(0.0) is not None:
                        pass
            if total % 5 == 0:
                with contextlib.suppress(OSError):  # the server has ended
                    sent[raw(chance, address)] += 1
    finally:
        for client in clients:
            client.close()
    return {"sent": dict(sent), "total": sum(sent.values()), "full": num_full, "seconds": time.monotonic() - began_s}


def main() -> int:
    parser = argparse.ArgumentParser(description="send hostile frames to a server; started by `asgd bench hostile`")
    parser.add_argument("address")
    for name in ("frames", "seed", "size"):
        parser.add_argument(f"--{name}", type=int, required=True)
    for name in ("layout", "task"):
        parser.add_argument(f"--{name}", required=True)
    given = parser.parse_args()
    stops: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stops.append(number))
    result = attack(
        given.address, given.frames, given.seed, given.layout, given.task, given.size, stopped=lambda: bool(stops)
    )
    print(json.dumps(result), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
