"""A small benchmark, and stand-ins for what does its work: results by a formula, and no processes."""

from __future__ import annotations

import math

from asgd.bench.minibatch.machine import this_machine
from asgd.bench.minibatch.measuring import Job
from asgd.bench.minibatch.plan import load_plan
from asgd.bench.minibatch.results import Look, RealRun, Record, plain
from asgd.config import load_config
from asgd.sim.parallel import Done
from asgd.sim.tuning import STEP_SIZE, Measured

CONFIG = {
    "task": {"function": "quadratic", "batch_size": 2},
    "cluster": {"num_workers": 4, "speeds": {"profile": "half_slower", "seconds": 0.1, "factor": 4.0}},
    "budget": {"time_s": 8.0},
    "evaluation": {"every_samples": 4},
    "benchmark": {
        "metric": "test_accuracy", "target": 0.5, "lowest": 0.25, "highest": 2.0, "per_octave": 1, "tuning_seeds": 2,
        "methods": ["asynchronous:scale", "minibatch"], "seeds": 3, "widen": 1,
    },
}  # fmt: skip


def plan_of(*overrides, **benchmark):
    return load_plan({**CONFIG, "benchmark": {**CONFIG["benchmark"], **benchmark}}, overrides)


def record_of(plan):
    return Record(plan=plain(plan), machine=this_machine("asgd bench minibatch"))


def seconds_to_target(method, step_size, best, seed=0):
    """Least at the best step size: 1 s for asynchronous, 3 s for mini-batch, twice that an octave away."""
    return (1.0 if method == "asynchronous" else 3.0) * 2 ** abs(math.log2(step_size / best)) + 0.01 * seed


class Simulator:
    """In place of `simulate_all`: the best step size in virtual time; ends early after `most` simulations."""

    def __init__(self, best=0.5, most=10**6, limit_s=8.0):
        self.best, self.most, self.limit_s = best, most, limit_s
        self.asked = []

    def __call__(self, work, stops):
        for index, overrides in enumerate(work.overrides):
            if len(self.asked) >= self.most:
                stops.ask("interrupted by SIGINT")
                return
            config = load_config({"budget": {"time_s": 8.0}}, overrides)
            self.asked.append((config.method.name, config.method.step_size, config.seed))
            time_s = seconds_to_target(config.method.name, config.method.step_size, self.best, config.seed)
            reached = time_s <= self.limit_s
            yield Done(
                index,
                Measured(
                    score=time_s if reached else None, diverged=False, versions=1, gradients=1, discarded=0,
                    time_s=time_s, final=None if reached else 0.4,
                ),
            )  # fmt: skip


class Runner:
    """In place of `run_job`: the best step size for real, which may be another one."""

    def __init__(self, best=0.5, missing=(), most=10**6):
        self.best, self.missing, self.most = best, missing, most
        self.jobs: list[Job] = []

    def __call__(self, plan, job, folder, data_root, stops):
        if len(self.jobs) >= self.most:
            raise KeyboardInterrupt
        self.jobs.append(job)
        method = job.contender.method
        time_s = seconds_to_target(method, job.values[STEP_SIZE], self.best, job.seed % 100)
        rate = 25.0 if method == "asynchronous" else 10.0
        looks = [Look(0.0, 0, 0.1), Look(time_s, round(time_s * rate) * 2, 0.5), Look(8.0, round(8 * rate) * 2, 0.7)]
        if (job.contender.key, job.seed) in self.missing or time_s > job.budget_s:
            looks[1:] = [Look(job.budget_s, round(job.budget_s * rate) * 2, 0.4)]
        return RealRun(
            setting=job.setting, contender=job.contender.key, values=job.values, seed=job.seed, purpose=job.purpose,
            budget_s=job.budget_s, looks=looks, gradients=round(job.budget_s * rate), used=1,
            samples=round(job.budget_s * rate) * 2, versions=1, wall_s=job.budget_s, delay_mean=2.0, delay_max=5,
            server_busy=0.1,
        )  # fmt: skip
