"""One table over all step-size rules; what every rule must do; what make_rule refuses."""

from __future__ import annotations

import doctest
import math

import pytest
from helpers.core_driver import Driver, make_state
from hypothesis import given
from hypothesis import strategies as st

from asgd.core import step_rules
from asgd.core.schedules import Schedule
from asgd.core.step_rules import RULES, make_rule, takes, wu_adaptive_1, wu_adaptive_2
from asgd.errors import ConfigError

# rule, options, step_size, delay, concurrency, expected: worked out by hand from the formulas
TABLE = [
    ("constant", {}, 0.1, 0, 1, 0.1),
    ("constant", {}, 0.1, 1000, 4, 0.1),
    ("scale", {}, 0.1, 4, 4, 0.1),
    ("scale", {}, 0.1, 5, 4, 0.08),
    ("scale", {}, 0.1, 40, 4, 0.01),
    ("theory", {"smoothness": 1.0}, 0.1, 4, 4, 0.1),
    ("theory", {"smoothness": 1.0}, 0.1, 5, 4, 0.05),
    ("theory", {"smoothness": 0.25}, 0.1, 5, 4, 0.1),
    ("drop", {}, 0.1, 8, 4, 0.1),
    ("drop", {}, 0.1, 9, 4, 0.0),
    ("drop", {"k": 1}, 0.1, 4, 4, 0.1),
    ("drop", {"k": 1}, 0.1, 5, 4, 0.0),
    ("staleness_aware", {}, 0.1, 0, 4, 0.1),
    ("staleness_aware", {}, 0.1, 1, 4, 0.1),
    ("staleness_aware", {}, 0.1, 5, 4, 0.02),
    ("mishchenko", {"num_workers": 2}, 0.1, 2, 4, 0.1),
    ("mishchenko", {"num_workers": 2}, 0.1, 4, 4, 0.05),
    ("mishchenko", {"num_workers": 8}, 0.1, 8, 4, 0.1),
    ("adadelay", {}, 0.1, 0, 4, 0.1),
    ("adadelay", {}, 0.3, 25, 4, 0.2),
    ("adadelay", {"c": 2}, 0.1, 4, 4, 0.02),
    ("wu_adaptive_1", {}, 0.1, 7, 4, 0.09),
    ("wu_adaptive_1", {"alpha": 0.5}, 0.1, 0, 4, 0.05),
    ("wu_adaptive_2", {}, 0.1, 0, 4, 0.1),
    ("wu_adaptive_2", {}, 0.1, 4, 4, 0.02),
]
OPTIONS = {"theory": {"smoothness": 2.0}, "mishchenko": {"num_workers": 5}, "wu_adaptive_1": {"alpha": 1}}


@pytest.mark.parametrize(("name", "options", "step_size", "delay", "concurrency", "expected"), TABLE)
def test_value(name, options, step_size, delay, concurrency, expected):
    assert make_rule(name, options)(step_size, delay, concurrency) == pytest.approx(expected, rel=1e-15, abs=0.0)


def test_table_covers_every_rule():
    assert {row[0] for row in TABLE} == set(RULES)


@pytest.mark.parametrize("name", RULES)
@given(step_size=st.floats(1e-9, 1e3), delay=st.integers(0, 10**6), concurrency=st.integers(1, 10**4))
def test_never_longer_than_scheduled_and_untouched_without_delay(name, step_size, delay, concurrency):
    rule = make_rule(name, OPTIONS.get(name))
    assert 0.0 <= rule(step_size, delay, concurrency) <= step_size
    assert rule(step_size, 0, concurrency) == step_size, "bit-equality with plain SGD needs the very same number"
    assert rule(step_size, delay + 1, concurrency) <= rule(step_size, delay, concurrency)


@pytest.mark.parametrize("name", RULES)
@given(delay=st.integers(0, 10**6), version=st.integers(0, 10**9))
def test_only_those_that_ask_see_the_version(name, delay, version):
    rule = make_rule(name, OPTIONS.get(name))
    if takes(rule, "version"):
        assert 0.0 < rule(0.5, delay, 8, version=version) <= rule(0.5, delay, 8)
    else:
        with pytest.raises(TypeError):
            rule(0.5, delay, 8, version=version)


@pytest.mark.parametrize(
    ("rule", "delay", "taken", "expected"),
    [
        (wu_adaptive_1, 2, 0.25, 0.9 * 0.75),
        (wu_adaptive_1, 2, 1.0, 0.0),
        (wu_adaptive_1, 9, 3.0, 0.0),
        (wu_adaptive_2, 1, 0.25, 0.5),
        (wu_adaptive_2, 1, 0.5, 0.5),  # exactly as much is left
        (wu_adaptive_2, 1, 0.51, 0.0),
        (wu_adaptive_2, 3, 0.75, 0.25),
    ],
)
def test_wus_rules_take_from_what_is_left(rule, delay, taken, expected):
    assert rule(1.0, delay, 4, steps_since_read=taken) == expected


@pytest.mark.parametrize("delay", range(1, 60))
def test_equal_delays_settle_where_the_theory_says(delay):
    """From a state in which the last `delay` steps were gamma'/(delay + 1), the next one is the same, whatever the
    rounding; adaptive 1 goes to alpha gamma'/(1 + alpha delay)."""
    steps = [0.1 / (delay + 1)] * delay
    assert wu_adaptive_2(0.1, delay, 4, steps_since_read=math.fsum(steps)) == 0.1 / (delay + 1)
    steps = [0.09 / (1 + 0.9 * delay)] * delay
    assert wu_adaptive_1(0.1, delay, 4, steps_since_read=math.fsum(steps)) == pytest.approx(steps[0], rel=1e-12)


