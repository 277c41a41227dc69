"""Handshakes, and when a client counts as gone."""

from __future__ import annotations

import pytest

from asgd.net.messages import PROTOCOL_VERSION, Hello
from asgd.run.sessions import Sessions


def hello(**changes):
    plain = {
        "protocol": PROTOCOL_VERSION,
        "role": "worker",
        "worker": -1,
        "layout": "l",
        "task": "t",
        "host": "h",
        "pid": 1,
        "jobs": (),
    }
    return Hello(**(plain | changes))


@pytest.fixture
def sessions():
    return Sessions("l", "t", min_lease_s=10.0, max_lease_s=1000.0, most=4)


@pytest.mark.parametrize(
    ("changes", "sentence", "may_retry"),
    [
        ({"protocol": 99}, "the server speaks protocol", False),
        ({"layout": "other"}, "another parameter layout", False),
        ({"task": "other"}, "seed, task, options or batch size differ", False),
        ({"worker": 0}, "worker 0 is there already", True),
    ],
)
def test_refused_with_a_reason(sessions, changes, sentence, may_retry):
    sessions.open(b"a", hello(worker=0), 0.0)
    reason, retry = sessions.why_refused(hello(**changes), "")
    assert sentence in reason and retry == may_retry


def test_numbers_are_the_smallest_free_ones(sessions):
    assert [sessions.open(bytes([peer]), hello(), 0.0).worker for peer in range(3)] == [0, 1, 2]
    sessions.close(sessions.of_worker(1))
    assert sessions.open(b"x", hello(), 0.0).worker == 1
    assert sessions.open(b"y", hello(role="evaluator"), 0.0).worker == -1


def test_there_are_only_so_many_clients_and_numbers(sessions):
    assert sessions.why_refused(hello(worker=3), "") is None
    for worker in (4, 2**40):
        reason, may_retry = sessions.why_refused(hello(worker=worker), "")
        assert reason == f"there is no worker {worker}: numbers here are below 4 (security.max_peers)" and not may_retry
    assert sessions.why_refused(hello(), "", expected=(0, 1, 2)) is None
    assert sessions.why_refused(hello(), "", expected=range(4)) == (
        "every worker number below 4 is taken (security.max_peers)",
        True,
    )
    for pid in range(4):
        sessions.open(b"%d" % pid, hello(role="evaluator", pid=pid), 0.0)
    full = "4 clients are there already (security.max_peers)", True
    assert sessions.why_refused(hello(), "") == sessions.why_refused(hello(role="evaluator"), "") == full


def test_without_a_job_silence_counts(sessions):
    session = sessions.open(b"a", hello(), 0.0)
    assert sessions.overdue(9.9) == [] and sessions.overdue(10.1) == [session]
    session.last_heard_s = 5.0
    assert sessions.overdue(14.9) == []


def test_with_a_job_its_own_times_count_and_pings_do_not(sessions):
    session = sessions.open(b"a", hello(), 0.0)
    session.jobs[1] = 0.0
    assert sessions.overdue(99.0) == [], "nothing is known of its speed yet: ten times the lease"
    session.last_heard_s = 100.0
    assert sessions.overdue(100.1) == [session]
    session.answered(1, 3.0)
    session.jobs[2] = 3.0
    assert session.longest_job_s == 3.0
    assert sessions.overdue(32.9) == [] and sessions.overdue(33.1) == [session], "ten times its longest job"


def test_a_queued_job_counts_from_the_answer_before_it(sessions):
    session = sessions.open(b"a", hello(), 0.0)
    session.jobs = {1: 0.0, 2: 0.0}
    session.answered(1, 2.0)
    session.answered(2, 4.0)
    assert session.longest_job_s == 2.0


def test_the_longest_lease_ends_what_a_long_job_or_an_unknown_speed_would_allow(sessions):
    session = sessions.open(b"a", hello(), 0.0)
    session.jobs[1] = 0.0
    session.answered(1, 500.0)
    session.jobs[2] = 500.0
    assert sessions.overdue(1499.9) == [] and sessions.overdue(1500.1) == [session]
    short = Sessions("l", "t", min_lease_s=10.0, max_lease_s=20.0, most=4)
    slow, evaluator = short.open(b"a", hello(), 0.0), short.open(b"e", hello(role="evaluator"), 0.0)
    slow.jobs[1] = 0.0
    assert short.overdue(19.9) == [] and short.overdue(20.1) == [slow, evaluator]


def test_a_time_in_which_the_server_stood_still_is_nobodys_silence(sessions):
    waiting, working = sessions.open(b"a", hello(), 0.0), sessions.open(b"b", hello(), 0.0)
    working.jobs[1] = 0.0
    sessions.excuse(500.0)
    assert sessions.overdue(509.9) == []
    assert sessions.overdue(510.1) == [waiting]
    assert sessions.overdue(600.1) == [waiting, working]


def test_numbers_that_others_are_expected_with_are_not_given_away(sessions):
    sessions.reserved = frozenset({0, 1})
    assert sessions.open(b"a", hello(), 0.0, expected=[2, 3]).worker == 4
    assert sessions.open(b"b", hello(worker=1), 0.0, expected=[2, 3]).worker == 1
