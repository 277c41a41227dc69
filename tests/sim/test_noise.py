"""The estimate of sigma^2/eps against a task where both are known."""

from __future__ import annotations

import numpy as np
import pytest

from asgd.api import simulate
from asgd.errors import RunError
from asgd.sim.noise import estimate_noise, noise_of

CONFIG = {
    "task": {
        "function": "quadratic",
        "options": {"dimension": 50, "sigma2": 4.0, "min_eigenvalue": 1.0},
        "batch_size": 8,
    },
    "method": {"step_size": 1e-9},
    "cluster": {"num_workers": 2, "speeds": {"profile": "equal", "seconds": 1.0}},
    "budget": {"versions": 4},
}


def test_of_a_quadratic_it_is_the_known_one(tmp_path):
    """At the start x - x* = 1 in each of 50 coordinates of eigenvalue 1; a job of 8 samples has sigma^2/8."""
    run = simulate(CONFIG, run_dir=tmp_path / "run")
    noise = estimate_noise(run, gradients=64)
    assert (noise.version, noise.gradients, noise.source) == (4, 64, "estimated")
    assert noise.sigma2 == pytest.approx(0.5, rel=0.1)
    assert noise.gradient_norm2 == pytest.approx(50.0, rel=0.01)
    assert noise.low <= 0.5 / 50.0 * 1.1 and noise.high >= 0.5 / 50.0 * 0.9
    assert estimate_noise(run, gradients=64) == noise


TASK = """
import torch
from torch import nn
from asgd.learn.task import Task, TensorData

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
    def forward(self, inputs):
        return self.second(self.first(inputs))

def two():
    inputs = torch.eye(4)
    return Task(Two, nn.functional.mse_loss, TensorData(inputs, 0.01 * inputs))
"""


def test_a_model_whose_parameters_changed_places_is_refused(tmp_path):
    """The flat vector is as long as it was, and means something else."""
    file = tmp_path / "task.py"
    file.write_text(TASK)
    run = simulate(CONFIG | {"task": {"function": f"{file}:two", "batch_size": 2}}, run_dir=tmp_path / "run")
    assert estimate_noise(run).version == 4
    lines = TASK.splitlines()
    first = next(i for i, line in enumerate(lines) if "self.first =" in line)
    lines[first : first + 2] = reversed(lines[first : first + 2])
    file.write_text("\n".join(lines))
    with pytest.raises(RunError, match="the task has changed since the run"):
        estimate_noise(run)


def products_of(mean, sigma2, count, dimension, seed):
    generator = np.random.Generator(np.random.Philox(key=[seed, 5]))
    rows = mean / dimension**0.5 + generator.standard_normal((count, dimension)) * (sigma2 / dimension) ** 0.5
    return rows @ rows.T


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    truth = 9.0  # sigma^2 = 9, squared norm 1
    found = [noise_of(products_of(1.0, 9.0, 32, 400, seed), version=0) for seed in range(200)]
    held = sum(one.low <= truth and (one.high is None or truth <= one.high) for one in found)
    assert held >= 0.9 * 200
    assert np.median([one.ratio for one in found]) == pytest.approx(truth, rel=0.1)


def test_a_mean_that_cannot_be_seen_has_no_upper_end():
    found = next(
        one
        for one in (noise_of(products_of(0.0, 9.0, 16, 400, seed), version=0) for seed in range(20))
        if one.gradient_norm2 < 0.0
    )
    assert found.high is None and found.ratio == found.low > 9.0


def test_gradients_that_say_nothing_are_an_error():
    products = np.array([[1.0, -0.9, -0.9], [-0.9, 1.0, -0.9], [-0.9, -0.9, 1.0]])
    with pytest.raises(RunError, match="give --noise"):
        noise_of(products, version=0)
