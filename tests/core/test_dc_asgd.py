"""DC-ASGD: by hand, and against an independent loop."""

from __future__ import annotations

import math

import pytest
from helpers.core_driver import Driver, make_state

from asgd.core.actions import Apply, Compensate, StepSize
from asgd.core.events import Arrival
from asgd.core.methods import make_method
from asgd.errors import ConfigError

ORDER = [0, 2, 1, 1, 0, 2, 2, 2, 1, 0, 0, 1]


def start(workers=2, x=4.0, rule="constant", step_size=0.5, **options):
    driver = Driver(make_state("dc_asgd", rule, step_size, workers=workers, **options), x=x)
    driver.join(*range(workers))
    return driver


def test_constant_form_by_hand():
    """f(x) = x^2/2 from x^0 = 4, eta = 1/2, lambda = 1/4."""
    driver = start(method_options={"adaptive": False, "strength": 0.25})
    driver.answers([0])
    assert driver.x == 2.0  # no delay: 4 - 4/2
    driver.answers([1])
    assert driver.x == 4.0  # read 4, moved by -2: g = 4 + 16 (-2)/4 = -4
    driver.answers([0])
    assert driver.x == 2.0  # read 2, moved by 2: g = 2 + 4 * 2/4 = 4


def test_adaptive_form_against_a_loop():
    driver = start(workers=3, step_size=0.1)
    driver.answers(ORDER)
    x, read, square = 4.0, {0: 4.0, 1: 4.0, 2: 4.0}, 0.0
    for worker in ORDER:
        g = read[worker]
        square = 0.95 * square + 0.05 * g**2
        x -= 0.1 * (g + 2.0 / math.sqrt(square + 1e-7) * g * g * (x - read[worker]))
        read[worker] = x
    assert driver.x == pytest.approx(x, rel=1e-12)


def test_one_worker_is_plain_sgd():
    for adaptive in (True, False):
        driver = start(workers=1, method_options={"adaptive": adaptive})
        driver.answers([0] * 5)
        assert driver.x == 4.0 / 2**5


def test_the_action_carries_the_correction():
    state = start().state
    expected = Apply(StepSize(0.5, 0.5), 0.5, None, Compensate(2.0, 0.95, 1e-7))
    assert expected in state.handle(Arrival(0, 0, 0, 1.0, 1, 1.0, 9.0))
    state = start(method_options={"adaptive": False}).state
    assert Apply(StepSize(0.5, 0.5), 0.5) in state.handle(Arrival(0, 0, 0, 1.0, 1, 1.0, 9.0))
    expected = Apply(StepSize(0.5, 0.5), 0.5, None, Compensate(0.04, None, 1e-7))
    assert expected in state.handle(Arrival(1, 1, 0, 1.0, 1, 1.0, 9.0))


@pytest.mark.parametrize("rule", ["staleness_aware", "drop", "scale"])
def test_rule_has_no_effect(rule):
    driver = start(x=0.0, rule=rule)
    driver.answers([0] * 9 + [1])
    assert driver.column("step_size") == [0.5] * 10


def test_death_newcomer_and_not_finite():
    driver = start()
    driver.answer(0, finite=False)
    assert (driver.rows[-1].action, driver.state.version, driver.mean_square) == ("discard", 0, 0.0)
    driver.leave(0)
    driver.answers([1, 1])
    driver.join(5)
    driver.leave(1)
    driver.answers([5, 5])
    assert driver.state.version == 4


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"strength": -1}, "method.options.strength = -1: allowed is a finite number of at least 0"),
        ({"strength": float("inf")}, "allowed is a finite number of at least 0"),
        ({"strength": True}, "method.options.strength = True"),
        ({"decay": 1}, "method.options.decay = 1: allowed is a number from 0 to below 1"),
        ({"decay": "a"}, "method.options.decay = 'a'"),
        ({"adaptive": 1}, "method.options.adaptive = 1: allowed: true, false"),
    ],
)
def test_refuses(options, sentence):
    with pytest.raises(ConfigError) as error:
        make_method("dc_asgd", options)
    assert sentence in str(error.value)
