"""The task of the hostile run: its parameters tell what was applied, and nothing about the order; what is sent."""

from __future__ import annotations

import random
from itertools import islice

import pytest
import torch

from asgd.api import simulate
from asgd.bench.hostile import settings, versions_for
from asgd.bench.hostile_frames import KINDS
from asgd.bench.hostile_task import exact
from asgd.learn.gradient import build_model
from asgd.net.messages import MAX_HEADER_BYTES


def test_the_training_is_meant_to_outlast_the_attack():
    """At 40 updates/s, with what the attack was seen to take; see there."""
    for frames, seconds in ((1, 5), (50_000, 13), (1_000_000, 88)):
        assert versions_for(frames) / 40 > 1.9 * seconds


def final(tmp_path, name, *overrides):
    config = settings("ipc", 60, 0.01, 16)
    return simulate(config, overrides, run_dir=tmp_path / name).summary.parameters_sha256


def test_the_order_of_arrivals_does_not_show_and_everything_else_does(tmp_path):
    equal = final(tmp_path, "equal")
    assert final(tmp_path, "exponential", "cluster.speeds.profile=exponential") == equal
    assert final(tmp_path, "linear", "cluster.speeds.profile=linear") == equal
    assert final(tmp_path, "one job more", "budget.versions=61") != equal
    assert final(tmp_path, "other samples", "seed=1") != equal


def test_sums_of_its_gradients_are_exact():
    flat = build_model(exact(0, dimension=64), 0)
    assert flat.params_P.abs().max() == 0
    task = exact(0, dimension=64)
    chance = torch.Generator().manual_seed(1)
    model = task.model()
    gradients = []
    for _ in range(64):
        model.w.data = torch.randint(-4096, 4097, (64,), generator=chance) / 1024  # what w is made of in a run
        model.zero_grad()
        inputs, targets = task.train.batch(torch.randint(0, 4096, (4,), generator=chance), None)
        task.loss(model(inputs), targets).backward()
        gradients.append(model.w.grad.clone())
    exact_sum = sum(g.double() for g in gradients)
    for _ in range(10):
        total = torch.zeros(64)
        for place in torch.randperm(64, generator=chance).tolist():
            total += gradients[place]
        assert torch.equal(total.double(), exact_sum)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_sent_depends_on_the_seed_alone_and_can_be_sent(kind):
    first, second, other = (list(islice(KINDS[kind](random.Random(s), "l", "t", 64), 300)) for s in (0, 0, 1))
    assert first == second and (first != other or kind == "strangers")
    assert all(len(header) <= MAX_HEADER_BYTES for header, _ in first)
