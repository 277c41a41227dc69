"""The claims' own arithmetic against numbers worked out by hand, each claim in a small setting, and the command."""

from __future__ import annotations

import json
import math

import pytest
from typer.testing import CliRunner

from asgd.bench.claims import CLAIMS, Effort, chosen, queueing, stability
from asgd.bench.claims.outcome import Measured, Outcome, Row, judge
from asgd.bench.claims.statistics import exponent, exponents, mean
from asgd.cli import app
from asgd.errors import ConfigError
from asgd.sim.rates import minibatch_time, optimal_time


def test_a_claim_holds_if_each_of_its_predictions_does():
    rows = [Row("a", "1", Measured(1.0), judge(True)), Row("b", "", "seen", "finding")]
    assert Outcome(rows, "").verdict == "holds"
    assert Outcome([*rows, Row("c", "1", Measured(2.0), judge(False))], "").verdict == "does not hold"
    assert Outcome(rows[1:], "").verdict == "finding"
    assert Outcome(rows, "", details=[Row("d", "1", Measured(2.0), "undecided")]).verdict == "undecided"


def test_interval_of_a_mean_and_fit_of_an_exponent():
    measured = mean([1.0, 2.0, 3.0, 4.0])
    half = 3.182446 * math.sqrt(5 / 3) / 2  # t of 3 degrees of freedom at 97.5%
    assert (measured.low, measured.high) == pytest.approx((2.5 - half, 2.5 + half), rel=1e-5)
    assert mean([2.0, 2.0]) == Measured(2.0)
    assert exponent([1.0, 2.0, 4.0], [3.0, 12.0, 48.0]) == pytest.approx(2.0)
    assert math.isnan(exponent([1.0, 2.0], [1.0, math.inf])), "never there is no number"
    fits = exponents([[1.0, 2.0]] * 3, [[1.0, 2.0], [1.0, 4.0], [1.0, 8.0]])
    assert (fits.value, fits.low, fits.high) == pytest.approx((2.0, 2.0 - 4.302653 / 3**0.5, 2.0 + 4.302653 / 3**0.5))


def test_stability_limit_of_two_equal_workers():
    """Delay 1: the roots of z^2 - z + eta leave the unit circle at eta = 1."""
    measured = stability.measured_limit(2, updates_per_worker=400, resolution=0.01)
    assert measured.value == pytest.approx(1.0, abs=0.015)


@pytest.mark.parametrize(("kind", "expected"), [("asynchronous", 15.0), ("minibatch", 42.57), ("queueing", 15.0)])
def test_lemma_11(kind, expected):
    assert queueing.lemma(kind, 3000, seed=1) == pytest.approx(expected, rel=0.1)


def test_half_slower_by_hand():
    """8 / 1 + 8 / 4 gradients per second without waiting; a round of 16 every 4 s with it."""
    assert queueing.half_slower("asynchronous", 16, 2000, 0) == pytest.approx(0.1, rel=0.01)
    assert queueing.half_slower("minibatch", 16, 1600, 0) == pytest.approx(0.25, rel=0.01)
    assert queueing.half_slower("random_assignment", 16, 4000, 0) == pytest.approx(0.327, rel=0.1)


def test_optimal_time_by_hand():
    """One fast worker (1 s) and one slow (9 s): m = 1 costs (1 + 1) s, m = 2 costs 2/(1 + 1/9) (1 + 1/2) = 2.7 s."""
    known = {"delta": 1.0, "smoothness": 1.0, "sigma2": 1.0, "eps": 1.0}
    assert optimal_time([1.0, 9.0], **known) == pytest.approx(2.0)
    assert optimal_time([1.0, 1.0], **known) == pytest.approx(1.5)
    assert minibatch_time(9.0, 2, **known) == pytest.approx(13.5)


def test_chosen_claims():
    assert chosen(None) == list(CLAIMS) and chosen("7, 2") == [2, 7]
    with pytest.raises(ConfigError, match="--only '2,99': '99' is no claim"):
        chosen("2,99")


@pytest.mark.slow
def test_the_command_prints_one_object_and_draws(tmp_path):
    ran = CliRunner().invoke(app, ["claims", "--only", "7", "--quick", "--json", "--jobs", "1", "--out", str(tmp_path)])
    assert ran.exit_code == 0
    whole = json.loads(ran.stdout)
    assert whole["claims"]["7"]["verdict"] == "holds"
    assert json.loads((tmp_path / "claims.json").read_text()) == whole
    again = CliRunner().invoke(
        app, ["claims", "--only", "6", "--quick", "--json", "--jobs", "1", "--out", str(tmp_path)]
    )
    assert again.exit_code == 0 and list(json.loads(again.stdout)["claims"]) == ["6"]
    assert list(json.loads((tmp_path / "claims.json").read_text())["claims"]) == ["6", "7"]
    assert (tmp_path / "claim7_stability.png").stat().st_size > 10_000


@pytest.mark.slow
def test_results_do_not_depend_on_the_number_of_processes():
    cells = [("minibatch", 16, 320, 0), ("asynchronous", 16, 320, 1)]
    assert Effort(jobs=1).map(queueing.half_slower, cells) == Effort(jobs=2).map(queueing.half_slower, cells)
