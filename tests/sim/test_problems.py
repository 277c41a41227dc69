"""The problems of studies: what they say of themselves, gradients against differences, and the built-in tasks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from asgd.learn.gradient import build_model
from asgd.learn.problems import diagonal_quadratic, tridiagonal_quadratic
from asgd.sim.problems import diagonal, log_spaced, tridiagonal

START = [0.7, -0.4, 1.3, 0.2]
CASES = {
    "diagonal": diagonal([0.1, 0.5, 2.0, 1.0], start=START),
    "waves": diagonal([0.1, 0.5, 2.0, 1.0], start=START, waves=True),
    "tridiagonal": tridiagonal(4),
}


def gradient(problem, x, worker=None):
    out = np.empty_like(x)
    problem.gradient(x, worker, out=out)
    return out


def value(case, x):
    """f in float64, written out."""
    problem, x = CASES[case], np.asarray(x, np.float64)
    if case == "tridiagonal":
        matrix = (2 * np.eye(4) - np.eye(4, k=1) - np.eye(4, k=-1)) / 4
        return 0.5 * x @ matrix @ x
    eigenvalues = problem.eigenvalues_D.astype(np.float64)
    return (eigenvalues * (1 - np.cos(x))).sum() if problem.waves else 0.5 * (eigenvalues * x * x).sum()


@pytest.mark.parametrize("case", CASES)
def test_gradient_against_differences(case):
    problem, x = CASES[case], np.array(START, np.float32)
    exact = gradient(problem, x)
    for i in range(4):
        step = np.zeros(4)
        step[i] = 1e-5
        assert exact[i] == pytest.approx((value(case, x + step) - value(case, x - step)) / 2e-5, abs=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_constants(case):
    problem = CASES[case]
    assert problem.start_value == pytest.approx(value(case, problem.start_D), rel=1e-6)
    assert problem.start_norm == pytest.approx(float((gradient(problem, problem.start_D) ** 2).sum()), rel=1e-6)
    # The curvature along the axes (at the minimiser, where it is largest) gives A, and its largest eigenvalue L.
    hessian = np.stack([gradient(problem, 1e-3 * axis) / 1e-3 for axis in np.eye(4, dtype=np.float32)])
    assert np.linalg.eigvalsh(hessian.astype(np.float64)).max() == pytest.approx(problem.smoothness, rel=1e-5)


def test_waves_are_not_convex():
    assert gradient(diagonal([1.0], waves=True), np.array([3.0], np.float32))[0] < 0.2


def test_workers_see_their_own_shift_and_their_mean_is_the_gradient_of_f():
    shifts = [[1.0, -1.0], [-1.0, 1.0]]
    problem, x = diagonal([1.0, 2.0], shifts=shifts), np.array([1.0, 1.0], np.float32)
    assert gradient(problem, x, 0).tolist() == [2.0, 1.0] and gradient(problem, x, 1).tolist() == [0.0, 3.0]
    assert gradient(problem, x).tolist() == [1.0, 2.0]


def test_any_axes_may_come_first():
    problem = tridiagonal(4)
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    assert np.array_equal(gradient(problem, x)[1, 2], gradient(problem, x[1, 2]))


def of_task(task, x):
    """Exact gradient of a built-in quadratic task at x, its parameters."""
    flat = build_model(task, 0, "cpu")
    (parameter,) = flat.module.parameters()
    with torch.no_grad():
        parameter.copy_(x)
    inputs_B, targets_B = task.test.batch(torch.arange(1), None)
    (found,) = torch.autograd.grad(task.loss(flat.module(inputs_B), targets_B), parameter)
    return found.numpy()


def test_tridiagonal_is_the_task():
    task, problem = tridiagonal_quadratic(1729, sigma2=0.25), tridiagonal(sigma2=0.25)
    known = task.known
    assert problem.smoothness == pytest.approx(known.smoothness, rel=1e-12)
    assert problem.sigma2 == known.sigma2 and problem.dimension == 1729
    assert problem.start_value == pytest.approx(0.0 - known.optimum_value, rel=1e-5)  # the task starts at 0, f(0) = 0
    np.testing.assert_allclose(problem.start_D, -known.minimiser_P.numpy(), rtol=1e-6)
    x = torch.linspace(-1.0, 1.0, 1729).sin()
    error = (x - known.minimiser_P).numpy()
    np.testing.assert_allclose(gradient(problem, error), of_task(task, x), rtol=0, atol=1e-6)


def test_diagonal_is_the_task():
    task = diagonal_quadratic(10, sigma2=0.5, min_eigenvalue=0.01, max_eigenvalue=2.0, start=3.0)
    problem = diagonal(log_spaced(10, 0.01, 2.0), start=3.0, sigma2=0.5)
    assert (problem.smoothness, problem.sigma2) == (task.known.smoothness, task.known.sigma2)
    x = torch.linspace(-1.0, 1.0, 10)
    np.testing.assert_allclose(gradient(problem, x.numpy()), of_task(task, x), rtol=1e-5)
