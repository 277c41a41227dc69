"""Orders of arrival with a constant concurrency and a largest delay to choose: from one straggler to an adversary.

Each takes the number of workers n (one job each, so tau_C = n) and the largest delay D >= 2n, and gives what
`run_study` wants for its `order`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from asgd.sim.ensemble import Ensemble
from asgd.sim.ordered import Jobs

Choose = Callable[[Jobs, int], int]
Order = Callable[[int, int], Callable[[Ensemble], Choose]]


def _oldest(jobs: Jobs, workers: range) -> int:
    """The worker whose job was given first; for those in `workers`."""
    return min((worker for worker in jobs if worker in workers), key=lambda worker: jobs[worker][0][0])


def stragglers(num_slow: int) -> Order:
    """The last `num_slow` workers answer when their delay is D, evenly spread; the others take turns."""

    def order(num_workers: int, max_delay: int) -> Callable[[Ensemble], Choose]:
        slow, fast = range(num_workers - num_slow, num_workers), range(num_workers - num_slow)
        started: dict[int, int] = {}

        def choose(jobs: Jobs, version: int) -> int:
            for place, worker in enumerate(slow):
                number, read_version = jobs[worker][0]
                # The first round is cut short, so that they don't all come at once.
                due = max_delay * (place + 1) // num_slow if started.setdefault(worker, number) == number else max_delay
                if version - read_version >= due:
                    return worker
            return _oldest(jobs, fast)

        return lambda ensemble: choose

    return order


def burst(num_workers: int, max_delay: int) -> Callable[[Ensemble], Choose]:
    """Worker 0 is alone for a long time; then the stale answers of all others come in a row, the last with delay D."""
    held = range(1, num_workers)
    bursting = False

    def choose(jobs: Jobs, version: int) -> int:
        nonlocal bursting
        oldest = _oldest(jobs, held)
        age = version - jobs[oldest][0][1]
        if not bursting:
            bursting = age >= max_delay - (num_workers - 2)
        elif age < num_workers:  # all of them have answered
            bursting = False
        return oldest if bursting else 0

    return lambda ensemble: choose


def adversary(num_workers: int, max_delay: int) -> Callable[[Ensemble], Choose]:
    """Always the answer that does the most harm: of all gradients in flight the one with the smallest inner product
    with the gradient at the current iterate. But one answer, at first the oldest and then always the one with the
    largest gradient, is held until its delay is D; no other gets older than that. For one member only.
    """

    def order(ensemble: Ensemble) -> Choose:
        assert ensemble.x_ERD.shape[:2] == (1, 1), "an adversary plays against one run"
        held = num_workers - 1

        def gradients(workers: Sequence[int], jobs: Jobs) -> np.ndarray:
            read_WD = np.stack([ensemble.read(jobs[worker][0][0])[0, 0] for worker in workers])
            gradients_WD = np.empty_like(read_WD)
            with np.errstate(over="ignore", invalid="ignore"):
                ensemble.problem.gradient(read_WD, None, out=gradients_WD)
            return gradients_WD

        def choose(jobs: Jobs, version: int) -> int:
            nonlocal held
            if version - jobs[held][0][1] >= max_delay:
                due, others = held, [worker for worker in jobs if worker != held]
                with np.errstate(over="ignore", invalid="ignore"):
                    held = others[int(np.argmax(np.linalg.norm(gradients(others, jobs), axis=1)))]
                return due
            free = [worker for worker in jobs if worker != held]
            oldest = min(free, key=lambda worker: jobs[worker][0][0])
            if version - jobs[oldest][0][1] >= max_delay - num_workers:
                return oldest
            now_D = np.empty_like(ensemble.x_ERD[0, 0])
            with np.errstate(over="ignore", invalid="ignore"):
                ensemble.problem.gradient(ensemble.x_ERD[0, 0], None, out=now_D)
                return free[int(np.argmin(gradients(free, jobs) @ now_D))]

        return choose

    return order


ORDERS: dict[str, Order] = {
    "one straggler": stragglers(1),
    "half are stragglers": lambda n, max_delay: stragglers(n // 2)(n, max_delay),
    "burst": burst,
    "adversary": adversary,
}
