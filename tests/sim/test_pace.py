"""The pace of methods at given times, where it can be computed by hand."""

from __future__ import annotations

import pytest

from asgd.errors import ConfigError
from asgd.sim.pace import measure_pace

HALF_SLOWER = [[1.0]] * 4 + [[4.0]] * 4


def test_asynchronous_goes_by_the_sum_of_speeds():
    pace = measure_pace(HALF_SLOWER, "asynchronous")
    assert 1 / pace.update_s == pytest.approx(5.0, rel=0.01)
    assert pace.mean_delay == pytest.approx(7.0, abs=0.1)  # n - 1, whatever the speeds
    assert pace.discarded_share == 0.0 and pace.batch == 1.0


def test_minibatch_goes_by_the_slowest():
    pace = measure_pace(HALF_SLOWER, "minibatch")
    assert pace.update_s == pytest.approx(4.0, rel=0.01) and pace.batch == pytest.approx(8.0, rel=0.02)
    assert (pace.damping, pace.spread, pace.mean_delay) == (1.0, 1.0, 0.0)


def test_m_synchronous_goes_by_the_m_th():
    pace = measure_pace(HALF_SLOWER, "m_synchronous", options={"m": 4})
    assert pace.update_s == pytest.approx(1.0, rel=0.01)


def test_ringmaster_leaves_the_slow_ones_out_by_its_threshold():
    pace = measure_pace(HALF_SLOWER, "ringmaster", options={"R": 4})
    assert 1 / pace.update_s == pytest.approx(4.0, rel=0.01)
    assert pace.discarded_share == pytest.approx(0.2, abs=0.01)


def test_rennala_loses_the_answers_that_are_under_way_at_a_step():
    """All but that of the worker whose answer made it: 15 answers for a step of 8."""
    pace = measure_pace([[1.0]] * 8, "rennala", options={"batch": 8})
    assert pace.update_s == pytest.approx(15 / 8, rel=0.02)


def test_a_rule_that_shortens_late_gradients_weighs_them_unequally():
    scaled, constant = (measure_pace([[1.0]] * 7 + [[30.0]], "asynchronous", rule) for rule in ("scale", "constant"))
    assert scaled.spread > 1.0 == constant.spread
    assert scaled.mean_delay == constant.mean_delay


def test_the_same_twice_and_varying_times_are_drawn_by_the_seed():
    times = [[0.5, 1.5], [1.0, 2.0]]
    assert measure_pace(times, "minibatch", seed=1) == measure_pace(times, "minibatch", seed=1)
    assert measure_pace(times, "minibatch", seed=1) != measure_pace(times, "minibatch", seed=2)
    assert measure_pace(times, "minibatch").update_s == pytest.approx((1.5 + 2 + 1 + 2) / 4, rel=0.03)


def test_an_unknown_method_is_refused():
    with pytest.raises(ConfigError, match="no such method"):
        measure_pace([[1.0]], "nonsense")
