"""The server's loop against a transport under the test's control: clients that vanish at any moment, hostile ones."""

from __future__ import annotations

import socket
from types import SimpleNamespace

import pytest
from helpers.server_world import World

from asgd.net import messages as wire
from asgd.net.messages import Gradient
from asgd.net.transport import Received


@pytest.fixture
def world(tmp_path):
    worlds = []

    def make(security=None, **method):
        worlds.append(World(tmp_path / str(len(worlds)), security, **method))
        return worlds[-1]

    yield make
    for each in worlds:
        each.close()


@pytest.mark.parametrize("method", [{}, {"name": "ringmaster", "options": {"R": 2, "cancel": True}}])
@pytest.mark.parametrize("nth", range(1, 24))
def test_a_client_may_vanish_at_any_send(world, nth, method):
    """Welcome, first job, second job, a later one, a cancellation: whichever can't be delivered, the others go on, and
    the record is in order."""
    here = world(**method)
    here.wire.fail_at = {nth}
    here.hello(b"a", pid=1)
    here.hello(b"b", pid=2)
    for number in range(12):
        for peer in (b"a", b"b"):
            outstanding = here.server.state.ledger.outstanding
            mine = [job for job in here.jobs_of(peer) if job.job in outstanding]
            if peer not in here.wire.gone and mine:
                here.answer(peer, mine[0])
        if number == 6:
            here.hello(b"c", pid=3)
            here.hello(b"d", pid=4)
    assert here.server.state.version >= 5
    for worker in here.server.state.workers:
        assert here.server.state.num_jobs(worker) == 2, "no live worker is left without work"


def test_clients_that_are_overdue_together_leave_in_the_order_in_which_it_was_seen(world):
    """Their jobs are lost at times that do not go back; the books are checked when the world closes."""
    here = world()
    for number, peer in enumerate((b"a", b"b", b"c")):
        here.hello(peer, worker=number, pid=number + 1)
    here.server.sessions.max_lease_s = here.server.sessions.min_lease_s = -1.0  # everybody is overdue now
    here.server.housekeeping()
    here.directory.flush()
    lost = [row for row in here.directory.read_trace() if row.action == "lost"]
    assert [row.worker for row in lost] == [0, 0, 1, 1, 2, 2]


def test_hello_twice_is_welcomed_twice_and_joins_once(world):
    here = world()
    here.hello(b"a")
    here.hello(b"a")
    assert [type(message).__name__ for _, message in here.wire.sent].count("Welcome") == 2
    assert list(here.server.state.workers) == [0]


def test_a_worker_that_is_back_takes_its_place(world):
    here = world()
    here.hello(b"a", worker=0, pid=1)
    here.hello(b"b", worker=1, pid=2)
    old = here.jobs_of(b"a")
    here.hello(b"c", worker=0, pid=1)
    assert here.server.sessions.of_worker(0).peer == b"c"
    here.answer(b"a", old[0])
    assert here.last(b"a") == wire.Refused("you are not known here (any more): say hello", may_retry=True)
    assert here.server.state.version == 0


def test_a_number_is_free_when_its_holder_cannot_be_reached(world):
    here = world()
    here.hello(b"a", worker=0, pid=1)
    here.hello(b"b", worker=0, pid=2)
    assert here.last(b"b") == wire.Refused("worker 0 is there already", may_retry=True)
    here.wire.gone.add(b"a")
    here.hello(b"b", worker=0, pid=2)
    assert isinstance(here.last(b"b"), wire.Welcome)


def test_the_died_process_is_the_one_that_leaves(world):
    here = world()
    here.hello(b"a", worker=0, pid=1)
    here.hello(b"b", worker=1, pid=2)
    here.say(b"a", wire.Goodbye("restarting"))
    here.hello(b"c", worker=0, pid=3)
    here.server.leave(1, "killed")
    assert here.server.sessions.of_worker(0).pid == 3


def test_a_process_of_another_machine_may_have_the_number_of_one_that_died_here(world):
    here = world()
    here.hello(b"a", worker=0, pid=7, host=socket.gethostname())
    here.hello(b"b", worker=1, pid=7, host="elsewhere")
    here.server.leave(7, "killed")
    assert here.server.sessions.of_worker(0) is None and here.server.sessions.of_worker(1).pid == 7


