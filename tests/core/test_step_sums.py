"""Sums of step sizes since a job was given: against exact fractions, and over a checkpoint."""

from __future__ import annotations

import json
from fractions import Fraction

from helpers.core_driver import Driver, make_state
from hypothesis import given
from hypothesis import strategies as st

from asgd.core.events import Resume
from asgd.core.step_sums import StepSums

STEPS = st.floats(min_value=0.0, max_value=1e6, allow_subnormal=True)


@given(before=st.lists(STEPS, max_size=30), after=st.lists(STEPS, max_size=30))
def test_exact_whatever_came_before(before, after):
    sums = StepSums()
    for step in before:
        sums.stepped(step)
    sums.given(3)
    for step in after:
        sums.stepped(step)
    assert sums.ended(3) == float(sum(map(Fraction, after), Fraction(0)))


@given(before=st.lists(STEPS, max_size=10), after=st.lists(STEPS, max_size=10))
def test_survives_json(before, after):
    sums, copy = StepSums(), StepSums()
    for step in before:
        sums.stepped(step)
    sums.given(3)
    copy.restore(json.loads(json.dumps(sums.to_dict())))
    for step in after:
        sums.stepped(step)
        copy.stepped(step)
    assert copy.ended(3) == sums.ended(3)


def test_a_restored_run_goes_on_and_forgets_the_jobs_that_are_lost():
    driver = Driver(make_state("asynchronous", "wu_adaptive_1", 1.0, workers=2, rule_options={"alpha": 0.5}))
    driver.join(0, 1)
    driver.answers([0, 1, 0])
    state = make_state("asynchronous", "wu_adaptive_1", 1.0, workers=2, rule_options={"alpha": 0.5})
    state.restore(json.loads(json.dumps(driver.state.to_dict())), first_job=100)
    resumed = Driver(state)
    resumed.handle(Resume(9.0))
    assert resumed.column("action") == ["lost", "lost"]
    resumed.join(0, 1)
    resumed.answers([0, 1, 1])
    assert resumed.column("step_size")[2:] == [0.5, 0.25, 0.5]
    assert len(state.to_dict()["step_sizes"]["sums"]["at"]) == 2
