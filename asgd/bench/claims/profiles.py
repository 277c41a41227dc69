"""The emulated speeds that claims are checked under, and how fast each lets the methods go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from asgd.config import Config
from asgd.run.speeds import PROFILES
from asgd.sim.simulate import emulated

NAMES = [name for name, units in PROFILES.items() if units is not None]


def speeds_of(profile: str, seconds: float = 1.0) -> dict[str, Any]:
    """The settings of `[cluster.speeds]`: the defaults, with periods and outages of 10 and 5 times `seconds`.

    Example:
        >>> speeds_of("outages", 0.01)["period_s"]
        0.1
    """
    return {"profile": profile, "seconds": seconds, "period_s": 10 * seconds, "outage_s": 5 * seconds}


class Pace(NamedTuple):
    """What speeds alone say: each worker's mean seconds per job, [n], and the mean of the longest of n at a time."""

    seconds_N: list[float]
    round_s: float

    @property
    def asynchronous(self) -> float:
        """Gradients per second when nobody waits: sum_i 1/h_i."""
        return sum(1.0 / seconds for seconds in self.seconds_N)

    @property
    def minibatch(self) -> float:
        """Gradients per second when all wait for the slowest of each round."""
        return len(self.seconds_N) / self.round_s


def pace(configs: Sequence[Config], horizon_s: float) -> Pace:
    """How fast the configured speeds are over `horizon_s` seconds, messages and updates left out.

    Arguments: configs: the same but for the seed, over which the means go too; horizon_s: much longer than a job.

    Example:
        >>> from asgd.sim.study import study_config
        >>> pace([study_config("asynchronous", 2, speeds={"profile": "linear"}, budget={"versions": 1})], 100.0)
        Pace(seconds_N=[1.0, 2.0], round_s=2.0)
    """
    num_workers = configs[0].cluster.num_workers
    spent_N, jobs_N, rounds_s, rounds = [0.0] * num_workers, [0] * num_workers, 0.0, 0
    for config in configs:
        end_of_job = emulated(config)
        for worker in range(num_workers):
            now_s, jobs = 0.0, 0
            while now_s < horizon_s:
                # Numbered as if the workers took turns: what is drawn for a job depends on its number.
                now_s = end_of_job(worker, jobs * num_workers + worker, now_s)
                jobs += 1
            spent_N[worker] += now_s
            jobs_N[worker] += jobs
        now_s, jobs = 0.0, 0
        while now_s < horizon_s:
            start_s = now_s
            now_s = max(end_of_job(worker, jobs + worker, start_s) for worker in range(num_workers))
            jobs += num_workers
        rounds_s, rounds = rounds_s + now_s, rounds + jobs // num_workers
    return Pace([spent / jobs for spent, jobs in zip(spent_N, jobs_N, strict=True)], rounds_s / rounds)
