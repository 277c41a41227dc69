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
    return Sessions("l", "t", min_lease_s=10.0, max_lease_s=1000.0)


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
    reason, retry = sessions.why_refused(hello(**changes))
    assert sentence in reason and retry == may_retry


def test_numbers_are_the_smallest_free_ones(sessions):
    assert [sessions.open(bytes([peer]), hello(), 0.0).worker for peer in range(3)] == [0, 1, 2]
    sessions.close(sessions.of_worker(1))
    assert sessions.open(b"x", hello(), 0.0).worker == 1
    assert sessions.open(b"y", hello(role="evaluator"), 0.0).worker == -1


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
