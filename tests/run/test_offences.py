"""Clients that go on sending what is refused: told, then dropped and ignored; nobody else notices."""

from __future__ import annotations

import random
import struct

import msgspec
import pytest
from helpers.server_world import World
from hypothesis import given
from hypothesis import strategies as st

from asgd.bench.hostile_frames import KINDS
from asgd.config import task_digest
from asgd.net import messages as wire
from asgd.net.messages import Gradient, encode
from asgd.net.transport import BadMessage, Received
from asgd.run.offences import _REMEMBERED, Offences


@pytest.fixture
def world(tmp_path):
    worlds = []

    def make(**options):
        worlds.append(World(tmp_path / str(len(worlds)), **options))
        return worlds[-1]

    yield make
    for each in worlds:
        each.close()


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b"]), st.booleans()), max_size=100))
def test_offences_are_counted_by_client_and_made_up_for(steps):
    offences, counts = Offences(5), {b"a": 0, b"b": 0}
    for peer, is_refused in steps:
        if is_refused:
            counts[peer] += 1
            assert offences.refused(peer) == (counts[peer] >= 5)
        else:
            counts[peer] = counts[peer] - 1 if 0 < counts[peer] < 5 else counts[peer]
            offences.made_up(peer)
        assert offences.ignores(peer) == (counts[peer] >= 5)


def test_the_memory_of_offenders_is_bounded():
    offences = Offences(2)
    for number in range(3 * _REMEMBERED):
        offences.refused(b"%d" % number)
        offences.is_hasty(b"%d" % number, 0.0, 1.0)
    assert len(offences._counts) == len(offences._turns_s) == _REMEMBERED
    assert offences.num_refused == 3 * _REMEMBERED


def flood(here: World, peer: bytes, messages: list[tuple[bytes, bytes]]) -> None:
    for header, payload in messages:
        here.wire.incoming.append(Received(peer, header, [memoryview(payload)] if payload else []))
    while here.wire.incoming:
        here.server.receive(0.0, [])


def good_worker_goes_on(here: World, peer: bytes, rounds: int = 3) -> None:
    for _ in range(rounds):
        version = here.server.state.version
        here.answer(peer, here.jobs_of(peer)[-2])  # the older of its two
        here.answer(peer, here.jobs_of(peer)[-2])
        assert here.server.state.version == version + 2


@pytest.mark.parametrize("kind", [*KINDS, "replays", "too large"])
def test_who_goes_on_is_told_why_and_then_ignored(world, kind):
    here = world(security={"max_refusals": 20})
    here.hello(b"good", pid=1)
    here.hello(b"bad", pid=2)
    size, layout, task = here.flat.state_view().nbytes, here.flat.layout.digest, task_digest(here.config)
    bad = b"bad"
    if kind == "replays":
        job = here.jobs_of(b"bad")[0]
        here.answer(b"bad", job)
        for _ in range(200):
            here.answer(b"bad", job)
    elif kind == "too large":
        here.wire.recv = lambda timeout_s, wake=(): (_ for _ in ()).throw(BadMessage(b"bad", "too large"))
        for _ in range(200):
            here.server.receive(0.0, [])
        del here.wire.recv
    else:
        bad = b"stranger"
        stream = KINDS[kind](random.Random(0), layout, task, size)
        flood(here, bad, [next(stream) for _ in range(2000)])
    told = [message for to, message in here.wire.sent if to == bad]
    refusals = [message for message in told if isinstance(message, wire.Refused)]
    assert refusals and refusals[-1].reason.startswith("cut off: 20 of your messages were refused; ")
    assert not refusals[-1].may_retry and told[-1] is refusals[-1]  # nothing after it
    assert len(told) < 60  # one that is quick to say hello again hears more than one that is only refused
    assert here.server.sessions.of_peer(bad) is None and here.server.offences.ignores(bad)
    assert here.wire.cut and set(here.wire.cut) == {bad}  # its next message ends the connection
    good_worker_goes_on(here, b"good")
    assert len([note for note in here.notes if "refused" in note]) < 30


def test_a_worker_that_is_cut_off_has_its_jobs_recorded_as_lost(world):
    here = world(security={"max_refusals": 3})
    here.hello(b"good", pid=1)
    here.hello(b"bad", pid=2)
    flood(here, b"bad", [(b"junk", b"")] * 5)
    here.directory.flush()
    lost = [row for row in here.directory.read_trace() if row.action == "lost"]
    assert [row.reason for row in lost] == ["cut off: 3 of its messages were refused"] * 2
    assert any(note.startswith("cut off worker 1: 3 of its messages were refused") for note in here.notes)


def test_late_answers_to_cancelled_jobs_are_no_offence(world):
    here = world(security={"max_refusals": 2}, name="m_synchronous", options={"m": 1}, jobs_per_worker=1)
    here.hello(b"a", pid=1)
    here.hello(b"b", pid=2)
    for _ in range(20):
        late = here.jobs_of(b"b")[-1]
        here.answer(b"a", here.jobs_of(b"a")[-1])
        here.answer(b"b", late)  # cancelled a moment ago
    assert here.server.offences.num_refused == 0
    assert not here.server.offences.ignores(b"b") and here.server.sessions.of_peer(b"b") is not None


