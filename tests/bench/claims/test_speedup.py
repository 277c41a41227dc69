"""Claim 4: both methods are tuned and compared fairly, the predictions from the speeds, and the real runs' task."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from asgd.bench.claims import Effort, real_task
from asgd.bench.claims.outcome import Measured
from asgd.bench.claims.profiles import NAMES, pace, speeds_of
from asgd.bench.claims.speedup import (
    Best,
    Compared,
    Real,
    Setting,
    best_of,
    check,
    compare,
    ratio,
    real_row,
    real_seconds,
    row_of,
    sooner,
)
from asgd.errors import RunError
from asgd.learn.gradient import build_model, evaluate
from asgd.learn.problems import tridiagonal_quadratic
from asgd.sim import problems
from asgd.sim.study import study_config

SMALL = Setting("half_slower", 4, 1e-3, 4.0, tuning=(0,), seeds=(7, 8))


def of(profile, num_workers, seeds=1):
    return [
        study_config("asynchronous", num_workers, speeds=speeds_of(profile), budget={"versions": 1}, seed=seed)
        for seed in range(seeds)
    ]


def test_half_slower_is_faster_about_as_the_speeds_say():
    compared = compare(SMALL)
    assert compared.by_throughput == pytest.approx((2 + 2 / 4) / (4 / 4))
    assert sooner(compared.ratio) == "holds" and 1.8 < compared.ratio.value < 3.2
    assert [row.verdict for row in row_of(compared)] == ["holds", "finding"]


def test_equal_speeds_are_no_gain_and_said_to_be_none():
    compared = compare(SMALL._replace(profile="equal"))
    assert compared.by_throughput == compared.by_optimal_time == 1.0
    assert compared.ratio.value < 1.05 and row_of(compared)[0].verdict != "holds"


def test_the_best_step_size_is_inside_the_grid_also_when_that_has_to_grow(monkeypatch):
    expected = best_of(SMALL, "minibatch").step_size
    monkeypatch.setattr("asgd.bench.claims.speedup.LOWEST", expected)
    monkeypatch.setattr("asgd.bench.claims.speedup.HIGHEST", expected)
    assert best_of(SMALL, "minibatch").step_size == expected


def test_a_target_that_is_never_reached_is_an_error(monkeypatch):
    monkeypatch.setattr("asgd.bench.claims.speedup.MOST", 40)
    with pytest.raises(RunError, match="edge of the grid"):
        best_of(SMALL, "asynchronous")


def test_ratio_goes_seed_by_seed():
    assert ratio([3.0, 8.0], [1.0, 4.0]).value == 2.5
    assert sooner(Measured(1.2, 0.9, 1.5)) == "undecided"
    assert sooner(Measured(1.2, 1.1, 1.3)) == sooner(Measured(1.2)) == "holds"
    assert sooner(Measured(0.8, 0.7, 0.9)) == sooner(Measured(1.0)) == "does not hold"


def test_a_row_says_what_each_method_needed():
    compared = Compared(SMALL, Best(0.1, [2.0], [20.0]), Best(1.0, [5.0], [24.0]), 2.5, 2.6)
    first, second = row_of(compared)
    assert first.measured == Measured(2.5) and "2.5 by gradients per second, 2.6" in first.predicted
    assert "asynchronous 2 s, 20 gradients, eta = 0.1; mini-batch 5 s, 24 gradients, eta = 1" in str(second.measured)


def test_the_outcome_says_where_it_is_not_faster(monkeypatch):
    def compared(setting):
        seconds = 4.0 if setting.profile == "equal" else 10.0
        return Compared(setting, Best(0.1, [5.0], [9.0]), Best(1.0, [seconds], [9.0]), 2.5, 2.6)

    monkeypatch.setattr("asgd.bench.claims.speedup.compare", compared)
    outcome = check(Effort(quick=True, real=False))
    assert outcome.verdict == "does not hold"
    verdicts = {row.setting.split(",")[0]: row.verdict for row in outcome.rows if row.predicted}
    assert verdicts == {name: "does not hold" if name == "equal" else "holds" for name in NAMES}
    assert f"faster under {len(NAMES) - 1} of {len(NAMES)} profiles" in outcome.finding
    assert "not shown to be under equal (0.8)" in outcome.finding
    measured, *predicted = outcome.plots[0].lines
    assert list(measured.x) == NAMES and measured.y[0] == 0.8 and [line.y[0] for line in predicted] == [2.5, 2.6]


def test_an_interval_around_one_decides_nothing(monkeypatch):
    def compared(setting):
        seconds = [4.0, 6.5] if setting.profile == "pareto" else [9.9, 10.0]
        return Compared(setting, Best(0.1, [5.0, 5.0], [9.0, 9.0]), Best(1.0, seconds, [9.0, 9.0]), 2.5, 2.6)

    monkeypatch.setattr("asgd.bench.claims.speedup.compare", compared)
    outcome = check(Effort(quick=True, real=False))
    verdicts = {row.setting.split(",")[0]: row.verdict for row in outcome.rows if row.predicted}
    assert verdicts == {name: "undecided" if name == "pareto" else "holds" for name in NAMES}
    assert outcome.verdict == "undecided" and "not shown to be under pareto" in outcome.finding


WON = Compared(SMALL, Best(0.1, [5.0], [9.0]), Best(1.0, [10.0], [9.0]), 2.5, 2.6)


@pytest.mark.parametrize(
    ("asynchronous", "minibatch", "verdict", "shown"),
    [
        ([1.0, 1.0], [2.0, 2.0], "holds", "2"),
        ([2.0, 2.0], [1.0, 1.0], "does not hold", "0.5"),
        ([math.inf, 1.0], [2.0, 3.0], "undecided",
         "not reached: asynchronous in 1 of 2, mini-batch in 0 of 2; where both reached it 3"),
        ([math.inf, 1.0], [2.0, math.inf], "undecided", "not reached: asynchronous in 1 of 2, mini-batch in 1 of 2"),
    ],
)  # fmt: skip
def test_a_real_run_that_misses_the_target_is_a_row(asynchronous, minibatch, verdict, shown):
    row = real_row(Real(WON, asynchronous, minibatch))
    assert row.verdict == verdict and str(row.measured) == shown


def test_missed_targets_are_in_the_words_too(monkeypatch):
    monkeypatch.setattr("asgd.bench.claims.speedup.compare", lambda setting: WON._replace(setting=setting))
    monkeypatch.setattr("asgd.bench.claims.speedup.real_seconds", lambda setting, method, best, seed: math.inf)
    outcome = check(Effort(quick=True, real=True))
    assert outcome.verdict == "undecided"
    assert "half_slower not reached: asynchronous in 1 of 1, mini-batch in 1 of 1 (2)" in outcome.finding


@pytest.mark.cluster
def test_a_real_run_that_ends_before_the_target_has_no_time():
    assert real_seconds(SMALL, "minibatch", Best(1e-6, [1.0], [8.0]), 0) == math.inf


@pytest.mark.parametrize(
    ("profile", "rate", "round_s"),
    [
        ("equal", 4.0, 1.0),
        ("half_slower", 2.5, 4.0),
        ("straggler", 3.25, 4.0),
        ("sqrt", sum(i**-0.5 for i in (1, 2, 3, 4)), 2.0),
        ("linear", 1 + 1 / 2 + 1 / 3 + 1 / 4, 4.0),
    ],
)
def test_pace_of_fixed_speeds(profile, rate, round_s):
    speeds = pace(of(profile, 4), 50.0)
    assert (speeds.asynchronous, speeds.round_s) == pytest.approx((rate, round_s))
    assert speeds.minibatch == pytest.approx(4 / round_s)


def test_pace_of_random_speeds():
    # Means of one exponential, of the largest of four; a worker at rest half of the time; uniform in three classes.
    speeds = pace(of("exponential", 4, seeds=3), 4000.0)
    assert speeds.seconds_N == pytest.approx([1.0] * 4, rel=0.05)
    assert speeds.round_s == pytest.approx(1 + 1 / 2 + 1 / 3 + 1 / 4, rel=0.05)
    assert pace(of("outages", 2), 2000.0).seconds_N == pytest.approx([2.0, 2.0], rel=0.05)
    assert pace(of("classes", 3), 4000.0).seconds_N == pytest.approx([1.5, 4.0, 6.5], rel=0.05)
    # A Pareto variable of exponent 1.5 has mean 3; the largest of four Gamma(1/3) Gamma(5) / Gamma(5 - 2/3).
    pareto = pace(of("pareto", 4, seeds=3), 20_000.0)
    assert pareto.seconds_N == pytest.approx([3.0] * 4, rel=0.15)
    largest = math.gamma(1 / 3) * math.gamma(5) / math.gamma(5 - 2 / 3)
    assert pareto.round_s == pytest.approx(largest, rel=0.15)


def test_every_emulated_profile_is_looked_at():
    assert len(NAMES) >= 10 and "real" not in NAMES and {"equal", "pareto", "outages"} <= set(NAMES)


def test_the_task_of_real_runs_is_the_built_in_one_with_the_gradients_norm():
    ours, plain = real_task.tridiagonal(30, sigma2=0.5), tridiagonal_quadratic(30, sigma2=0.5)
    mine, theirs = build_model(ours, 3, "cpu"), build_model(plain, 3, "cpu")
    x_D = torch.linspace(-1.0, 0.5, 30)
    noise_B, targets_B = ours.train.batch(torch.arange(2), torch.Generator().manual_seed(1))
    gradients = []
    for task, flat in ((ours, mine), (plain, theirs)):
        (parameter,) = flat.module.parameters()
        with torch.no_grad():
            parameter.copy_(x_D)
        loss = task.loss(flat.module(noise_B), targets_B)
        gradients.append(torch.autograd.grad(loss, parameter)[0])
    assert torch.equal(*gradients)

    problem = problems.tridiagonal(30)
    exact_D = np.empty(30, np.float32)
    problem.gradient((x_D - plain.known.minimiser_P).numpy(), None, out=exact_D)
    assert evaluate(ours, mine, batch_size=1)["gradient_norm2"] == pytest.approx(float(exact_D @ exact_D), rel=1e-5)