@given(step_size=st.floats(1e-9, 1e3), delay=st.integers(0, 10**6), concurrency=st.integers(1, 10**4))
def test_mishchenko_with_as_many_workers_as_jobs_is_scale(step_size, delay, concurrency):
    rule = make_rule("mishchenko", {"num_workers": concurrency})
    assert rule(step_size, delay, concurrency) == make_rule("scale")(step_size, delay, concurrency)


@given(st.floats(1e-3, 1e3), st.integers(0, 10**6), st.integers(0, 10**6), st.floats(1e-3, 1e3))
def test_adadelay_is_the_papers_formula(step_size, delay, version, c):
    """1/(L + c sqrt(t + tau)) with L = 1/eta; and alpha/(beta + sqrt(t + tau)), as dmlc/wormhole has it."""
    value = make_rule("adadelay", {"c": c})(step_size, delay, 4, version=version)
    assert value == pytest.approx(1.0 / (1.0 / step_size + c / step_size * math.sqrt(version + delay)), rel=1e-12)
    assert value == pytest.approx(step_size / c / (1.0 / c + math.sqrt(version + delay)), rel=1e-12)


def test_a_run_gives_the_rule_the_version_at_which_the_gradient_arrives():
    driver = Driver(make_state("asynchronous", "adadelay", 1.0, workers=2, rule_options={"c": 1}))
    driver.join(0, 1)
    driver.answers([0, 0, 0, 1, 1])
    # version + delay: 0 + 0, 1 + 0, 2 + 0, 3 + 3 (worker 1 had read version 0), 4 + 0
    assert driver.column("step_size") == [1.0, 1 / 2, 1 / (1 + math.sqrt(2)), 1 / (1 + math.sqrt(6)), 1 / 3]


def test_wu_adaptive_1_in_a_run_by_hand():
    """gamma' = 1, alpha = 1/2; the sum is that of the steps since the worker's read version."""
    driver = Driver(make_state("asynchronous", "wu_adaptive_1", 1.0, workers=2, rule_options={"alpha": 0.5}))
    driver.join(0, 1)
    driver.answers([0, 1, 0, 1, 1])
    # sums: 0; 0.5 (worker 1 read version 0); 0.25; 0.375; 0 (it has just read the newest version)
    assert driver.column("step_size") == [0.5, 0.25, 0.375, 0.3125, 0.5]


def test_wu_adaptive_2_in_a_run_by_hand():
    driver = Driver(make_state("asynchronous", "wu_adaptive_2", 1.0, workers=2))
    driver.join(0, 1)
    driver.answers([0, 1, 1, 0, 0])
    # Worker 0 takes all of it; worker 1 finds nothing left, reads the newest version, takes all; and so on.
    assert driver.column("action") == ["apply", "discard", "apply", "discard", "apply"]
    assert driver.column("step_size") == [1.0, None, 1.0, None, 1.0]
    assert driver.rows[1].reason == "dropped by the step-size rule: delay 1, tau_C 2"


@pytest.mark.parametrize("name", ["wu_adaptive_1", "wu_adaptive_2"])
@given(order=st.lists(st.integers(0, 3), max_size=150))
def test_wus_steps_from_reading_to_applying_never_exceed_the_step_size(name, order):
    """The principle of both: sum_{t = k - tau_k}^{k} gamma_t <= gamma', from the trace alone."""
    driver = Driver(make_state("asynchronous", name, 0.1, workers=4, schedule=Schedule(0.1)))
    driver.join(0, 1, 2, 3)
    driver.answers(order)
    steps = [row.step_size for row in driver.rows if row.steps]
    for row in driver.rows:
        if row.steps:
            assert math.fsum(steps[row.read_version : row.version + 1]) <= 0.1 * (1 + 1e-8)
    assert not driver.rows or driver.rows[0].steps


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("scal", {}, "method.rule = 'scal': there is no such step-size rule; allowed: constant, scale"),
        ("scale", {"k": 2.0}, "method.rule_options.k: rule 'scale' has no such option; allowed: none"),
        ("theory", {}, "method.rule_options.smoothness is missing"),
        ("theory", {"smoothness": 0.0}, "allowed is a finite number above 0"),
        ("drop", {"k": 0.5}, "allowed is a finite number at least 1"),
        ("drop", {"k": "many"}, "method.rule_options.k = 'many'"),
        ("drop", {"k": True}, "method.rule_options.k = True"),
        ("drop", {"k": float("nan")}, "method.rule_options.k = nan"),
        ("drop", {"k": float("inf")}, "method.rule_options.k = inf"),
        ("mishchenko", {}, "method.rule_options.num_workers is missing"),
        ("mishchenko", {"num_workers": 0}, "allowed is a finite number at least 1"),
        ("adadelay", {"c": 0}, "method.rule_options.c = 0: allowed is a finite number above 0"),
        ("wu_adaptive_1", {"alpha": 1.5}, "alpha = 1.5: allowed is a finite number above 0 and at most 1"),
        ("wu_adaptive_1", {"alpha": 0}, "alpha = 0: allowed is a finite number above 0 and at most 1"),
        ("wu_adaptive_2", {"steps_since_read": 1.0}, "has no such option; allowed: none"),
        ("adadelay", {"version": 3}, "method.rule_options.version: rule 'adadelay' has no such option; allowed: c"),
    ],
)
def test_refuses(name, options, sentence):
    with pytest.raises(ConfigError) as error:
        make_rule(name, options)
    assert sentence in str(error.value)


def test_examples_run():
    results = doctest.testmod(step_rules)
    assert results.attempted > len(RULES) and results.failed == 0
