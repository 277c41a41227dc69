"""Simulated runs: the files of a real run, and agreement with real processes to the bit when fed their times."""

from __future__ import annotations

import pytest
import torch

from asgd.api import simulate, train
from asgd.errors import ConfigError
from asgd.run.ledger import check_trace

CONFIG = {
    "seed": 5,
    "task": {"function": "quadratic", "options": {"dimension": 20, "sigma2": 0.1}, "batch_size": 4},
    "method": {"step_size": 0.1},
    "optimizer": {"momentum": 0.3},
    "schedule": {"name": "cosine", "over": "versions"},
    "cluster": {"num_workers": 4, "speeds": {"profile": "half_slower", "seconds": 0.01}},
    "budget": {"versions": 150},
}


def test_writes_the_same_directory_as_a_real_run(tmp_path):
    run = simulate(CONFIG, run_dir=tmp_path / "run")
    summary = run.summary
    assert summary.finished and summary.versions == 150
    assert check_trace(run.trace, summary.outstanding) == []
    assert [row.version for row in run.metrics][-1] == 150
    assert run.metrics[-1].results["suboptimality"] < run.metrics[0].results["suboptimality"]
    assert summary.wall_s == pytest.approx(150 / (2 / 0.01 + 2 / 0.04), rel=0.05)
    assert run.model() is not None


def test_the_same_twice(tmp_path):
    runs = [simulate(CONFIG, run_dir=tmp_path / name) for name in ("a", "b")]
    assert runs[0].summary.parameters_sha256 == runs[1].summary.parameters_sha256
    assert runs[0].trace == runs[1].trace


def test_real_speeds_cannot_be_simulated(tmp_path):
    with pytest.raises(ConfigError, match="a simulation needs emulated speeds"):
        simulate(CONFIG, ["cluster.speeds.profile=real"], run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.cluster
@pytest.mark.parametrize(
    "overrides",
    [
        ["method.name=asynchronous", "method.jobs_per_worker=2"],
        ["method.name=minibatch"],
        ["method.name=ringmaster", "method.options={R = 3, cancel = true}"],
        ["method.name=random_assignment", "method.options={concurrency = 6}"],
        ["method.name=fedasync", "method.local_steps=3", "method.local_step_size=0.1"],
        ["method.name=ringleader"],
        ["method.name=throttle"],
        ["method.name=picky", "method.options={threshold = 0.3}"],
        ["method.name=dc_asgd"],
        ["method.name=gap_aware", "method.jobs_per_worker=2"],
        ["method.name=asynchronous", "method.rule=wu_adaptive_1", "method.step_size=0.4"],
        ["method.name=asynchronous", "method.rule=wu_adaptive_2", "method.step_size=0.4"],
    ],
    ids=lambda overrides: " ".join(overrides).replace("method.", ""),
)
def test_fed_with_a_real_runs_times_it_decides_and_computes_the_same(tmp_path, overrides):
    real = train(CONFIG, overrides, run_dir=tmp_path / "real")
    assert check_trace(real.trace, real.summary.outstanding) == []
    virtual = simulate(CONFIG, overrides, run_dir=tmp_path / "virtual", times=tmp_path / "real")
    for ours, theirs in zip(virtual.trace, real.trace, strict=True):
        for key in ("arrival", "time_s", "worker", "job", "read_version", "version", "delay", "concurrency"):
            assert getattr(ours, key) == getattr(theirs, key), key
        assert (ours.action, ours.steps, ours.step_size, ours.loss, ours.distance) == (
            theirs.action, theirs.steps, theirs.step_size, theirs.loss, theirs.distance,
        )  # fmt: skip
    assert virtual.summary.parameters_sha256 == real.summary.parameters_sha256


@pytest.mark.cluster
def test_jobs_of_one_version_get_the_buffers_of_the_moment_as_on_real_processes(tmp_path):
    """A gradient that is only accumulated moves the batch-norm statistics and not the version."""
    config = CONFIG | {
        "task": {"function": "shapes", "options": {"norm": "batch", "num_train": 500}, "batch_size": 8},
        "method": {"name": "rennala", "step_size": 0.05, "options": {"batch": 5}},
        "budget": {"versions": 8},
        "evaluation": {"evaluate": "never"},
    }
    real = train(config, run_dir=tmp_path / "real")
    virtual = simulate(config, run_dir=tmp_path / "virtual", times=tmp_path / "real")
    expected = real.model().state_dict()
    for name, tensor in virtual.model().state_dict().items():
        assert torch.equal(tensor, expected[name]), name
