"""Studies: where a curve first meets, and stays below, its target, by hand; tuning; when a study stops."""

from __future__ import annotations

import numpy as np
import pytest

from asgd.errors import ConfigError
from asgd.sim.problems import diagonal
from asgd.sim.study import Curve, run_study, study_config, tuned, until_below, until_mean_below
from asgd.sim.tune import octaves

INF = np.inf


def curve():
    """Two step sizes, one seed: points at versions 0, 1, 3, 4."""
    points = [(0.0, 0, 0, 8.0, 8.0), (0.5, 1, 2, 2.0, 6.0), (2.0, 3, 4, 5.0, 4.0), (4.0, 4, 7, 1.0, INF)]
    return Curve(
        [0.1, 0.2],
        times_s=[point[0] for point in points],
        versions=[point[1] for point in points],
        gradients=[point[2] for point in points],
        norms=[np.array([[point[3]], [point[4]]]) for point in points],
    )


def test_first_in_seconds_updates_and_gradients():
    assert curve().first_ER(4.0).ravel().tolist() == [0.5, 2.0]
    assert curve().first_ER(4.0, "versions").ravel().tolist() == [1.0, 3.0]
    assert curve().first_ER(4.0, "gradients").ravel().tolist() == [2.0, 4.0]
    assert curve().first_ER(3.0).ravel().tolist() == [0.5, INF]
    assert curve().first_ER(8.0).ravel().tolist() == [0.0, 0.0]


def test_first_of_the_mean_over_all_updates():
    # Member 0: 8, (8 + 2)/2 = 5, (8 + 2 + 2 * 5)/4 = 5, (20 + 1)/5 = 4.2; a point stands for the updates before it.
    for eps, expected in [(8.0, 0.0), (5.0, 1.0), (4.9, 4.0), (4.2, 4.0), (4.1, INF)]:
        assert curve().first_mean_ER(eps)[0, 0] == expected
    # Member 1: 8, 7, 22/4 = 5.5, and then it has diverged.
    for eps, expected in [(7.0, 1.0), (5.5, 3.0), (5.4, INF)]:
        assert curve().first_mean_ER(eps)[1, 0] == expected


def test_from_where_on_it_stays_below():
    assert curve().below_ER(4.0).ravel().tolist() == [4.0, INF]
    assert curve().below_ER(5.0).ravel().tolist() == [1.0, INF]
    assert curve().below_ER(0.5).ravel().tolist() == [INF, INF]
    assert curve().below_ER(5.0, "times_s")[0, 0] == 0.5


def test_tuned_by_the_mean_over_the_seeds():
    needed_ER = np.array([[9.0, 9.0], [5.0, 7.0], [INF, 1.0]])
    best = tuned([0.1, 0.2, 0.4], needed_ER)
    assert best.step_size == 0.2 and best.values_R.tolist() == [5.0, 7.0] and best.mean == 6.0 and not best.at_edge
    assert tuned([0.1, 0.2], needed_ER[1:]).at_edge and tuned([0.1, 0.2], needed_ER[:2]).at_edge


def test_the_grid_is_the_powers_of_two_between_its_ends():
    assert octaves(0.5, 1.0, 3) == [2.0 ** (k / 3) for k in (-3, -2, -1, 0)]
    assert octaves(0.51, 0.99, 3) == [2.0 ** (k / 3) for k in (-2, -1)]


def test_a_study_of_gradient_descent_by_hand():
    config = study_config("asynchronous", 1, budget={"versions": 10})
    study = run_study(config, diagonal([1.0], start=1.0), [0.5, 0.25], seeds_R=[0, 1])
    norms_TER = np.stack(study.curve.norms)
    assert norms_TER.shape == (11, 2, 2) and study.end_s == 10.0
    for e, factor in enumerate([0.25, 0.5625]):
        assert norms_TER[:, e, 0] == pytest.approx([factor**t for t in range(11)], rel=1e-5)
    assert np.array_equal(norms_TER[:, :, 0], norms_TER[:, :, 1])  # without noise seeds make no difference
    assert study.curve.first_ER(0.1).ravel().tolist() == [2.0, 2.0, 5.0, 5.0]


def test_points_every_so_many_gradients():
    config = study_config("minibatch", 2, budget={"versions": 6})
    study = run_study(config, diagonal([1.0]), [0.5], [0], every=4)
    assert study.curve.gradients == [0, 4, 8, 12] and study.curve.versions == [0, 2, 4, 6]
    assert study.curve.times_s == [0.0, 2.0, 4.0, 6.0]


def test_until_below_goes_on_for_a_quarter_after_the_first():
    config = study_config("asynchronous", 1, budget={"versions": 10_000})
    # ||grad||^2 = 0.81^t: 1e-4 at 43.7, and a quarter more is 55.
    study = run_study(config, diagonal([1.0]), [0.1, 1e-4], [0], done=until_below(1e-4))
    assert study.curve.first_ER(1e-4).ravel().tolist() == [44.0, INF]
    assert study.end_s == 55.0 and study.state.finished.reason == "the target is reached"


def test_until_mean_below_waits_for_all_that_have_not_diverged():
    config = study_config("asynchronous", 1, budget={"versions": 10_000})
    eps = 0.05
    study = run_study(config, diagonal([1.0]), [0.5, 0.1, 40.0], [0], done=until_mean_below(eps))
    first, second, diverged = study.curve.first_mean_ER(eps).ravel()
    assert first < second == study.state.version < 200 and diverged == INF


def test_the_configuration_of_a_study():
    config = study_config("fedasync", 3, speeds={"profile": "linear"}, budget={"gradients": 5}, seed=4)
    assert config.method.step_size == 1.0 and config.method.local_steps == 1 and config.seed == 4
    assert (config.cluster.speeds.profile, config.cluster.speeds.seconds) == ("linear", 1.0)
    assert study_config(budget={"versions": 1}).method.rule == "scale"
    with pytest.raises(ConfigError, match="nonsense"):
        study_config(rule="nonsense", budget={"versions": 1})


def test_the_trace_is_kept_when_asked_for():
    config = study_config("asynchronous", 2, budget={"versions": 4})
    assert run_study(config, diagonal([1.0]), [0.1], [0]).rows == []
    kept = run_study(config, diagonal([1.0]), [0.1, 0.2], [0, 1], keep_rows=True).rows
    assert [row.delay for row in kept] == [0, 1, 1, 1]
