"""The stopwatch: every moment is charged once, and only between start and stop."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from asgd.run.formats import ServerTimes
from asgd.run.stopwatch import Stopwatch

PHASES = (*ServerTimes.__struct_fields__, "other_s")


class Time:
    """A clock that a test moves."""

    def __init__(self):
        self.s = 0

    def __call__(self):
        return float(self.s)


@given(st.lists(st.tuples(st.sampled_from(PHASES), st.integers(0, 9))), st.integers(0, 9))
def test_each_second_is_charged_to_one_phase(laps, outside):
    clock, expected = Time(), dict.fromkeys(PHASES, 0)
    watch = Stopwatch(clock)
    watch.start()
    for phase, seconds in laps:
        clock.s += seconds
        expected[phase] += seconds
        watch.lap(phase)
    clock.s += outside
    watch.stop()
    found = msgspec.structs.asdict(watch.times()) | {"other_s": watch.other_s}
    assert found == expected | {"other_s": expected["other_s"] + outside}
    assert sum(found.values()) == clock.s


def test_nothing_counts_before_the_start_and_after_the_stop():
    clock = Time()
    watch = Stopwatch(clock)
    clock.s += 1
    watch.lap("decide_s")
    watch.start()
    clock.s += 2
    watch.start()
    watch.lap("decide_s")
    clock.s += 4
    watch.stop()
    clock.s += 8
    watch.start()
    clock.s += 16
    watch.lap("idle_s")
    assert (watch.times(), watch.other_s) == (ServerTimes(decide_s=2.0), 4.0)


def test_a_resumed_run_goes_on_counting():
    clock = Time()
    watch = Stopwatch(clock)
    watch.go_on_from(ServerTimes(idle_s=3.0, apply_s=5.0))
    watch.start()
    clock.s += 2
    watch.lap("idle_s")
    assert watch.times() == ServerTimes(idle_s=5.0, apply_s=5.0)
