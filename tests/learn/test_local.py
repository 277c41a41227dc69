"""Local steps: by hand, and when a worker looks up from them."""

from __future__ import annotations

import pytest
import torch

from asgd.learn.gradient import build_model, compute_gradient
from asgd.learn.local import compute_local_steps
from asgd.learn.tasks import quadratic

OPTIONS = {"seed": 1, "worker": 2, "batch_size": 4}


def compute(flat, task, *, parameters=False, steps=3, **more):
    return compute_local_steps(task, flat, job=5, steps=steps, step_size=0.25, parameters=parameters, **OPTIONS | more)


def test_three_steps_of_sgd_on_the_samples_of_three_jobs():
    task = quadratic(dimension=4)
    flat, other = build_model(task, seed=0), build_model(task, seed=0)
    start_P = flat.params_P.clone()
    losses = []
    for job in (15, 16, 17):
        losses.append(compute_gradient(task, other, job=job, **OPTIONS).loss)
        with torch.no_grad():
            other.params_P.sub_(0.25 * other.gradient_P)
    result = compute(flat, task)
    assert result.loss == pytest.approx(sum(losses) / 3) and result.samples == 12
    torch.testing.assert_close(flat.gradient_P, start_P - other.params_P)
    flat.params_P.copy_(start_P)
    compute(flat, task, parameters=True)
    torch.testing.assert_close(flat.gradient_P, other.params_P)


class Cancelled(Exception):
    pass


@pytest.mark.parametrize(("micro_batches", "calls"), [(1, 2), (2, 5)])
def test_it_looks_up_between_steps_and_micro_batches(micro_batches, calls):
    """After each part but the last: 3 steps of so many micro-batches."""
    task = quadratic(dimension=4)
    seen = []
    compute(build_model(task, seed=0), task, micro_batches=micro_batches, between=lambda: seen.append(1))
    assert len(seen) == calls


def test_a_cancelled_job_is_left_before_its_next_step():
    task = quadratic(dimension=4)
    flat, one_step = build_model(task, seed=0), build_model(task, seed=0)
    compute_gradient(task, one_step, job=15, **OPTIONS)
    with torch.no_grad():
        one_step.params_P.sub_(0.25 * one_step.gradient_P)

    def cancel():
        raise Cancelled

    with pytest.raises(Cancelled):
        compute(flat, task, between=cancel)
    torch.testing.assert_close(flat.params_P, one_step.params_P)
