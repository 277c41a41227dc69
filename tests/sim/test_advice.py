"""The advice for speeds where it is known what is right, and how it is put."""

from __future__ import annotations

from itertools import pairwise

import pytest
from helpers.predictions import predicted_once

from asgd.errors import ConfigError
from asgd.sim.advice import Noise, advise_on
from asgd.sim.contenders import MINIBATCH, best_options, named_first, predicted, regimes_of

pytestmark = pytest.mark.usefixtures("known_speeds")


def advice_for(seconds, noise=None, **other):
    return advise_on({worker: [one] for worker, one in enumerate(seconds)}, noise, **other)


def test_equal_workers_need_no_asynchrony():
    advice = advice_for([0.2] * 8, 8.0)
    assert advice.best == MINIBATCH and advice.methods[0].label == MINIBATCH
    assert advice.asynchronous_per_s == pytest.approx(advice.minibatch_per_s) == pytest.approx(40.0)
    assert "0% of the workers' time unused" in advice.why


def test_half_slower_is_for_asynchronous_methods():
    advice = advice_for([0.15] * 4 + [0.6] * 4, 30.0)
    assert advice.asynchronous_per_s / advice.minibatch_per_s == pytest.approx(2.5)
    assert advice.best.startswith("asynchronous")
    gain = 1 / next(one for one in advice.methods if one.name == advice.best).relative_time
    assert 2.0 < gain < 3.5  # 2.5 by the speeds; claim 4 measures 2.52
    assert advice.sentence.startswith(f"Use {advice.best}: predicted {gain:.2f} times as fast as mini-batch")


def test_one_straggler_without_noise_is_for_leaving_it_out():
    advice = advice_for([1.0] * 5 + [20.0], 0.5)
    assert advice.methods[0].label == "m-synchronous, m = 5"
    assert advice.methods[0].overrides == [
        'method.name="m_synchronous"', 'method.rule="scale"', "method.options.m=5"
    ]  # fmt: skip


def test_one_worker_is_plain_sgd_whatever_the_method():
    advice = advice_for([0.3], 4.0)
    assert advice.best == MINIBATCH and "one worker waits for nobody" in advice.why
    assert advice.optimal == pytest.approx(1.0)
    assert {one.name: one.relative_time for one in advice.methods}["asynchronous"] == pytest.approx(1.0, rel=0.01)


def test_every_method_is_there_once_and_in_order():
    advice = advice_for([1.0, 1.0, 1.3, 6.0], 4.0)
    methods = advice.methods
    names = [one.name for one in methods]
    assert sorted(names) == sorted(
        ["mini-batch", "m-synchronous", "asynchronous", "asynchronous, constant steps", "Ringmaster", "Rennala"]
    )
    assert [one.relative_time for one in methods] == sorted(one.relative_time for one in methods)
    assert all(1 / one.relative_time <= 1.5 / advice.optimal for one in methods)


def test_of_those_that_cannot_be_told_apart_the_simpler_one_is_named():
    found = predicted([[1.0]] * 4)
    fastest = best_options(found, 1e9)  # noise alone: all that use every gradient are the same
    assert named_first(fastest, 1e9).name == MINIBATCH


def test_regimes_go_on_where_the_last_one_ends():
    regimes = regimes_of(predicted_once([[1.0], [1.0], [1.3], [6.0]]))
    assert regimes[0].low is None and regimes[-1].high is None and len(regimes) > 1
    assert all(one.high == two.low and one.name != two.name for one, two in pairwise(regimes))


def test_uncertain_noise_is_told_where_it_matters():
    seconds = [1.0, 1.0, 1.3, 6.0]
    regimes = regimes_of(predicted_once([[one] for one in seconds]))
    edge = regimes[0].high
    sure, unsure = (
        advice_for(seconds, Noise(ratio=edge * 2, source="estimated", low=edge * low, high=edge * 2.2))
        for low in (1.9, 0.2)
    )
    assert not any("within the interval" in warning for warning in sure.warnings)
    assert any("within the interval" in warning for warning in unsure.warnings)


def test_without_a_noise_one_is_assumed_and_told():
    advice = advice_for([1.0, 2.0])
    assert (advice.noise.ratio, advice.noise.source) == (2.0, "assumed")
    assert any("isn't known" in warning for warning in advice.warnings)


def test_seconds_are_in_proportion():
    advice = advice_for([1.0, 2.0], 2.0, seconds_of=lambda unit: 100.0)
    assert {one.name: one.seconds for one in advice.methods}[MINIBATCH] == pytest.approx(100.0)
    assert all(one.seconds == pytest.approx(100.0 * one.relative_time) for one in advice.methods)


@pytest.mark.parametrize("noise", [-1.0, float("nan"), float("inf")])
def test_noises_that_are_none_are_refused(noise):
    with pytest.raises(ConfigError, match="--noise"):
        advice_for([1.0], noise)
