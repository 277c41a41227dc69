"""Recorded times: a run that was stopped is driven again to its stop; what took another course is refused."""

from __future__ import annotations

import msgspec
import pytest
from helpers.core_driver import Driver, make_state

from asgd.config import load_config
from asgd.core.budget import Budget
from asgd.core.events import Begin, Stop
from asgd.errors import RunError
from asgd.learn.tasks import quadratic
from asgd.sim.simulate import Simulation, emulated
from asgd.sim.times import RecordedTimes

CONFIG = {
    "task": {"function": "quadratic", "options": {"dimension": 4}, "batch_size": 2},
    "cluster": {"num_workers": 4, "speeds": {"profile": "exponential", "seconds": 0.1}},
    "budget": {"versions": 60},
    "evaluation": {"evaluate": "never"},
}
TASK = quadratic(dimension=4)


def recorded(overrides=(), stop_after=None):
    """Rows and summary of a run, which somebody stops after so many rows."""
    config, rows = load_config(CONFIG, overrides), []
    simulation = Simulation(config, TASK, emulated(config))

    def hear(row):
        rows.append(row)
        if len(rows) == stop_after:
            simulation.state.handle(Stop("asked to stop", row.time_s + 0.01))

    return rows, simulation.run(hear)


def again(rows, summary, overrides=()):
    times, ours = RecordedTimes(rows, summary), []
    config = load_config(CONFIG, overrides)
    return ours, Simulation(config, TASK, times.end_of_job, times).run(ours.append)


@pytest.mark.parametrize("method", ["asynchronous", "minibatch", "ringleader"])
@pytest.mark.parametrize("limit", [[], ["budget.time_s=1000.0"]], ids=["versions", "and time"])
def test_a_stopped_run_is_driven_to_its_stop(method, limit):
    overrides = [f"method.name={method}", *limit]
    rows, summary = recorded(overrides, stop_after=17)
    ours, again_summary = again(rows, summary, overrides)
    assert ours == rows and len(rows) == 17
    assert again_summary.parameters_sha256 == summary.parameters_sha256
    assert (again_summary.stopped_because, again_summary.finished) == ("asked to stop", False)
    assert again_summary.outstanding == summary.outstanding


def test_a_run_without_a_summary_is_driven_to_its_last_line():
    rows, _ = recorded(stop_after=17)
    ours, summary = again(rows, None)
    assert ours == rows and summary.stopped_because == "the recorded times end here" and not summary.finished


def test_a_run_that_its_clock_ended_ends_at_the_limit_here():
    """The real server looks at the clock now and then: the summary says a later time than the limit."""
    limit = ["budget.versions=0", "budget.time_s=0.5"]
    rows, summary = recorded(limit)
    ours, again_summary = again(rows, msgspec.structs.replace(summary, wall_s=0.55), limit)
    assert ours == rows and again_summary.finished and again_summary.wall_s == 0.5
    assert again_summary.stopped_because == summary.stopped_because


def test_a_larger_budget_goes_as_far_as_the_times():
    rows, summary = recorded()
    ours, again_summary = again(rows, summary, ["budget.versions=90"])
    assert ours == rows and again_summary.stopped_because == "the recorded times end here"


def begun_with(workers, arrivals, late=(), later=()):
    """The rows of a run of four workers that begins with some of them."""
    driver = Driver(make_state(workers=4, budget=Budget(versions=60)))
    driver.join(*workers)
    driver.handle(Begin(driver.tick()))
    driver.answers(arrivals)
    driver.join(*late)
    driver.answers(later)
    return driver.rows


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (begun_with([0, 1, 3], [0, 1, 3, 0]), "gave job 2 to worker 3, not to worker 2"),
        (begun_with([0, 1, 2], [0, 1, 2, 0]), "gave job 3 to worker 0, not to worker 3"),
        (begun_with([0, 1, 2], [1, 1, 1], late=[3], later=[3]), "gave job 3 to worker 1, not to worker 3"),
        (begun_with([0, 1, 2], [0], late=[3]), "has concurrency 3 in arrival 0, not 4"),
    ],
    ids=["without 2", "without 3", "3 later", "3 hardly"],
)
def test_a_run_that_did_not_begin_with_all_workers_is_refused(rows, sentence):
    with pytest.raises(RunError, match=sentence):
        again(rows, None)


def test_the_end_is_compared_with_what_the_summary_says():
    rows, summary = recorded()
    with pytest.raises(RunError, match="ended after 60 lines of its trace with 4 jobs in flight, not after 60 with 3"):
        again(rows, msgspec.structs.replace(summary, outstanding=[*summary.outstanding, 7]))
