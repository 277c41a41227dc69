"""What outstanding jobs were given is kept as long as needed and no longer; methods that need it, on real vectors."""

from __future__ import annotations

import math

import pytest
import torch

from asgd.api import resume, simulate, train
from asgd.config import load_config
from asgd.errors import ConfigError
from asgd.run.build import validate
from asgd.run.checkpoints import newest_good
from asgd.run.ledger import check_trace
from asgd.run.reads import Reads

CONFIG = {
    "seed": 3,
    "task": {"function": "quadratic", "options": {"dimension": 20, "sigma2": 0.1}, "batch_size": 4},
    "method": {"step_size": 0.1},
    "cluster": {"num_workers": 4, "speeds": {"profile": "half_slower", "seconds": 0.01}},
    "budget": {"versions": 60},
    "evaluation": {"evaluate": "never"},
}


def test_copies_are_shared_by_version_freed_and_used_again():
    reads, vector = Reads(), torch.zeros(3)
    reads.given(0, 0, vector)
    reads.given(1, 0, vector)
    vector.fill_(1.0)
    reads.given(2, 1, vector)
    vector.fill_(2.0)
    assert reads.of(0) is reads.of(1) and reads.of(0).tolist() == [0.0] * 3
    assert reads.of(2).tolist() == [1.0] * 3 and reads.of(7) is None
    memory = reads.of(0).data_ptr()
    reads.ended(0)
    assert reads.of(1).tolist() == [0.0] * 3
    reads.ended(1)
    reads.given(3, 2, vector)
    assert reads.of(3).data_ptr() == memory and reads.of(3).tolist() == [2.0] * 3
    reads.ended(0)  # not known any more, as are the jobs of before a restart
    assert reads.of(3).tolist() == [2.0] * 3


def test_picky_decides_by_the_distances_in_the_trace(tmp_path):
    run = simulate(CONFIG, ["method.name=picky", "method.options={threshold = 0.3}"], run_dir=tmp_path / "run")
    assert {row.action for row in run.trace} == {"apply", "discard"}
    for row in run.trace:
        assert (row.action == "apply") == (row.distance <= 0.3)
        assert (row.distance == 0.0) == (row.delay == 0)
    assert check_trace(run.trace, run.summary.outstanding) == []


def test_other_methods_measure_nothing(tmp_path):
    run = simulate(CONFIG, ["method.name=dc_asgd"], run_dir=tmp_path / "run")
    assert all(row.distance is None for row in run.trace)


@pytest.mark.parametrize(
    "options", ["dc_asgd", "dc_asgd method.options={adaptive=false,strength=0.5}", "gap_aware optimizer.momentum=0.5"]
)
def test_corrections_change_the_run_and_it_still_converges(tmp_path, options):
    overrides = [f"method.name={options}".split(" ")[0], *options.split(" ")[1:], "budget.versions=300"]
    corrected = simulate(CONFIG, overrides, run_dir=tmp_path / "corrected")
    plain = simulate(
        CONFIG, ["method.rule=constant", *overrides[1:], "method.options={}", "budget.versions=300"],
        run_dir=tmp_path / "plain",
    )  # fmt: skip
    assert corrected.summary.parameters_sha256 != plain.summary.parameters_sha256
    losses = [row.loss for row in corrected.trace]
    assert math.fsum(losses[-20:]) < math.fsum(losses[:20])


@pytest.mark.parametrize("name", ["picky", "dc_asgd", "gap_aware"])
def test_with_one_worker_it_is_plain_sgd_to_the_bit(tmp_path, name):
    one = ["cluster.num_workers=1", "optimizer.momentum=0.3"]
    plain = simulate(CONFIG, one, run_dir=tmp_path / "plain")
    other = simulate(CONFIG, [*one, f"method.name={name}"], run_dir=tmp_path / "other")
    assert other.summary.parameters_sha256 == plain.summary.parameters_sha256


def test_gap_aware_needs_sgd():
    with pytest.raises(ConfigError, match=r"optimizer\.name = .adam.: method .gap_aware. is defined with sgd only"):
        validate(load_config(CONFIG, ["method.name=gap_aware", "optimizer.name=adam"]))


@pytest.mark.cluster
@pytest.mark.parametrize("name", ["picky", "dc_asgd", "gap_aware"])
def test_a_real_run_goes_on_from_its_checkpoint(tmp_path, name):
    train(CONFIG, [f"method.name={name}", "optimizer.momentum=0.3"], run_dir=tmp_path / "run")
    checkpoint, notes = newest_good(tmp_path / "run" / "checkpoints")
    assert notes == [] and ("update.mean_square" in checkpoint.tensors) == (name != "picky")
    run = resume(tmp_path / "run", overrides=["budget.versions=120"])
    assert run.summary.finished and run.summary.versions == 120
    assert check_trace(run.trace, run.summary.outstanding) == []
