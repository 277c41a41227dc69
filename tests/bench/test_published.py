"""The published setting: its score from rows written by hand, and the search over the grid."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from asgd.bench import published
from asgd.config import load_config
from asgd.errors import ConfigError
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


def valley(monkeypatch, best_step_size, seeds_seen):
    """Instead of real runs: the score is the distance from a step size, in octaves, plus the seed."""

    def run_real(config, overrides):
        resolved = load_config(config, overrides)
        seeds_seen.append(resolved.seed)
        value = abs(math.log2(resolved.method.step_size / best_step_size)) + resolved.seed
        summary = SimpleNamespace(arrivals=10, wall_s=float(1 + resolved.seed))
        return published.Score(value, value), SimpleNamespace(summary=summary, trace=[])

    monkeypatch.setattr(published, "run_real", run_real)


def test_the_seed_that_a_step_size_was_chosen_by_is_not_reported(monkeypatch):
    seen: list[int] = []
    valley(monkeypatch, 0.5, seen)
    result = published.measure(load_config(SETTING), "FedBuff, K = 10", 3, lambda line: None)
    assert result.step_size == 0.5 and not result.at_edge
    assert seen[-3:] == [1, 2, 3] and set(seen[:-3]) == {0}
    assert [score.answered for score in result.scores] == [1.0, 2.0, 3.0]
    assert result.gradients_per_s == 5.0  # of the first fresh seed


@pytest.mark.parametrize("best", [2**-9, 2**9])
def test_the_end_of_the_grid_is_said_to_be_one(monkeypatch, best):
    valley(monkeypatch, best, [])
    written = published.run(SETTING, lambda line: None, seeds=1, only=["mini-batch"])
    result = written.results["mini-batch"]
    assert result.at_edge and result.step_size in (published.GRID[0], published.GRID[-1])
    assert "the edge of the grid" in next(iter(published.table(written).columns[1].cells))


def test_a_result_file_says_what_it_is_of_and_is_extended_by_the_same_only(monkeypatch, tmp_path):
    out, seen, speeds = tmp_path / "out.json", [], ["cluster.speeds.profile=half_slower"]
    valley(monkeypatch, 0.5, seen)

    def run(only, overrides=speeds, seeds=2):
        return published.run(SETTING, lambda line: None, seeds, [only], out, overrides)

    run("THROTTLE, q = 1.5")
    written = msgspec.json.decode(out.read_bytes(), type=published.Published)
    assert written.overrides == speeds and written.seeds == 2
    assert written.config["cluster"]["speeds"]["profile"] == "half_slower"
    first, seen[:] = len(seen), []
    assert list(run("Rescaled").results) == ["THROTTLE, q = 1.5", "Rescaled"] and len(seen) == first
    caption = str(published.table(written).caption)
    assert "half_slower" in caption and "published numbers are without" in caption
    with pytest.raises(
        ConfigError, match=r"made with cluster[.]speeds[.]profile = 'half_slower', and here it is 'real'"
    ):
        run("Rescaled", overrides=[])
    with pytest.raises(ConfigError, match="made with seeds = 2, and here it is 3"):
        run("Rescaled", seeds=3)
    out.write_text("{}")
    with pytest.raises(ConfigError, match="no result of asgd bench published"):
        run("Rescaled")


@pytest.mark.parametrize("override", ["method.step_size=1.0", "method.name=minibatch", "method.options.q=1.2"])
def test_what_each_contender_has_its_own_value_of_is_refused(override):
    with pytest.raises(ConfigError, match="each method of the table has its own"):
        published.run(SETTING, lambda line: None, overrides=[override])


def test_a_budget_in_gradients_is_needed(monkeypatch, tmp_path):
    valley(monkeypatch, 0.5, [])
    other = tmp_path / "other.toml"
    other.write_text(SETTING.read_text().replace("gradients = 32_000", "time_s = 1.0"))
    with pytest.raises(ConfigError, match=r"budget\.gradients"):
        published.run(other, lambda line: None)