def test_many_who_want_a_workers_number_do_not_cost_it_its_place(world):
    """It reads nothing while it computes: what is sent to it only to see whether it is there must have an end."""
    here = world()
    here.hello(b"a", worker=0, pid=1)
    for number in range(500):
        here.hello(b"x%d" % number, worker=0, pid=1000 + number)
    assert sum(to == b"a" and isinstance(message, wire.Pong) for to, message in here.wire.sent) <= 8
    for changes in ({"layout": "other"}, {"task": "other"}, {"protocol": 99}):  # knows its place, not the work
        here.hello(b"y", worker=0, pid=1, **changes)
    assert here.server.sessions.of_worker(0).peer == b"a"


def test_a_flood_of_hellos_leaves_few_notes_and_nothing_that_a_terminal_obeys(world):
    here = world()
    for number in range(1000):
        here.hello(b"x%d" % number, host="\x1b[2J\nINSECURE", layout="other")
    assert len(here.notes) < 200
    here.hello(b"a", pid=1)
    here.say(b"a", wire.Goodbye("\x1b]0;x\x07\n" * 3))
    here.directory.flush()
    texts = [*here.notes, *(row.reason or "" for row in here.directory.read_trace())]
    assert all(text.isprintable() for text in texts)


def test_an_evaluator_gets_one_snapshot_at_a_time(world):
    here = world()
    here.hello(b"e", role="evaluator")
    for _ in range(1000):
        here.say(b"e", wire.SnapshotRequest())
        if here.server.offences.ignores(b"e"):
            break
    assert len(here.server.asking) <= 1


def test_only_who_was_let_in_is_admitted(world):
    here = world()
    here.hello(b"x", layout="other")
    here.say(b"y", wire.Ping())
    assert here.wire.admitted == []
    here.hello(b"a")
    assert here.wire.admitted == [b"a"]


def test_a_worker_with_broken_gradients_is_told_and_not_let_in_again(world):
    here = world(jobs_per_worker=1, quarantine_after=3)
    here.hello(b"good", worker=0, pid=1)
    here.hello(b"bad", worker=1, pid=2)
    nan = memoryview(bytearray(b"\xff" * here.flat.answer_view().nbytes))
    while here.server.sessions.of_peer(b"bad") is not None:
        job = here.jobs_of(b"bad")[-1]
        here.say(b"bad", Gradient(job.job, job.version, 1.0, 2, 0.1, 0.0, 0.0, 0.0), bytes(nan))
        here.answer(b"good", here.jobs_of(b"good")[-1])
        assert here.server.state.rows < 50
    why = "quarantined: 3 of its gradients in a row were refused (not finite)"
    assert here.last(b"bad") == wire.Refused(why, may_retry=False)
    assert f"worker 1 is {why}" in here.notes
    assert here.server.state.quarantined == {1: why}
    here.hello(b"again", worker=1, pid=3)  # its number, started anew
    here.hello(b"same", worker=-1, pid=2)  # its process, as somebody else
    assert here.last(b"again") == here.last(b"same") == wire.Refused(why, may_retry=False)
    here.hello(b"new", worker=-1, pid=4)
    assert here.last(b"new") and here.server.sessions.of_peer(b"new").worker == 2  # not the number 1
    good_worker = here.jobs_of(b"good")[-1]
    here.answer(b"good", good_worker)


def test_no_message_can_name_code():
    """Every field of every message: numbers, flags, one of two words (Hello.role), and these texts, none looked up."""
    import msgspec

    fields = {
        (kind.__name__, field.name)
        for kind in (*wire.Request.__args__, *wire.Reply.__args__)
        for field in msgspec.structs.fields(kind)
        if "str" in str(field.type) or "dict" in str(field.type)
    }
    assert fields == {
        ("Hello", "layout"),  # digests, compared
        ("Hello", "task"),
        ("Hello", "host"),  # shown
        ("Goodbye", "reason"),
        ("Evaluated", "results"),  # numbers by name, recorded
        ("Welcome", "run"),
        ("Refused", "reason"),
        ("Stop", "reason"),
    }


def test_a_worker_whose_times_add_up_to_infinity_is_refused_and_the_server_goes_on(world):
    """One such answer ended the server of a `rescaled` run with an OverflowError, again after every restart."""
    here = world(name="rescaled")
    here.hello(b"bad", worker=0, pid=1)
    here.hello(b"good", worker=1, pid=2)
    job = here.jobs_of(b"bad")[0]
    endless = msgspec.structs.replace(Gradient(job.job, job.version, 1.0, 2, 0.0, 0.0, 0.0, 0.0), compute_s=1e12)
    header = encode(endless)
    for factor in (1e12, 1.7e308):
        beyond = header.replace(struct.pack(">d", 1e12), struct.pack(">d", factor * 1.01))
        here.wire.incoming.append(Received(b"bad", beyond, [memoryview(bytes(here.flat.answer_view().nbytes))]))
        here.server.receive(0.0, [])
    assert here.server.offences.num_refused == 2 and here.server.state.version == 0
    here.say(b"bad", endless, bytes(here.flat.answer_view().nbytes))  # as long as may be: its step stays finite
    here.answer(b"good", here.jobs_of(b"good")[0])
    assert here.server.state.version == 2
