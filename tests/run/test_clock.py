"""The two clocks: the run's stands still until it begins; a client's estimate of the server's is never ahead of it."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import asgd
from asgd.run.clock import Clock, ServerClock

ALLOWED = {
    ("bench/minibatch/machine.py", "datetime.now("),  # when a benchmark was begun, for the reader
    ("run/paths.py", "datetime.now("),
    ("run/launcher.py", "time.strftime("),
    ("run/board.py", "time.time("),
}


def test_the_run_begins_once_and_goes_on_from_its_offset():
    clock = Clock(5.0)
    assert clock.now_s() == 5.0 == clock.at(123.0)
    before_s = time.monotonic()
    clock.begin()
    after_s = time.monotonic()
    clock.begin()
    assert clock.at(after_s + 2.0) - 7.0 <= after_s - before_s
    assert clock.at(before_s) <= 5.0 <= clock.at(after_s) <= clock.now_s()


ways = st.floats(0.0, 10.0)
moments = st.floats(0.0, 1e5)


@given(st.floats(-1e6, 1e6), ways, st.lists(st.tuples(moments, ways, moments, st.booleans()), min_size=1))
def test_no_way_is_shorter_than_nothing_and_the_estimate_is_behind_by_the_shortest(ahead_s, handshake_s, messages):
    """`ahead_s`: the client's clock minus the server's, which the client can't know."""
    clock = ServerClock(0.0, handshake_s + ahead_s)
    shortest_s = handshake_s
    for sent_s, way_s, unseen_s, waited in messages:
        seen_s = sent_s + way_s + (0.0 if waited else unseen_s)
        shortest_s = min(shortest_s, seen_s - sent_s)
        came_s = clock.job_came_s(sent_s, seen_s + ahead_s, waited=waited)
        assert came_s <= seen_s + ahead_s
        assert clock.server_s(came_s) >= sent_s - 1e-6, "it came before it was sent"
        assert seen_s - clock.server_s(seen_s + ahead_s) == pytest.approx(shortest_s, abs=1e-6)


def test_a_job_that_lay_unseen_is_reckoned_to_have_come_as_fast_as_the_fastest():
    clock = ServerClock(0.0, 0.25)
    assert clock.job_came_s(1.0, 3.0, waited=False) == 3.0, "nothing is known yet"
    assert clock.job_came_s(4.0, 4.5, waited=True) == 4.5
    assert clock.job_came_s(5.0, 6.0, waited=True) == 6.0
    assert clock.job_came_s(7.0, 9.0, waited=False) == 7.5
    assert clock.job_came_s(9.0, 9.25, waited=False) == 9.25, "not later than it was found"


def test_a_clock_that_is_set_back_disturbs_nothing():
    """Only monotonic clocks are measured with; the time of day is for names, for lines of logs and for TensorBoard."""
    of_day = re.compile(r"\btime\.(time|time_ns|localtime|gmtime|strftime)\(|\bdatetime\.(now|utcnow|today)\(")
    package = Path(asgd.__file__).parent
    found = {
        (path.relative_to(package).as_posix(), match.group())
        for path in package.rglob("*.py")
        for match in of_day.finditer(path.read_text())
    }
    assert found == ALLOWED, found ^ ALLOWED
