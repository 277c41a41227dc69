"""How fast a method goes at given worker times: the core alone, driven by them, with jobs that compute nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from asgd.config import Config, load_config
from asgd.core.trace import TraceRow
from asgd.run.build import make_state, validate
from asgd.run.ledger import USED
from asgd.sim.rates import damping, updates
from asgd.sim.virtual import VirtualCluster

MOST_ARRIVALS = 20_000
BEGINNING = 0.25  # of the time, left out: all workers begin at once there


class Pace(NamedTuple):
    """A method's updates at given speeds.

    Arguments: update_s: seconds per update; batch: gradients in one; damping, spread: see `asgd.sim.rates.updates`;
    gradients_per_s: that arrive; discarded_share: of those, 0 to 1; mean_delay: of those that are used, in updates.
    """

    update_s: float
    batch: float
    damping: float
    spread: float
    gradients_per_s: float
    discarded_share: float
    mean_delay: float

    def time(self, noise: float) -> float:
        """Predicted seconds until ||grad f||^2 is at most eps, in units of L Delta/eps; noise: sigma^2/eps.

        Example:
            >>> Pace(2.0, 16.0, 1.0, 1.0, 8.0, 0.0, 0.0).time(noise=32.0)
            6.0
        """
        return self.update_s * updates(noise, self.batch, self.damping, self.spread)


def measure_pace(
    times_N: Sequence[Sequence[float]],
    method: str,
    rule: str = "scale",
    options: Mapping[str, Any] | None = None,
    rule_options: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Pace | None:
    """Drive the core with jobs of these lengths and look at its decisions; None if it made no update.

    Arguments: times_N: seconds per job of each worker, at least one, > 0; each job's is drawn from them; method, rule:
    with their options; seed: of the drawing.

    Example:
        >>> pace = measure_pace([[1.0], [1.0], [4.0], [4.0]], "asynchronous")
        >>> round(1 / pace.update_s, 2), round(pace.mean_delay, 1)
        (2.5, 3.0)
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, 0]))
    drawn_N = [np.asarray(times, np.float64) for times in times_N]

    def end_of_job(worker: int, job: int, now_s: float) -> float:
        times = drawn_N[worker]
        return now_s + float(times[0] if len(times) == 1 else times[generator.integers(len(times))])

    config = _config(len(times_N), method, rule, options or {}, rule_options or {}, _arrivals(drawn_N, options or {}))
    rows: list[TraceRow] = []
    end_s = VirtualCluster(make_state(config), len(times_N), end_of_job, on_row=rows.append).run()
    return _look_at(rows, end_s)


def _arrivals(times_N: Sequence[np.ndarray], options: Mapping[str, Any]) -> int:
    """Enough for every worker to have finished some jobs, and for some steps."""
    means = [float(times.mean()) for times in times_N]
    slowest_jobs = 8 * max(means) * sum(1.0 / mean for mean in means)
    steps = 60 * int(options.get("batch", 1))
    return int(min(MOST_ARRIVALS, max(2000, 40 * len(means), slowest_jobs, steps)))


def _config(
    num_workers: int, method: str, rule: str, options: Mapping[str, Any], of_rule: Mapping[str, Any], arrivals: int
) -> Config:
    config = load_config(
        {
            "method": {
                "name": method, "rule": rule, "options": dict(options), "rule_options": dict(of_rule), "step_size": 1.0
            },
            "cluster": {"num_workers": num_workers, "speeds": {"profile": "equal"}},
            "budget": {"gradients": arrivals},
        }
    )  # fmt: skip
    validate(config)
    return config


def _look_at(rows: Sequence[TraceRow], end_s: float) -> Pace | None:
    from_s = BEGINNING * end_s
    rows = [row for row in rows if row.time_s > from_s]
    if not rows:
        return None
    seconds = end_s - from_s
    num_updates = sum(row.steps for row in rows)
    used = [row for row in rows if row.action in USED]
    if not num_updates or not used:
        return None
    # An accumulated gradient has no step size of its own: its step's weighs all of them alike.
    kinds = Counter((row.delay, row.step_size if row.action == "apply" else 1.0) for row in used)
    shares, delays = [count / len(used) for count in kinds.values()], [float(delay) for delay, _ in kinds]
    weights = [float(weight or 0.0) for _, weight in kinds]
    mean = sum(share * weight for share, weight in zip(shares, weights, strict=True))
    square = sum(share * weight**2 for share, weight in zip(shares, weights, strict=True))
    return Pace(
        update_s=seconds / num_updates,
        batch=len(used) / num_updates,
        damping=damping(shares, delays, weights),
        spread=square / mean**2,
        gradients_per_s=len(rows) / seconds,
        discarded_share=1.0 - len(used) / len(rows),
        mean_delay=sum(share * delay for share, delay in zip(shares, delays, strict=True)),
    )
