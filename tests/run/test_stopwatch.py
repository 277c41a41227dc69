"""The stopwatch: every moment is charged once, to the innermost phase, and only between start and stop."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgd.run.formats import ServerTimes
from asgd.run.stopwatch import Stopwatch

NAMES = [name.removesuffix("_s") for name in ServerTimes.__struct_fields__]


class Time:
    """A clock that a test moves."""

    def __init__(self):
        self.s = 0

    def __call__(self):
        return float(self.s)


nested = st.recursive(st.just([]), lambda inner: st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 9), inner)))


@given(nested, st.integers(0, 9))
def test_each_second_is_charged_to_the_innermost_phase(phases, outside):
    clock, expected = Time(), dict.fromkeys(NAMES, 0)
    watch = Stopwatch(clock)

    def go_through(phases):
        for name, seconds, inner in phases:
            with getattr(watch, name):
                clock.s += seconds
                expected[name] += seconds
                go_through(inner)

    watch.start()
    go_through(phases)
    clock.s += outside
    watch.stop()
    times = msgspec.structs.asdict(watch.times())
    assert times == {f"{name}_s": seconds for name, seconds in expected.items()}
    assert sum(times.values()) == clock.s - outside


def test_nothing_counts_before_the_start_and_after_the_stop():
    clock = Time()
    watch = Stopwatch(clock)
    with watch.decide:
        clock.s += 1
        watch.start()
        clock.s += 2
    with watch.record:
        clock.s += 4
        watch.stop()
        clock.s += 8
    watch.start()
    with watch.idle:
        clock.s += 16
    assert watch.times() == ServerTimes(decide_s=2.0, record_s=4.0)


def test_a_phase_that_fails_is_left():
    clock = Time()
    watch = Stopwatch(clock)
    watch.start()
    with pytest.raises(ValueError, match="no"), watch.send:
        clock.s += 1
        raise ValueError("no")
    clock.s += 2
    assert watch.times() == ServerTimes(send_s=1.0)


def test_a_resumed_run_goes_on_counting():
    clock = Time()
    watch = Stopwatch(clock)
    watch.go_on_from(ServerTimes(idle_s=3.0, apply_s=5.0))
    watch.start()
    with watch.idle:
        clock.s += 2
    assert watch.times() == ServerTimes(idle_s=5.0, apply_s=5.0)
