"""One simulation, scored: against the stability limit, by hand, and against a run's own evaluations."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
from helpers.tuning import CONFIG, LIMIT, NOISY

from asgd.api import simulate
from asgd.config import load_config
from asgd.learn.task import load_task
from asgd.sim.measure import measure
from asgd.sim.tuning import Goal


def measured(goal, *overrides):
    """One simulation in this process."""
    config = load_config(CONFIG, overrides)
    task = load_task(config.task.function, config.task.options, Path("data"), config.seed, False)
    return measure(config, task, goal)


def of_step_size(goal, step_size, *overrides):
    return measured(goal, f"method.step_size={step_size}", *overrides)


def test_step_sizes_below_the_stability_limit_converge_and_those_above_diverge():
    goal = Goal(metric="suboptimality")
    scores = {factor: of_step_size(goal, factor * LIMIT) for factor in (0.2, 0.5, 0.9, 1.1, 1.6, 1e30)}
    assert [factor for factor, cell in scores.items() if cell.diverged] == [1.1, 1.6, 1e30]
    assert all(cell.score is None for cell in scores.values() if cell.diverged)
    assert scores[0.5].score < scores[0.9].score < 0.1
    assert scores[1.6].versions < 400, "it is ended early"


def test_the_final_score_is_the_mean_of_the_last_tenth(tmp_path):
    goal, overrides = Goal(metric="suboptimality"), [*NOISY, "evaluation.every_versions=2"]
    run = simulate(CONFIG, overrides, run_dir=tmp_path / "run")
    last = [row.results["suboptimality"] for row in run.metrics if row.version >= 54]
    assert len(last) == 4
    cell = measured(goal, *overrides)
    assert cell.score == pytest.approx(statistics.fmean(last), rel=1e-12)
    assert (cell.versions, cell.gradients, cell.discarded, cell.time_s) == (60, 60, 0, run.summary.wall_s)


def test_a_model_without_updates_in_the_last_tenth_counts_as_it_was_left():
    """Mini-batch of workers of 1 s and 4 s: the only updates are after 4 and 8 s of 11."""
    overrides = ["cluster.speeds.profile=half_slower", "budget.versions=0", "budget.time_s=11"]
    cell = measured(Goal(metric="suboptimality"), "method.name=minibatch", *overrides)
    # x -> (1 - 0.1 * 2) x, twice, from x = 1 in 3 dimensions; f = 2 x^2 / 2 in each
    assert cell.versions == 2 and cell.score == pytest.approx(3 * 0.8**4, rel=1e-5)


def test_time_and_gradients_to_a_target(tmp_path):
    overrides = ["evaluation.every_versions=1"]
    run = simulate(CONFIG, overrides, run_dir=tmp_path / "run")
    first = next(row for row in run.metrics if row.results["suboptimality"] <= 0.01)
    by_time = measured(Goal(metric="suboptimality", score="time", target=0.01), *overrides)
    by_gradients = measured(Goal(metric="suboptimality", score="gradients", target=0.01), *overrides)
    assert (by_time.score, by_gradients.score) == (first.time_s, first.version)
    assert by_time.versions == first.version < 400, "it ends there"
    missed = measured(Goal(metric="suboptimality", score="time", target=-1.0), *overrides)
    assert missed.score is None and not missed.diverged and missed.versions == 400
