"""Workers that come back to a server: what they hold goes on if the core waits for it, and is refused otherwise."""

from __future__ import annotations

import pytest
from helpers.server_world import World

from asgd.net import messages as wire
from asgd.run.ledger import check_trace


@pytest.fixture
def here(tmp_path):
    """Two workers with two jobs each: 0 and 2 are worker 0's, at the peers a and b."""
    world = World(tmp_path / "run")
    world.hello(b"a", worker=0, pid=1)
    world.hello(b"b", worker=1, pid=2)
    assert [job.job for job in world.jobs_of(b"a")] == [0, 2]
    yield world
    world.close()


def rows(world):
    world.directory.flush()
    return world.directory.read_trace()


def forget_sessions(world):
    """As after a restart in which the core kept its workers and their jobs."""
    for session in world.server.sessions:
        world.server.sessions.close(session)


def test_a_worker_goes_on_with_its_outstanding_jobs_without_any_event(here):
    before = here.server.state.to_dict()
    forget_sessions(here)
    here.hello(b"c", worker=0, pid=1, jobs=(0, 2))
    assert here.server.state.to_dict() == before
    assert [type(message) for to, message in here.wire.sent if to == b"c"] == [wire.Welcome]
    here.answer(b"c", wire.Job(0, 0, 0.0, -1))
    [row] = rows(here)
    assert (row.job, row.action, row.delay) == (0, "apply", 0)
    assert row.started_s is None, "it may have been begun by the clock of another server"
    assert here.last(b"c") == wire.Job(4, 1, here.last(b"c").sent_s, taken=0)


def test_the_connection_of_a_living_worker_may_break(here):
    """The server still takes the old one for open: its holder is the same process."""
    here.hello(b"c", worker=0, pid=1, jobs=(2, 0))
    assert here.server.sessions.of_worker(0).peer == b"c" and rows(here) == []
    here.answer(b"a", wire.Job(0, 0, 0.0, -1))
    assert here.last(b"a") == wire.Refused("you are not known here (any more): say hello", may_retry=True)
    here.answer(b"c", wire.Job(0, 0, 0.0, -1))
    assert [row.action for row in rows(here)] == ["apply"]


@pytest.mark.parametrize("held", [(), (2,), (2, 77)])
def test_a_worker_that_does_not_hold_all_its_jobs_joins_anew(here, held):
    forget_sessions(here)
    here.hello(b"c", worker=0, pid=1, jobs=held)
    assert [(row.job, row.action, row.reason) for row in rows(here)] == [
        (0, "lost", "the server was restarted"),
        (2, "lost", "the server was restarted"),
    ]
    replies = [message for to, message in here.wire.sent if to == b"c"]
    assert [message.job for message in replies if isinstance(message, wire.Cancel)] == list(held), "taken back"
    assert len(here.jobs_of(b"c")) == 2 == here.server.state.num_jobs(0)


def test_what_is_lost_with_a_broken_connection_is_not_put_down_to_a_restart(here):
    here.hello(b"c", worker=0, pid=1, jobs=(2,))
    assert {(row.action, row.reason) for row in rows(here)} == {("lost", "reconnected")}


def test_an_answer_that_comes_twice_is_refused_and_counted(here):
    """Its sign of arrival was lost with the connection; jobs that it doesn't wait for are taken back."""
    here.answer(b"a", wire.Job(0, 0, 0.0, -1))
    forget_sessions(here)
    here.hello(b"c", worker=0, pid=1, jobs=(0, 2, 4))
    assert [message for to, message in here.wire.sent if to == b"c"][1:] == [wire.Cancel(0)]
    parameters = here.flat.state_S.clone()
    here.answer(b"c", wire.Job(0, 0, 0.0, -1))
    assert here.server.state.refused == 1 and len(rows(here)) == 1
    assert here.flat.state_S.equal(parameters)
    here.answer(b"c", wire.Job(2, 0, 0.0, -1))
    assert [row.job for row in rows(here)] == [0, 2]


def test_jobs_of_another_worker_are_not_ones_own(here):
    forget_sessions(here)
    here.hello(b"c", worker=0, pid=1, jobs=(0, 1, 2))
    here.answer(b"c", wire.Job(1, 0, 0.0, -1))
    assert here.server.state.refused == 1 and rows(here) == []


def test_a_newcomer_does_not_get_the_number_of_one_that_is_expected(here):
    forget_sessions(here)
    here.hello(b"n", worker=-1, pid=9)
    assert here.server.sessions.of_peer(b"n").worker == 2
    here.hello(b"c", worker=0, pid=1, jobs=(0, 2))
    here.hello(b"d", worker=1, pid=2, jobs=(1, 3))
    assert all(row.action != "lost" for row in rows(here))


