"""The check of the advice: its settings, its counting, and a small one that is run."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from asgd.bench import advice
from asgd.bench.advice import Case, Measured, Setting, check_case, checked, random_setting, speeds_of
from asgd.errors import ConfigError
from asgd.sim.result_files import encode_result


def test_settings_are_in_their_ranges_and_of_both_kinds():
    settings = [random_setting(seed) for seed in range(60)]
    assert settings == [random_setting(seed) for seed in range(60)]
    assert all(min(one.seconds) == 1.0 and max(one.seconds) <= 30.0 and 1.0 <= one.noise <= 128.0 for one in settings)
    classes = [one for one in settings if 1 < len(set(one.seconds)) <= 2 < len(one.seconds)]
    assert 10 < len(classes) < 50
    assert max(max(random_setting(seed, 2.0).seconds) for seed in range(60)) <= 2.0


def test_times_vary_around_their_mean_by_the_seed():
    end = speeds_of(Setting([1.0, 3.0], 0.5, 1.0), seed=4)
    times = np.array([end(1, job, 0.0) for job in range(4000)])
    assert times.mean() == pytest.approx(3.0, rel=0.03)
    assert np.log(times).std() == pytest.approx(0.5, rel=0.05)
    assert end(1, 7, 2.0) == 2.0 + times[7]
    assert speeds_of(Setting([1.0, 3.0], 0.0, 1.0), seed=4)(1, 0, 1.0) == 4.0


def case(named, *measured):
    by_label = {one.label: one.seconds for one in measured}
    best = min((label for label in by_label if by_label[label] is not None), key=by_label.get)
    predicted = {"mini-batch": 1.0, named: 0.5} | ({"mini-batch": 1.0} if named == "mini-batch" else {})
    setting = Setting([1.0, 2.0], 0.0, 1.0)
    return Case(0, setting, named, predicted, list(measured), best, by_label[named] / by_label[best])


def test_right_is_within_10_percent_and_what_always_the_same_would_have_been():
    def measured(minibatch, asynchronous, constant):
        seconds = {"mini-batch": minibatch, "asynchronous": asynchronous, "asynchronous, constant steps": constant}
        return [Measured(label, 0.1, one) for label, one in seconds.items()]

    cases = [case("asynchronous", *measured(10.0, 5.0, 4.6)), case("asynchronous", *measured(6.0, 8.0, None))]
    result = checked(0, 30.0, cases)
    assert (result.right, result.right_of_first_10) == (1, 1)
    assert result.always == {"mini-batch": 1, "asynchronous": 1, "asynchronous, constant steps": 1}
    assert result.gains == [0.375, 1.0, 1.0]  # gains of 0.75 and 2, both predicted as 2


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(ConfigError, match="no result of asgd bench advice"):
        advice.run(1, 0, print, tmp_path / "a.json")
    (tmp_path / "b.json").write_bytes(encode_result(checked(5, 30.0, [])))
    with pytest.raises(ConfigError, match="made with seed = 5"):
        advice.run(1, 0, print, tmp_path / "b.json")
    with pytest.raises(ConfigError, match="--factor"):
        advice.run(1, 0, print, factor=0.5)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_named_first_is_within_10_percent_where_the_choice_matters(tmp_path):
    """Workers alike, one straggler, and half of them slower; what is kept is not run again."""
    settings = {
        "mini-batch": Setting([1.0] * 4, 0.0, 4.0),
        "m-synchronous, m = 5": Setting([1.0] * 5 + [20.0], 0.0, 0.5),
        "asynchronous, constant steps": Setting([1.0] * 3 + [3.0] * 3, 0.0, 6.0),
    }
    cases = [check_case(seed, setting) for seed, setting in enumerate(settings.values())]
    assert all(one.is_right for one in cases), [(one.named, one.best, one.ratio) for one in cases]
    assert [one.named for one in cases] == list(settings)
    kept = tmp_path / "kept.json"
    kept.write_bytes(encode_result(checked(0, 30.0, cases)))
    again = advice.run(3, 0, lambda line: pytest.fail(line), kept)
    assert msgspec.json.encode(again) == msgspec.json.encode(checked(0, 30.0, cases))
