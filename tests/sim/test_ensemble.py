"""Each member of an ensemble is the run that it would be alone, against few-line simulations in float64."""

from __future__ import annotations

import numpy as np
import pytest

from asgd.core.actions import Apply, StepSize
from asgd.sim.ensemble import Ensemble
from asgd.sim.problems import diagonal
from asgd.sim.study import run_study, study_config

EIGENVALUES = [0.1, 0.4, 1.0]
SHIFTS = [[0.3, -0.2, 0.1], [-0.1, 0.4, -0.3], [-0.2, -0.2, 0.2]]  # of the three workers; their mean is 0
PROBLEM = diagonal(EIGENVALUES, start=[1.0, -2.0, 0.5], sigma2=0.3, shifts=SHIFTS)
STEP_SIZES, SEEDS = [0.05, 0.2], [0, 5]
ORDER = [0, 0, 1, 0, 2, 0, 1, 1, 0, 2, 2, 0, 0, 0, 1, 2, 0, 1, 0, 0, 0, 2, 1]  # who arrives


def run(method, rule="constant", step_sizes=STEP_SIZES, seeds=SEEDS, **of_method):
    """The iterates at the end, [E, R, D]."""
    config = study_config(method, 3, rule=rule, budget={"gradients": len(ORDER)}, **of_method)
    kept = []

    def order(ensemble):
        kept.append(ensemble)
        arrivals = iter(ORDER)
        return lambda jobs, version: next(arrivals)

    run_study(config, PROBLEM, step_sizes, seeds, order=order)
    return kept[0].x_ERD


class Alone:
    """One run in float64. `answers` gives (worker, delay, gradient at what it had read); the caller moves x."""

    def __init__(self, seed):
        self.x, self.seed = np.array([1.0, -2.0, 0.5]), seed
        self.version, self.next_job = 0, 3
        self.given = {worker: (worker, 0, self.x.copy()) for worker in range(3)}

    def gradient(self, worker, job, x):
        noise = PROBLEM.noise([self.seed], job)[0].astype(np.float64)
        return np.array(EIGENVALUES) * x + np.array(SHIFTS[worker]) + noise

    def answers(self):
        for worker in ORDER:
            job, read_version, x = self.given[worker]
            yield worker, self.version - read_version, self.gradient(worker, job, x), x
            self.given[worker] = (self.next_job, self.version, self.x.copy())
            self.next_job += 1

    def step(self, direction):
        self.x = self.x - direction
        self.version += 1


def asynchronous(eta, seed):
    alone = Alone(seed)
    for _, delay, gradient, _ in alone.answers():
        alone.step(eta * min(1.0, 3 / max(delay, 1)) * gradient)
    return alone.x


def clipped(eta, seed):
    alone = Alone(seed)
    for _, _, gradient, _ in alone.answers():
        alone.step(eta * gradient * min(1.0, 0.5 / np.linalg.norm(gradient)))
    return alone.x


def fedasync(eta, seed):
    alone = Alone(seed)
    for _, delay, gradient, read in alone.answers():
        weight = 0.6 * (delay + 1) ** -0.5
        alone.step(weight * (alone.x - (read - eta * gradient)))
    return alone.x


def rennala(eta, seed):
    alone, batch = Alone(seed), []
    for _, delay, gradient, _ in alone.answers():
        if delay == 0:
            batch.append(gradient)
        if len(batch) == 2:
            alone.step(eta * sum(batch) / 2)
            batch = []
    return alone.x


def ringleader(eta, seed):
    alone = Alone(seed)
    table, later, waiting, updating = {}, {}, {0, 1, 2}, False
    for worker, _, gradient, _ in alone.answers():
        if updating and worker not in waiting:
            later.setdefault(worker, []).append(gradient)
            continue
        table.setdefault(worker, []).append(gradient)
        waiting.discard(worker)
        if not updating and waiting:
            continue
        if not updating:
            updating, waiting = True, {0, 1, 2} - {worker}
        alone.step(eta * sum(sum(own) / len(own) for own in table.values()) / 3)
        if not waiting:
            table, later, updating = later, {}, False
            waiting = {0, 1, 2} - table.keys()
    return alone.x


CASES = {
    "apply": ({"method": "asynchronous", "rule": "scale"}, asynchronous),
    "clip": ({"method": "clipped", "options": {"clip": 0.5}}, clipped),
    "mix": ({"method": "fedasync"}, fedasync),
    "accumulate and step": ({"method": "rennala", "options": {"batch": 2}}, rennala),
    "store, accumulate and keep": ({"method": "ringleader"}, ringleader),
}