def test_a_worker_that_does_not_fit_leaves_the_one_that_does_alone(here):
    here.hello(b"c", worker=0, pid=1, layout="another")
    assert here.server.sessions.of_worker(0).peer == b"a"
    assert "another parameter layout" in here.last(b"c").reason


def test_an_evaluator_that_is_back_is_one_evaluator(here):
    here.hello(b"e", role="evaluator", pid=5)
    here.hello(b"f", role="evaluator", pid=5)
    assert here.server.num_evaluators == 1 and here.server.sessions.of_peer(b"f") is not None


def test_welcome_says_which_start_of_the_server_it_is(here):
    here.directory.next_incarnation()
    here.directory.next_incarnation()
    here.hello(b"c", worker=5, pid=3)
    assert next(m for to, m in here.wire.sent if to == b"c").incarnation == 1
    assert check_trace(rows(here), here.server.state.ledger.in_flight_delays()) == []


def test_clients_without_end_and_numbers_without_end_leave_nothing_behind(here):
    """Evaluators whose connections break at once, and numbers from everywhere."""
    most = here.server.sessions.most
    assert most == 68
    for number in range(300):
        peer = b"e%d" % number
        sends = here.wire.sends
        here.hello(peer, role="evaluator", pid=100 + number)
        assert here.wire.sends - sends <= 10, "a hello costs a few replies, however many are there"
        here.wire.gone.add(peer)
    assert len(here.server.sessions) <= most
    here.hello(b"c", worker=2, pid=3)
    assert isinstance(here.jobs_of(b"c")[0], wire.Job), "and a worker still gets in"
    for number in range(100):
        here.hello(b"w%d" % number, worker=10 * number, pid=5000 + number)
        if here.server.sessions.of_peer(b"w%d" % number) is not None:
            here.say(b"w%d" % number, wire.Goodbye("bye"))
    assert set(here.server.state.ledger.per_worker) <= set(range(most))
    assert here.last(b"w99").reason == "there is no worker 990: numbers here are below 68 (security.max_peers)"


def test_places_are_not_taken_from_clients_that_are_there(here):
    for number in range(here.server.sessions.most - 2):
        here.hello(b"e%d" % number, role="evaluator", pid=100 + number)
    here.hello(b"c", worker=2, pid=3)
    assert here.last(b"c") == wire.Refused("68 clients are there already (security.max_peers)", may_retry=True)
    here.hello(b"d", worker=0, pid=1, jobs=(0, 2))  # back on another connection: its own place
    assert here.server.sessions.of_worker(0).peer == b"d"
    here.wire.gone.add(b"e7")
    for _ in range(here.server.sessions.most // 8 + 1):  # each time it is asked of a few others whether they are there
        here.hello(b"c", worker=2, pid=3)
    assert isinstance(here.jobs_of(b"c")[0], wire.Job)


def test_a_session_belongs_to_the_key_that_opened_it(tmp_path):
    """Number, host and process are easily said; the name comes from the server's list of keys."""
    here = World(tmp_path / "run")
    for number, name in enumerate(("ann", "ben")):
        here.hello(b"%d" % number, worker=number, pid=number, name=name)
    here.hello(b"e", role="evaluator", pid=7, name="ann")
    before = here.server.state.to_dict()
    here.hello(b"x", worker=0, pid=0, name="ben", jobs=(0, 2))
    assert here.last(b"x") == wire.Refused("worker 0 is there already", may_retry=True)
    here.hello(b"y", role="evaluator", pid=7, name="ben")
    assert here.server.num_evaluators == 2 and here.server.sessions.of_peer(b"e") is not None
    assert here.server.state.to_dict() == before and here.server.sessions.of_worker(0).peer == b"0"
    here.hello(b"z", worker=0, pid=0, name="ann", jobs=(0, 2))
    assert here.server.state.to_dict() == before and here.server.sessions.of_worker(0).peer == b"z"
    here.close()


def test_who_is_quarantined_under_another_key_is_somebody_else(tmp_path):
    here = World(tmp_path / "run")
    here.hello(b"a", worker=0, pid=1, name="ann")
    here.server.sessions.quarantine(here.server.sessions.of_worker(0), "quarantined: a test")
    here.hello(b"b", worker=1, pid=1, name="ben")
    assert here.server.sessions.of_worker(1).peer == b"b"
    here.hello(b"c", worker=2, pid=1, name="ann")
    assert here.last(b"c") == wire.Refused("quarantined: a test", may_retry=False)
    here.close()
