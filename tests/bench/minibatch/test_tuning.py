"""Tuning: what is ranked first, when the grid grows for all, and what is confirmed for real."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.benchmark import Runner, Simulator, plan_of, record_of
from msgspec.structs import replace

from asgd.bench.minibatch.results import Cell
from asgd.bench.minibatch.study import Study
from asgd.bench.minibatch.tuning import Rank, choose, confirmed, edge_of, other_edges, rank
from asgd.run.signals import StopRequests
from asgd.sim.tuning import STEP_SIZE, Goal

TIME = Goal(metric="test_loss", score="time", target=0.1)
FINAL = Goal(metric="test_loss")
ACCURACY = Goal(metric="test_accuracy")


def cell(score, final=None, diverged=False):
    return Cell(
        setting="equal", contender="minibatch", values={}, seed=0, score=score, final=final, diverged=diverged,
        gradients=1, time_s=1.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("better", "worse", "goal"),
    [
        ([cell(1.0), cell(2.0)], [cell(1.0), cell(3.0)], TIME),
        ([cell(9.0), cell(9.0)], [cell(1.0), cell(None, 0.11)], TIME),  # all seeds must reach the target
        ([cell(1.0), cell(None, 0.5)], [cell(None, 0.11), cell(None, 0.11)], TIME),
        ([cell(None, 0.2)], [cell(None, 0.3)], TIME),
        ([cell(None, 9.0)], [cell(None, None, diverged=True)], TIME),
        ([cell(0.1)], [cell(0.2)], FINAL),
        ([cell(0.9)], [cell(0.8)], ACCURACY),
        ([cell(0.9), cell(0.1)], [cell(0.95), cell(None, diverged=True)], ACCURACY),
        ([cell(None, 1.0)], [cell(None, None)], TIME),  # its last values weren't finite
    ],
)
def test_the_better_point_comes_first(better, worse, goal):
    assert rank(better, goal) < rank(worse, goal)


def tuned(plan, best, folder):
    record = record_of(plan)
    simulator = Simulator(best, limit_s=plan.config.budget.time_s)
    study = Study(plan, record, folder, Path(), jobs=1, stops=StopRequests(), runner=Runner(), simulator=simulator)
    study._tune()
    return record, simulator


def test_everybody_has_every_point_and_seed(tmp_path):
    plan = plan_of()
    record, simulator = tuned(plan, 0.5, tmp_path)
    grid = [0.25, 0.5, 1.0, 2.0]
    expected = {(name, size, seed) for name in ("asynchronous", "minibatch") for size in grid for seed in (0, 1)}
    assert set(simulator.asked) == expected and len(simulator.asked) == len(expected)
    choice = choose(plan, record, "half_slower", plan.contenders[0])
    assert choice.values == {STEP_SIZE: 0.5} and edge_of(choice.grid, choice.values) is None and choice.grid == grid
    assert [values[STEP_SIZE] for values in choice.candidates] == [0.5, 0.25, 1.0]
    assert choice.rank == Rank(0, 0, 1.005)
    assert choice.confirm_s == pytest.approx(1.5 * 1.005, abs=1e-3)


@pytest.mark.parametrize(("best", "edge", "grid"), [(0.01, "smallest", [0.125, 2.0]), (50.0, "largest", [0.25, 4.0])])
def test_the_grid_grows_for_all_and_then_the_edge_is_told(tmp_path, best, edge, grid):
    plan = plan_of("budget.time_s=1000.0")  # or the target would be missed far from the best
    record, simulator = tuned(plan, best, tmp_path)
    for contender in plan.contenders:
        choice = choose(plan, record, "half_slower", contender)
        assert (edge_of(choice.grid, choice.values), [choice.grid[0], choice.grid[-1]]) == (edge, grid)
        assert len(choice.candidates) == 2
    names = [name for name, size, _ in simulator.asked if size not in (0.25, 0.5, 1.0, 2.0)]
    assert sorted(names) == ["asynchronous"] * 2 + ["minibatch"] * 2


def test_what_is_tuned_along_is_tuned_for_all(tmp_path):
    plan = plan_of(also={"optimizer.momentum": [0.0, 0.5]})
    record, simulator = tuned(plan, 0.5, tmp_path)
    assert len(simulator.asked) == 2 * 2 * 4 * 2
    choice = choose(plan, record, "half_slower", plan.contenders[1])
    assert {values["optimizer.momentum"] for values in choice.candidates} == {choice.values["optimizer.momentum"]}


def test_an_edge_of_another_combination_is_told_and_the_grid_not_widened_for_it(tmp_path):
    plan = plan_of(also={"optimizer.momentum": [0.0, 0.5]})
    record, _ = tuned(plan, 0.5, tmp_path)
    contender = plan.contenders[0]
    assert other_edges(plan, record, "half_slower", contender) == []
    for i, known in enumerate(record.cells):  # with momentum, the largest step size is best
        if known.values["optimizer.momentum"] == 0.5 and known.score is not None:
            record.cells[i] = replace(known, score=9.0 - known.values[STEP_SIZE])
    record.__dict__.pop("_cells")
    edge = {"optimizer.momentum": 0.5, STEP_SIZE: 2.0}
    assert other_edges(plan, record, "half_slower", contender) == [edge]
    assert choose(plan, record, "half_slower", contender).grid == [0.25, 0.5, 1.0, 2.0]


def test_the_best_of_the_confirming_runs_is_taken(tmp_path):
    plan = plan_of()
    record, _ = tuned(plan, 0.5, tmp_path)
    contender = plan.contenders[0]
    study = Study(
        plan, record, tmp_path, Path(), jobs=1, stops=StopRequests(), runner=Runner(best=1.0), simulator=Simulator()
    )
    study.run()
    choice = choose(plan, record, "half_slower", contender)
    runs = [record.run("confirm", "half_slower", contender.key, values, 0) for values in choice.candidates]
    assert choice.values == {STEP_SIZE: 0.5}
    assert confirmed(choice, runs, plan.protocol.goal) == {STEP_SIZE: 1.0}
    assert {run.values[STEP_SIZE] for run in record.measured("half_slower", contender.key)} == {1.0}
