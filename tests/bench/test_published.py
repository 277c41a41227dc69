"""The published setting: its score from rows written by hand, and the search over the grid."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest

from asgd.bench import published
from asgd.config import load_config
from asgd.run.build import validate

SETTING = Path(__file__).parents[2] / "configs" / "least_squares_40.toml"


def run_of(rows, metrics):
    trace = [SimpleNamespace(version=version, steps=steps, samples=samples) for version, steps, samples in rows]
    rows_of_metrics = [SimpleNamespace(version=v, results={published.METRIC: value}) for v, value in metrics]
    return SimpleNamespace(trace=trace, metrics=rows_of_metrics)


def test_the_score_is_the_mean_over_the_last_tenth():
    rows = [(version, 1, 1) for version in range(20)]
    metrics = [(version, float(version)) for version in range(0, 21, 2)]
    assert published.score_of(run_of(rows, metrics), 20) == published.Score(19.0, 19.0)  # versions 18 and 20


def test_cancelled_jobs_count_only_in_the_strict_score():
    """Every second line is a cancelled job: ten given jobs are five answers."""
    rows = [row for version in range(20) for row in ((version, 1, 1), (version + 1, 0, 0))]
    metrics = [(version, float(version)) for version in range(21)]
    score = published.score_of(run_of(rows, metrics), 20)
    assert score.answered == 19.0  # after 18, 19 and 20 answers
    assert score.given == 10.0  # after 19 given jobs (10 answers); 18 or 20 is never where a step was


def test_no_evaluation_in_the_last_tenth_is_no_score():
    assert published.score_of(run_of([(0, 1, 1)], [(0, 1.0)]), 20).answered is None


@pytest.mark.parametrize("lowest_place", [0, 4, 7, 19])
def test_search_ends_between_worse_neighbours(lowest_place):
    tried = []

    def at(place):
        tried.append(place)
        return abs(place - lowest_place) if 0 <= place < 20 else math.inf

    assert published.lowest(at, start=10, stride=3) == lowest_place


def test_search_goes_down_while_everything_diverges():
    assert published.lowest(lambda place: -place if 0 <= place <= 2 else math.inf, start=12, stride=3) == 2


def test_every_contender_can_be_configured():
    for overrides in published.CONTENDERS.values():
        validate(load_config(SETTING, overrides))