@pytest.mark.parametrize("case", CASES)
def test_a_member_is_the_run_that_it_would_be_alone(case):
    of_method, reference = CASES[case]
    x_ERD = run(**of_method)
    ends = set()
    for e, eta in enumerate(STEP_SIZES):
        for r, seed in enumerate(SEEDS):
            expected_D = reference(eta, seed)
            assert np.linalg.norm(expected_D - [1.0, -2.0, 0.5]) > 0.05
            np.testing.assert_allclose(x_ERD[e, r], expected_D, rtol=2e-5, atol=2e-6)
            ends.add(tuple(np.round(expected_D, 4)))
    assert len(ends) == 4


def test_members_do_not_touch_each_other():
    together_ERD = run("asynchronous")
    alone_ERD = run("asynchronous", step_sizes=STEP_SIZES[1:], seeds=SEEDS[1:])
    assert np.array_equal(alone_ERD[0, 0], together_ERD[1, 1])


def test_noise_depends_on_seed_and_job_alone():
    first_RD = PROBLEM.noise([3, 4], job=7)
    PROBLEM.noise([3], job=8)
    again_RD = PROBLEM.noise([9, 3], job=7)
    assert np.array_equal(first_RD[0], again_RD[1]) and not np.array_equal(first_RD[0], first_RD[1])
    assert not np.array_equal(first_RD[0], PROBLEM.noise([3], job=8)[0])
    assert diagonal([1.0]).noise([3], job=7) is None


def test_noise_has_the_variance_that_is_said():
    noise_D = diagonal(np.ones(40_000), sigma2=2.5).noise([0], job=1)[0].astype(np.float64)
    assert noise_D @ noise_D == pytest.approx(2.5, rel=0.03) and abs(noise_D.sum()) < 5 * 2.5**0.5


def test_jobs_of_one_version_share_a_copy_that_is_kept_as_long_as_one_needs_it():
    ensemble = Ensemble(diagonal([1.0], start=1.0), [0.5], seeds_R=[0])
    ensemble.given(0, version=0)
    ensemble.given(1, version=0)
    assert ensemble.read(0) is ensemble.read(1)
    first = ensemble.read(0)
    ensemble.compute(worker=0, job=0)
    ensemble.execute(Apply(StepSize(1.0, 1.0), 1.0))
    ensemble.ended(0)
    ensemble.given(2, version=1)
    assert ensemble.read(2) is not first and ensemble.read(2)[0, 0, 0] == 0.5
    assert ensemble.read(1) is first and first[0, 0, 0] == 1.0  # job 1 has still what it was given
    ensemble.ended(1)
    with pytest.raises(KeyError):
        ensemble.read(1)
    ensemble.given(3, version=2)
    assert ensemble.read(3) is first  # nobody needed it any more: its memory serves again
    assert ensemble.read(2)[0, 0, 0] == 0.5


def test_a_long_run_keeps_no_more_copies_than_versions_in_flight():
    kept = []
    config = study_config("asynchronous", 3, speeds={"profile": "linear"}, budget={"versions": 200})

    def look(now_s, ensemble):
        kept.append(len({id(ensemble.read(job)) for job in list(ensemble._read)}) + len(ensemble._spare))

    run_study(config, diagonal([1.0]), [0.1], seeds_R=[0], on_event=look)
    assert len(kept) > 200 and max(kept) <= 4


def test_the_cores_step_size_must_be_one():
    ensemble = Ensemble(diagonal([1.0]), [0.5], seeds_R=[0])
    ensemble.given(0, version=0)
    ensemble.compute(worker=0, job=0)
    with pytest.raises(ValueError, match=r"must be 1, not 0\.5"):
        ensemble.execute(Apply(StepSize(0.5, 0.5), 1.0))


def test_gradient_norms_and_divergence():
    ensemble = Ensemble(diagonal([2.0, 1.0], start=[1.0, 3.0]), [0.1, 100.0], seeds_R=[0])
    assert ensemble.gradient_norms().tolist() == [[13.0], [13.0]]
    for job in range(40):
        ensemble.given(job, version=job)
        ensemble.compute(worker=0, job=job)
        ensemble.execute(Apply(StepSize(1.0, 1.0), 1.0))
    small, diverged = ensemble.gradient_norms().ravel()
    assert small < 0.01 and diverged == np.inf
