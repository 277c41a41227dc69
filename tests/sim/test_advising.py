"""Advice from runs: whole ones and odd ones."""

from __future__ import annotations

import shutil

import pytest

import asgd
from asgd.api import simulate
from asgd.errors import ConfigError, RunError

pytestmark = [pytest.mark.usefixtures("known_speeds"), pytest.mark.slow]  # they simulate whole studies

CONFIG = {
    "task": {"function": "quadratic", "options": {"dimension": 20, "sigma2": 0.1}, "batch_size": 4},
    "method": {"step_size": 0.1},
    "cluster": {"num_workers": 4, "speeds": {"profile": "half_slower", "seconds": 0.01}},
    "budget": {"versions": 150},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return simulate(CONFIG, run_dir=tmp_path_factory.mktemp("advising") / "run")


def test_times_and_noise_of_a_run(run):
    advice = asgd.advise(run.path)
    assert [round(worker.seconds, 6) for worker in advice.workers] == [0.01, 0.01, 0.04, 0.04]
    assert [worker.jobs for worker in advice.workers] == [59, 59, 14, 14]
    assert advice.asynchronous_per_s == pytest.approx(250.0) and advice.minibatch_per_s == pytest.approx(100.0)
    assert advice.noise.source == "estimated" and advice.noise.version == 150
    own = next(one for one in advice.methods if one.name == "asynchronous")
    assert own.seconds == pytest.approx(run.summary.wall_s, rel=1e-6)  # its own time is where the seconds are from


def test_noise_and_seconds_may_be_given(run):
    advice = asgd.advise(run.path, noise=5.0, minibatch_s=100.0)
    assert (advice.noise.ratio, advice.noise.source) == (5.0, "given")
    assert {one.name: one.seconds for one in advice.methods}["mini-batch"] == pytest.approx(100.0)


def test_an_unfinished_run_is_enough_for_advice_but_not_for_seconds(run, tmp_path):
    killed = tmp_path / "killed"
    shutil.copytree(run.path, killed)
    (killed / "summary.json").unlink()
    shutil.rmtree(killed / "checkpoints")
    advice = asgd.advise(killed)
    assert len(advice.workers) == 4 and advice.methods[0].seconds is None
    assert advice.noise.source == "assumed"
    assert any("can't be estimated" in warning and "no checkpoint" in warning for warning in advice.warnings)


def test_few_jobs_and_missing_workers_are_told(tmp_path):
    few = simulate(CONFIG, ["budget.versions=6"], run_dir=tmp_path / "few")
    warnings = asgd.advise(few.path, noise=1.0).warnings
    assert any("few jobs" in warning and "worker 0: 3" in warning for warning in warnings)
    assert any("workers 2, 3 of 4 had no job" in warning for warning in warnings)


def test_one_worker(tmp_path):
    alone = simulate(CONFIG, ["cluster.num_workers=1", "budget.versions=20"], run_dir=tmp_path / "alone")
    assert "one worker waits for nobody" in asgd.advise(alone.path, noise=1.0).sentence


def test_workers_that_finished_nothing_are_refused(tmp_path):
    overrides = ["method.name=m_synchronous", "method.options.m=2"]
    cancelled = simulate(CONFIG, overrides, run_dir=tmp_path / "cancelled")
    with pytest.raises(RunError, match="workers 2, 3 finished no job"):
        asgd.advise(cancelled.path, noise=1.0)


def test_different_data_are_warned_of(tmp_path):
    config = {
        "task": {"function": "shapes", "batch_size": 8, "partition": "dirichlet"},
        "cluster": {"num_workers": 2, "speeds": {"profile": "equal"}}, "budget": {"versions": 4},
        "evaluation": {"evaluate": "never"},
    }  # fmt: skip
    run = simulate(config, run_dir=tmp_path / "run")
    assert any("different data" in warning for warning in asgd.advise(run.path, noise=1.0).warnings)


def test_a_damaged_trace_is_refused(run, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(run.path, damaged)
    trace = damaged / "trace.jsonl"
    trace.write_bytes(b"".join(trace.read_bytes().splitlines(keepends=True)[1:]))
    with pytest.raises(RunError, match="whole lines"):
        asgd.advise(damaged)


def test_arguments_that_do_not_go_together_are_refused(run):
    with pytest.raises(ConfigError, match="allowed is one of them"):
        asgd.advise()
    with pytest.raises(ConfigError, match="allowed is one of them"):
        asgd.advise(run.path, times=[1.0])
    with pytest.raises(ConfigError, match="times, number 2"):
        asgd.advise(times=[1.0, -2.0])
    with pytest.raises(ConfigError, match="--minibatch-s"):
        asgd.advise(times=[1.0], minibatch_s=0.0)
    with pytest.raises(ConfigError, match="--noise"):
        asgd.advise(run.path, noise=float("nan"))
