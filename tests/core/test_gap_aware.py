"""Gap-Aware: by hand, and against an independent loop."""

from __future__ import annotations

import math

import pytest
from helpers.core_driver import Driver, make_state

from asgd.core.actions import Apply, DivideByGap, StepSize
from asgd.core.budget import Budget
from asgd.core.events import Arrival
from asgd.core.methods import make_method
from asgd.core.schedules import Schedule
from asgd.errors import ConfigError

ORDER = [0, 2, 1, 1, 0, 2, 2, 2, 1, 0, 0, 1]


def start(workers=2, x=4.0, rule="constant", step_size=0.5, **options):
    driver = Driver(make_state("gap_aware", rule, step_size, workers=workers, **options), x=x)
    driver.join(*range(workers))
    return driver


def test_steps_by_hand():
    """f(x) = x^2/2 from x^0 = 4, eta = 1/2; decay 0: C = |g|/2, the length of this gradient's own step."""
    driver = start(method_options={"decay": 0.0})
    driver.answers([0])
    assert driver.x == 2.0  # no gap
    driver.answers([1])
    assert driver.x == pytest.approx(1.0, rel=1e-7)  # read 4, gap 2 = C: half of the step of 2
    driver.answers([0])
    assert driver.x == pytest.approx(0.5, rel=1e-7)  # read 2, gap 1 = C: half of the step of 1


def test_against_a_loop():
    driver = start(workers=3, step_size=0.1)
    driver.answers(ORDER)
    x, read, square = 4.0, {0: 4.0, 1: 4.0, 2: 4.0}, 0.0
    for k, worker in enumerate(ORDER, start=1):
        g = read[worker]
        square = 0.999 * square + 0.001 * g**2
        unit = 0.1 * (math.sqrt(square / (1 - 0.999**k)) + 1e-8)
        x -= 0.1 * g / (1 + abs(x - read[worker]) / unit)
        read[worker] = x
    assert driver.x == pytest.approx(x, rel=1e-9)


def test_one_worker_is_plain_sgd():
    driver = start(workers=1)
    driver.answers([0] * 5)
    assert driver.x == 4.0 / 2**5


def test_longest_step_is_that_of_the_schedule_so_far_and_is_saved():
    schedule = Schedule(0.5, "step", milestones=(2,), gamma=0.5)
    driver = start(schedule=schedule, budget=Budget(versions=100))
    driver.answers([0, 0, 0])
    assert driver.column("step_size") == [0.5, 0.5, 0.25]
    assert driver.state.method.state() == {"longest_step": 0.5}
    method = make_method("gap_aware")
    method.restore(driver.state.method.state())
    assert method.longest_step == 0.5
    expected = Apply(StepSize(0.25, 0.25), 0.5, None, DivideByGap(0.5, 0.999, 1e-8))
    assert expected in driver.state.handle(Arrival(1, 1, 0, 1.0, 1, 1.0, 99.0))


@pytest.mark.parametrize("rule", ["staleness_aware", "drop", "scale"])
def test_rule_has_no_effect(rule):
    driver = start(x=0.0, rule=rule)
    driver.answers([0] * 9 + [1])
    assert driver.column("step_size") == [0.5] * 10


def test_death_newcomer_and_not_finite():
    driver = start()
    driver.answer(0, finite=False)
    assert (driver.rows[-1].action, driver.state.version, driver.num_squares) == ("discard", 0, 0)
    driver.leave(0)
    driver.answers([1, 1])
    driver.join(5)
    driver.leave(1)
    driver.answers([5, 5])
    assert driver.state.version == 4


@pytest.mark.parametrize("decay", [1, -0.5, float("nan"), True, "1", None])
def test_refuses(decay):
    with pytest.raises(ConfigError) as error:
        make_method("gap_aware", {"decay": decay})
    assert f"method.options.decay = {decay!r}: allowed is a number from 0 to below 1" in str(error.value)
