"""What can't share one schedule between step sizes is refused in words, or not carried out."""

from __future__ import annotations

import pytest

from asgd.core.actions import Apply, Compensate, StepSize
from asgd.errors import ConfigError
from asgd.sim.ensemble import Ensemble
from asgd.sim.problems import diagonal
from asgd.sim.study import run_study, study_config


@pytest.mark.parametrize("method", ["picky", "dc_asgd", "gap_aware"])
def test_methods_that_look_at_the_parameters(method):
    config = study_config(method, 2, budget={"versions": 5})
    with pytest.raises(ConfigError, match=f"method.name = '{method}': what it does depends on the parameters"):
        run_study(config, diagonal([1.0]), [0.1, 0.2], seeds_R=[0])


def test_an_ensemble_never_leaves_out_a_correction():
    ensemble = Ensemble(diagonal([1.0]), [0.1], seeds_R=[0])
    ensemble.given(0, version=0)
    ensemble.compute(worker=0, job=0)
    with pytest.raises(ValueError, match="can't carry out"):
        ensemble.execute(Apply(StepSize(1.0, 1.0), 1.0, None, Compensate(1.0, None, 1e-7)))


@pytest.mark.parametrize("rule", ["wu_adaptive_1", "wu_adaptive_2"])
def test_wus_rules_scale_with_the_step_size_and_so_can_share_a_schedule(rule):
    def final(step_sizes):
        found = []
        study = study_config("asynchronous", 3, rule=rule, budget={"versions": 40})
        run_study(study, diagonal([1.0]), step_sizes, seeds_R=[0], on_event=lambda now, e: found.append(e.x_ERD.copy()))
        return found[-1]

    both = final([0.1, 0.2])
    assert both[0] == pytest.approx(final([0.1])[0]) and both[1] == pytest.approx(final([0.2])[0])
    assert abs(both[1]).item() < abs(both[0]).item()
