"""How many gradients per second the speeds alone allow: what a measured throughput is put beside."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from asgd.bench.minibatch.plan import Contender, Plan
from asgd.bench.minibatch.results import RealRun
from asgd.config import Config
from asgd.sim.tuning import STEP_SIZE


def predict(plan: Plan, setting: str, contender: Contender, baseline: Sequence[RealRun]) -> float | None:
    """How many gradients per second arrive by the speeds of a setting.

    Formula: with h_i the mean seconds per job of worker i: sum_i 1/h_i for asynchronous SGD; n / (the mean of the
    longest job of a round) for mini-batch SGD, which is n / max_i h_i where speeds don't change. Emulated speeds give
    the means over the measured seeds and a run's length. Any other method: its own decisions in virtual time, driven by
    these speeds. Real speeds: the means are those that the workers of the mini-batch runs measured, and other methods
    have no prediction.

    Arguments: baseline: the measured mini-batch runs of the setting.
    """
    if plan.is_real(setting):
        return _by_measured(contender, [run for run in baseline if not run.diverged])
    values = {STEP_SIZE: 1.0}
    configs = [plan.run_config(setting, contender, values, seed) for seed in plan.fresh_seeds]
    if contender.method in ("asynchronous", "minibatch"):
        from asgd.bench.claims.profiles import pace

        speeds = pace(configs, plan.config.budget.time_s)
        return speeds.asynchronous if contender.method == "asynchronous" else speeds.minibatch
    return fmean(_in_virtual_time(config) for config in configs)


def _by_measured(contender: Contender, baseline: Sequence[RealRun]) -> float | None:
    if contender.method == "minibatch":
        rounds_s = [(len(run.seconds_N), run.round_s) for run in baseline if run.seconds_N and run.round_s]
        return fmean(n / round_s for n, round_s in rounds_s) if rounds_s else None
    if contender.method == "asynchronous":
        speeds = [sum(1.0 / seconds for seconds in run.seconds_N) for run in baseline if run.seconds_N]
        return fmean(speeds) if speeds else None
    return None


def _in_virtual_time(config: Config) -> float:
    """Gradients per second of the deciding core alone, whose jobs compute nothing."""
    from asgd.run.build import make_state
    from asgd.sim.simulate import emulated
    from asgd.sim.virtual import VirtualCluster

    state = make_state(config)
    seconds = VirtualCluster(state, config.cluster.num_workers, emulated(config)).run()
    return state.gradients / seconds
