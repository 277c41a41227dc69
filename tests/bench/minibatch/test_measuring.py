"""One real run: what a contender that diverges, or fails otherwise, comes to."""

from __future__ import annotations

import pytest
from helpers.benchmark import plan_of

from asgd.bench.minibatch.measuring import Job, run_job
from asgd.errors import RunError
from asgd.run.signals import StopRequests
from asgd.sim.tuning import STEP_SIZE


def failing(sentence):
    def train(*arguments, **options):
        raise RunError(sentence)

    return train


@pytest.fixture(params=["asynchronous:scale", "minibatch", "ddp"])
def job(request):
    contender = next(one for one in plan_of(ddp=True).contenders if one.key == request.param)
    return Job(
        purpose="measure", setting="half_slower", contender=contender, values={STEP_SIZE: 0.5}, seed=100, budget_s=8.0
    )


@pytest.fixture
def fail(monkeypatch):
    def set_up(sentence):
        monkeypatch.setattr("asgd.bench.minibatch.measuring.train", failing(sentence))
        monkeypatch.setattr("asgd.bench.ddp.run_ddp", failing(sentence))

    return set_up


def test_a_run_that_diverges_is_a_row_whoever_ran_it(job, fail, tmp_path):
    fail("diverged: the last 10 losses of rank 0 were not finite")
    row = run_job(plan_of(ddp=True), job, tmp_path, tmp_path, StopRequests())
    assert (row.contender, row.seed, row.diverged, row.looks) == (job.contender.key, 100, True, [])


def test_a_run_that_fails_otherwise_ends_the_benchmark(job, fail, tmp_path):
    fail("rank 0 of DDP died: killed by SIGKILL")
    with pytest.raises(RunError, match="killed by SIGKILL"):
        run_job(plan_of(ddp=True), job, tmp_path, tmp_path, StopRequests())
