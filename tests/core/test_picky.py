"""Picky SGD: by hand, and every decision from the trace."""

from __future__ import annotations

import pytest
from helpers.core_driver import Driver, make_state

from asgd.core.events import Arrival
from asgd.core.methods import make_method
from asgd.errors import ConfigError


def start(workers=2, x=4.0, rule="constant", **options):
    driver = Driver(make_state("picky", rule, 0.5, workers=workers, **options), x=x)
    driver.join(*range(workers))
    return driver


def test_steps_by_hand():
    """f(x) = x^2/2 from x^0 = 4, eta = 1/2, threshold 1."""
    driver = start()
    driver.answers([0, 1, 0, 1])
    # Worker 0: 4 -> 2. Worker 1 read 4, which is 2 away: discarded, it reads 2. Worker 0 read 2: 2 -> 1.
    # Worker 1 read 2, which is 1 away, exactly the threshold: 1 - 2/2 = 0.
    assert driver.x == 0.0
    assert driver.column("action") == ["apply", "discard", "apply", "apply"]
    assert driver.column("distance") == [0.0, 2.0, 0.0, 1.0]
    assert driver.rows[1].reason == "distance above the threshold 1"
    assert driver.column("version") == [0, 1, 1, 2]


@pytest.mark.parametrize("rule", ["staleness_aware", "drop", "scale"])
def test_a_long_delay_without_movement_is_as_good_as_none(rule):
    """At the optimum nothing moves: the delay may be anything, and the rule has no effect."""
    driver = start(x=0.0, rule=rule)
    driver.answers([0] * 50 + [1])
    assert driver.rows[-1].delay == 50 and driver.rows[-1].action == "apply"
    assert driver.column("step_size") == [0.5] * 51


def test_every_decision_follows_from_the_trace():
    driver = start(workers=5, x=3.0, method_options={"threshold": 0.3})
    driver.answers(step * step % 5 for step in range(200))
    assert {row.action for row in driver.rows} == {"apply", "discard"}
    for row in driver.rows:
        assert (row.action == "apply") == (row.distance <= 0.3)


def test_a_distance_that_is_not_finite_is_above_every_threshold():
    driver = start()
    driver.handle(Arrival(0, driver.queue[0].pop(0), 0, 1.0, 1, 1.0, driver.tick(), distance=float("nan")), 1.0)
    assert (driver.rows[0].action, driver.rows[0].distance) == ("discard", None)


def test_needs_the_distance():
    state = start().state
    with pytest.raises(ValueError, match="needs the distance"):
        state.handle(Arrival(0, 0, 0, 1.0, 1, 1.0, 9.0))


def test_death_newcomer_and_not_finite():
    driver = start(jobs_per_worker=2)
    driver.answer(0, finite=False)
    assert (driver.rows[-1].action, driver.state.version, driver.state.num_jobs(0)) == ("discard", 0, 2)
    driver.leave(0)
    driver.answers([1, 1])
    driver.join(5)
    assert [driver.given[job][1] for job in driver.queue[5]] == [driver.state.version] * 2
    driver.leave(1)
    driver.leave(5)
    driver.join(6)
    before = driver.state.version
    driver.answer(6)
    assert driver.state.version == before + 1


@pytest.mark.parametrize("threshold", [0, -1.0, float("inf"), float("nan"), True, "1", None])
def test_refuses(threshold):
    with pytest.raises(ConfigError) as error:
        make_method("picky", {"threshold": threshold})
    assert f"method.options.threshold = {threshold!r}: allowed is a finite number above 0" in str(error.value)
