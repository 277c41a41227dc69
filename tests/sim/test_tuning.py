"""The grid, and the means, errors and marks that make a tuning of the simulations' results; by hand."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from asgd.errors import ConfigError
from asgd.sim.tune import octaves
from asgd.sim.tuning import Cell, Goal, make_tuning


def test_octaves_are_powers_of_two_within_the_range_ends_included():
    assert octaves(0.125, 2.0, 1) == [0.125, 0.25, 0.5, 1.0, 2.0]
    assert octaves(0.01, 2, 3)[-1] == 2.0
    assert [round(s, 3) for s in octaves(0.19, 3.2, 3)] == [
        0.198, 0.25, 0.315, 0.397, 0.5, 0.63, 0.794, 1.0, 1.26, 1.587, 2.0, 2.52, 3.175,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [((0.0, 1.0, 3), "--from 0"), ((2.0, 1.0, 3), "--to 1"), ((1.1, 1.2, 1), r"no 2\^\(k/1\)"), ((1, 2, 0), "octave")],
)
def test_octaves_refuse(arguments, sentence):
    with pytest.raises(ConfigError, match=sentence):
        octaves(*arguments)


def cell(step_size, seed, score, diverged=False, gradients=100, discarded=0):
    return Cell(
        values={"method.step_size": step_size}, seed=seed, score=score, diverged=diverged, versions=90,
        gradients=gradients, discarded=discarded, time_s=1.0,
    )  # fmt: skip


def put_together(cells, goal=None, step_sizes=(0.1, 0.2, 0.4), seeds=(0, 1)):
    return make_tuning({}, goal or Goal(), {"method.step_size": list(step_sizes)}, list(seeds), cells)


def test_means_errors_and_the_best_by_hand():
    cells = [
        cell(0.4, 1, None, diverged=True), cell(0.4, 0, 0.1), cell(0.2, 1, 2.0, discarded=50), cell(0.2, 0, 1.0),
        cell(0.1, 0, 3.0), cell(0.1, 1, 3.0),
    ]  # fmt: skip
    tuning = put_together(cells)
    assert tuning.complete and tuning.overrides == ["method.step_size=0.2"]
    assert [warning.split(",")[0] for warning in tuning.warnings] == [
        "the best score is the best of 3 points with seeds 0 to 1"
    ]
    third, second = tuning.rows[0], tuning.rows[1]
    assert (second.score, second.standard_error, second.best) == (1.5, pytest.approx(0.5), True)
    assert (second.discarded_share, second.versions) == (0.25, 90)
    assert (third.score, third.standard_error, third.best) == (3.0, 0.0, False)
    worst = tuning.rows[2]
    assert (worst.score, worst.diverged, worst.best) == (None, 1, False), "one run that diverges makes it the worst"
    assert put_together(reversed(cells)) == tuning, "the order in which simulations end doesn't matter"


def test_cancelled_jobs_are_part_of_all_that_ended():
    cells = [replace(cell(0.2, seed, 1.0, gradients=30, discarded=90), used=30) for seed in (0, 1)]
    (row,) = put_together(cells, step_sizes=[0.2]).rows
    assert row.discarded_share == 0.75


def test_the_best_step_size_for_each_value_of_another_key():
    scores = {("a", 0.1): 3.0, ("a", 0.2): 2.0, ("b", 0.1): 1.0, ("b", 0.2): None}
    cells = [
        Cell(values={"method.name": name, "method.step_size": step_size}, seed=0, score=score, diverged=score is None,
             versions=1, gradients=1, discarded=0, time_s=1.0)
        for (name, step_size), score in scores.items()
    ]  # fmt: skip
    rows = make_tuning({}, Goal(), {"method.name": ["a", "b"], "method.step_size": [0.1, 0.2]}, [0], cells).rows
    assert [row.score for row in rows] == [3.0, 2.0, 1.0, None]
    assert [row.best_step_size for row in rows] == [False, True, True, False]
    assert [row.best for row in rows] == [False, False, True, False]


def test_accuracy_is_better_when_it_is_higher_and_its_time_when_it_is_lower():
    cells = [cell(s, seed, s) for s in (0.1, 0.2, 0.4) for seed in (0, 1)]
    goal = Goal(metric="test_accuracy")
    assert put_together(cells, goal).best.values == {"method.step_size": 0.4} and "higher is better" in str(goal)
    goal = Goal(metric="test_accuracy", score="time", target=0.5)
    assert put_together(cells, goal).best.values == {"method.step_size": 0.1} and "lower is better" in str(goal)
    assert goal.reached(0.6) and not goal.reached(0.4)


def test_a_best_at_the_edge_a_grid_without_a_best_and_points_that_are_not_complete():
    cells = [cell(s, seed, s) for s in (0.1, 0.2, 0.4) for seed in (0, 1)]
    assert put_together(cells).warnings[0] == (
        "the best method.step_size = 0.1 is the smallest that was tried: the grid should be extended"
    )
    nothing = put_together([cell(s, seed, None) for s in (0.1, 0.2, 0.4) for seed in (0, 1)])
    assert nothing.best is None and nothing.overrides == [] and "no best" in nothing.warnings[0]
    assert nothing.rows[0].missed == 2
    part = put_together(cells[1:])
    assert not part.complete and part.rows[0].seeds == 1 and part.best.values == {"method.step_size": 0.2}