@pytest.mark.parametrize(
    ("message", "payload"),
    [
        (Gradient(0, 0, 1.0, 2**62, 0.1, 0.0, 0.0, 0.0), None),
        (Gradient(0, 0, 1.0, 2, 0.1, 0.0, 0.0, 0.0), b"short"),
        (Gradient(99, 0, 1.0, 2, 0.1, 0.0, 0.0, 0.0), None),
        (Gradient(1, 0, 1.0, 2, 0.1, 0.0, 0.0, 0.0), None),
        (wire.SnapshotRequest(), b""),
        (wire.Evaluated(0, {"loss": 0.0}, 0.1), b""),
    ],
)
def test_what_is_out_of_place_changes_nothing(world, message, payload):
    """Job 1 is worker 1's; the sender is worker 0."""
    here = world()
    here.hello(b"a")
    here.hello(b"b", pid=2)
    before = here.server.state.to_dict() | {"refused": 0}
    here.say(b"a", message, bytes(here.flat.answer_view().nbytes) if payload is None else payload)
    assert here.server.state.to_dict() | {"refused": 0} == before


def test_a_flood_leaves_few_notes(world):
    here = world()
    here.hello(b"a")
    for _ in range(2000):
        here.wire.incoming.append(Received(b"x", b"junk", []))
    while here.wire.incoming:
        here.server.receive(0.0, [])
    assert len(here.notes) < 10


class Hands:
    """The clock of the server's modules, which the test moves."""

    def __init__(self, monkeypatch):
        self.now_s = 1000.0
        for module in ("server", "handshake", "snapshots"):
            monkeypatch.setattr(f"asgd.run.{module}.time", SimpleNamespace(monotonic=lambda: self.now_s))

    def pass_by(self, here, seconds, *pinging):
        """In small steps, in each of which some give signs of life and the server does what is due."""
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            self.now_s += 0.5
            for peer in pinging:
                if here.server.sessions.of_peer(peer) is not None:
                    here.say(peer, wire.Ping())
            here.server.housekeeping()


@pytest.fixture
def evaluated(tmp_path, monkeypatch):
    """A run that has ended and whose last version waits for its evaluation; an evaluator has 20 s at most."""
    hands = Hands(monkeypatch)
    leases = {"min_lease_s": 5.0, "max_lease_s": 20.0}
    here = World(tmp_path / "run", evaluation={"evaluate": "during", "every_versions": 1000}, cluster=leases)
    here.server.stop("a test")
    assert here.server.evaluations.num_open == 1
    yield here, hands
    here.close()


def test_an_evaluator_that_only_pings_does_not_keep_the_end_of_the_run_waiting(evaluated):
    """Its snapshot goes to another once; when that one is as late, the evaluation is missing."""
    here, hands = evaluated
    for peer in (b"x", b"y"):
        here.hello(peer, role="evaluator", pid=ord(peer))
        here.say(peer, wire.SnapshotRequest())
        assert isinstance(here.last(peer), wire.Snapshot if peer == b"x" else wire.Welcome)
    hands.pass_by(here, 19.0, b"x", b"y")
    assert here.server.num_evaluators == 2
    hands.pass_by(here, 3.0, b"x", b"y")
    assert here.server.num_evaluators == 1, "the second has only waited until now"
    assert any(isinstance(message, wire.Snapshot) for to, message in here.wire.sent if to == b"y")
    assert any("is overdue (nothing done for 20 s, last heard 0 s ago): taken for dead" in note for note in here.notes)
    hands.pass_by(here, 22.0, b"y")
    assert here.server.num_evaluators == here.server.evaluations.num_open == 0
    assert here.server.evaluations.num_missing == 1


def test_an_evaluator_that_never_asks_or_never_leaves_is_not_waited_for_either(evaluated):
    here, hands = evaluated
    here.hello(b"x", role="evaluator", pid=1)
    here.hello(b"y", role="evaluator", pid=2)
    here.say(b"y", wire.SnapshotRequest())
    here.say(b"y", wire.Evaluated(0, {"loss": 1.0}, 0.1))
    here.say(b"y", wire.SnapshotRequest())
    assert here.last(b"y") == wire.NoSnapshot(finished=True)
    hands.pass_by(here, 22.0, b"x", b"y")
    assert here.server.num_evaluators == here.server.evaluations.num_missing == 0


def test_an_evaluator_that_waits_for_its_next_snapshot_owes_nothing(tmp_path, monkeypatch):
    hands = Hands(monkeypatch)
    leases = {"min_lease_s": 5.0, "max_lease_s": 20.0, "start_timeout_s": 1000.0}
    here = World(tmp_path / "run", evaluation={"evaluate": "during", "every_versions": 1000}, cluster=leases)
    here.hello(b"x", role="evaluator", pid=1)
    here.say(b"x", wire.SnapshotRequest())
    hands.pass_by(here, 1.0, b"x")
    assert wire.Snapshot(0) in [message for to, message in here.wire.sent if to == b"x"]
    here.say(b"x", wire.Evaluated(0, {"loss": 1.0}, 0.1))
    here.say(b"x", wire.SnapshotRequest())
    hands.pass_by(here, 100.0, b"x")
    assert here.server.num_evaluators == 1
    here.close()
