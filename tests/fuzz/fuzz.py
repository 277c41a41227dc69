#!/usr/bin/env python
"""Coverage-guided fuzzing of everything that takes bytes from others.

    python tests/fuzz/fuzz.py TARGET [libFuzzer's options, such as -max_total_time=600 or a corpus's directory]

Targets: `decoder` (headers of messages), `server` (a server's loop: sequences of messages of several peers, beside a
worker that must not notice), `cifar` (data files that are pickles). Needs the extra `fuzz` (atheris).
"""

from __future__ import annotations

import contextlib
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT)]

with atheris.instrument_imports(include=["asgd"]):
    from asgd.bench.hostile_frames import KINDS, REPLIES, hello, requests
    from asgd.config import task_digest
    from asgd.errors import ProtocolError
    from asgd.learn.cifar import take_apart
    from asgd.net.messages import decode_reply, decode_request, encode
    from asgd.net.transport import Received
    from tests.helpers.server_world import CONFIG, World


def decoder() -> Callable[[bytes], None]:
    """Messages with pieces cut out, put in and exchanged: what is taken for one survives being encoded again."""
    chance = random.Random(0)
    originals = [*requests(chance, "layout", "task"), hello(chance, "layout", "task"), *map(encode, REPLIES)]

    def once(data: bytes) -> None:
        source = atheris.FuzzedDataProvider(data)
        header = source.PickValueInList([b"", *originals])
        while source.remaining_bytes():
            at, end = sorted((source.ConsumeIntInRange(0, len(header)), source.ConsumeIntInRange(0, len(header))))
            header = header[:at] + source.ConsumeBytes(source.ConsumeIntInRange(0, 9)) + header[end:]
        for decode in (decode_request, decode_reply):
            try:
                message = decode(header)
            except ProtocolError:
                continue
            assert repr(decode(encode(message))) == repr(message)

    return once


def cifar() -> Callable[[bytes], None]:
    """A pickle is taken apart or refused."""

    def once(data: bytes) -> None:
        with contextlib.suppress(ValueError):
            take_apart(data)

    return once


def server() -> Callable[[bytes], None]:
    """Whatever peers send, the state holds together, and a worker among them goes on."""
    CONFIG["budget"] = {"versions": 2**60}  # it must outlast every input
    here = World(Path(tempfile.mkdtemp(prefix="asgd-fuzz-")) / "run", {"max_refusals": 10}, jobs_per_worker=1)
    here.hello(b"good", worker=0, pid=1)
    here.hello(b"other", worker=1, pid=2)
    size, layout, task = here.flat.state_view().nbytes, here.flat.layout.digest, task_digest(here.config)
    numbers = iter(range(2**62))

    def once(data: bytes) -> None:
        source = atheris.FuzzedDataProvider(data)
        prefix = b"%d/" % next(numbers)
        streams = {kind: make(random.Random(0), layout, task, size) for kind, make in KINDS.items()}
        for _ in range(source.ConsumeIntInRange(1, 30)):
            peer = prefix + b"ab"[source.ConsumeIntInRange(0, 1) :][:1]
            header, payload = next(streams[source.PickValueInList(list(KINDS))])
            if source.ConsumeBool():
                header = source.ConsumeBytes(64)
            elif source.ConsumeBool():
                at = source.ConsumeIntInRange(0, len(header))
                header = header[:at] + source.ConsumeBytes(1) + header[at + 1 :]
            if source.ConsumeBool():
                payload = bytes(source.PickValueInList([0, 1, size, size + 4]))
            here.wire.incoming.append(Received(peer, header, [memoryview(payload)] if payload else []))
        while here.wire.incoming:
            here.server.receive(0.0, [])
        here.server.state.validate()
        version = here.server.state.version
        here.answer(b"good", here.jobs_of(b"good")[-1])
        assert here.server.state.version == version + 1, "the worker was disturbed"
        here.wire.sent[:] = [sent for sent in here.wire.sent if sent[0] in (b"good", b"other")][-20:]
        here.wire.cut.clear()
        here.wire.admitted.clear()

    return once


def main() -> None:
    targets = {"decoder": decoder, "server": server, "cifar": cifar}
    if len(sys.argv) < 2 or sys.argv[1] not in targets:
        sys.exit(__doc__)
    once = targets[sys.argv.pop(1)]()
    atheris.Setup(sys.argv, once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
