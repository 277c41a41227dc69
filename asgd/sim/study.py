"""One study in virtual time: a method and rule at given speeds on an ensemble, with its way to the optimum.

Legend of the suffixes: _T points of the curve, _E step sizes, _R seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from asgd.config import Config, load_config
from asgd.core.events import Stop
from asgd.core.methods import METHODS
from asgd.core.state import ServerState
from asgd.core.trace import TraceRow
from asgd.errors import ConfigError
from asgd.run.build import make_state, validate
from asgd.sim.ensemble import Ensemble
from asgd.sim.ordered import Jobs, run_order
from asgd.sim.problems import Problem
from asgd.sim.simulate import emulated
from asgd.sim.virtual import EndOfJob, VirtualCluster

Floats = npt.NDArray[np.float64]


@dataclass
class Curve:
    """||grad f||^2 of every member in the course of a run: points are taken at the start and every so many arrivals.

    Attributes: times_s, versions, gradients: one number per point; norms: [E, R] per point.
    """

    step_sizes_E: list[float]
    times_s: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    gradients: list[int] = field(default_factory=list)
    norms: list[Floats] = field(default_factory=list)

    def add(self, now_s: float, state: ServerState, norms_ER: Floats) -> None:
        self.times_s.append(now_s)
        self.versions.append(state.version)
        self.gradients.append(state.gradients)
        self.norms.append(norms_ER)

    def first_ER(self, eps: float, over: str = "times_s") -> Floats:
        """Where each member's ||grad f||^2 is first at most eps, in `over`: "times_s", "versions" or "gradients"."""
        return self._first(np.stack(self.norms), eps, over)

    def first_mean_ER(self, eps: float, over: str = "versions") -> Floats:
        """Where the mean of ||grad f||^2 over all updates so far is first at most eps: what the theorems bound."""
        norms_TER = np.stack(self.norms)
        weights_T = np.diff(np.asarray(self.versions, np.float64), prepend=0.0)
        weights_T[0] = 1.0
        sums_TER = np.cumsum(norms_TER * weights_T[:, None, None], axis=0)
        return self._first(sums_TER / np.cumsum(weights_T)[:, None, None], eps, over)

    def below_ER(self, eps: float, over: str = "versions") -> Floats:
        """From where on each member's ||grad f||^2 stays at most eps to the end of the curve."""
        above_TER = np.stack(self.norms) > eps
        stays_TER = ~np.flip(np.logical_or.accumulate(np.flip(above_TER, 0), axis=0), 0)
        return self._at(stays_TER, over)

    def _first(self, values_TER: Floats, eps: float, over: str) -> Floats:
        return self._at(values_TER <= eps, over)

    def _at(self, reached_TER: npt.NDArray[np.bool_], over: str) -> Floats:
        places_T = np.asarray(getattr(self, over), np.float64)
        first_ER = places_T[np.argmax(reached_TER, axis=0)]
        return np.where(reached_TER.any(axis=0), first_ER, np.inf)


class Tuned(NamedTuple):
    """The best member of a grid: its step size, what it needed with each seed, and whether it is at the grid's edge."""

    step_size: float
    values_R: Floats
    at_edge: bool

    @property
    def mean(self) -> float:
        return float(self.values_R.mean())


def tuned(step_sizes_E: Sequence[float], needed_ER: Floats) -> Tuned:
    """The step size with the smallest mean over the seeds (members that never got there count as infinite).

    Example:
        >>> tuned([0.1, 0.2, 0.4], np.array([[9.0, 9.0], [5.0, 7.0], [np.inf, 4.0]])).step_size
        0.2
    """
    best = int(np.argmin(needed_ER.mean(axis=1)))
    return Tuned(step_sizes_E[best], needed_ER[best], best in (0, len(step_sizes_E) - 1))


def study_config(
    method: str = "asynchronous",
    num_workers: int = 1,
    *,
    rule: str = "scale",
    speeds: Mapping[str, Any] | None = None,
    budget: Mapping[str, Any],
    seed: int = 0,
    **of_method: Any,
) -> Config:
    """The configuration of a study: base step size 1 (an ensemble has its own), no schedule."""
    config = load_config(
        {
            "seed": seed,
            "method": {
                "name": method,
                "rule": rule,
                "step_size": 1.0,
                "local_steps": 1 if METHODS[method].answers == "parameters" else 0,
                **of_method,
            },
            "cluster": {"num_workers": num_workers, "speeds": {"profile": "equal", "seconds": 1.0, **(speeds or {})}},
            "budget": dict(budget),
        }
    )
    validate(config)
    return config


def until_below(eps: float) -> Callable[[Curve], bool]:
    """Stop a quarter (in virtual time) after ||grad f||^2 of some step size was at most eps with all seeds: slower ones
    can't win any more.
    """
    stop_s = float("inf")

    def done(curve: Curve) -> bool:
        nonlocal stop_s
        if stop_s == float("inf") and bool((curve.norms[-1] <= eps).all(axis=1).any()):
            stop_s = 1.25 * curve.times_s[-1]
        return curve.times_s[-1] >= stop_s

    return done


def until_mean_below(eps: float) -> Callable[[Curve], bool]:
    """Stop when the mean of ||grad f||^2 over all updates so far is at most eps for all that haven't diverged."""
    total: Floats | None = None

    def done(curve: Curve) -> bool:
        nonlocal total
        weight = curve.versions[-1] - curve.versions[-2] if len(curve.versions) > 1 else 1
        total = curve.norms[-1] * weight + (0.0 if total is None else total)
        return bool(((total <= eps * (curve.versions[-1] + 1)) | ~np.isfinite(total)).all())

    return done


@dataclass
class Study:
    """A finished study: its curve, the core at its end, its trace when that was asked for, and the virtual time."""

    curve: Curve
    state: ServerState
    rows: list[TraceRow]
    end_s: float


def run_study(
    config: Config,
    problem: Problem,
    step_sizes_E: Sequence[float],
    seeds_R: Sequence[int],
    *,
    every: int = 1,
    done: Callable[[Curve], bool] | None = None,
    end_of_job: EndOfJob | None = None,
    order: Callable[[Ensemble], Callable[[Jobs, int], int]] | None = None,
    keep_rows: bool = False,
    on_event: Callable[[float, Ensemble], None] | None = None,
) -> Study:
    """Run the configured method in virtual time on the problem, all step sizes and seeds at once.

    Arguments: every: arrivals between two points of the curve, >= 1; done: asked at each point whether to stop before
    the budget is used up, see `until_below` and `until_mean_below`; end_of_job: when jobs are done, instead of the
    configured speeds; order: who arrives next, instead of any speeds (see `run_order`; given the ensemble, so that it
    can look at the iterates); keep_rows: keep the trace; on_event: called after each event.

    Example:
        >>> from asgd.sim.problems import diagonal
        >>> config = study_config("asynchronous", 2, budget={"versions": 50})
        >>> study = run_study(config, diagonal([1.0]), [0.1, 0.2], seeds_R=[0])
        >>> study.curve.first_ER(1e-3, over="versions").ravel().tolist()
        [30.0, 12.0]
    """
    info = METHODS[config.method.name]
    if info.needs_read_parameters or info.needs_distance:
        raise ConfigError(
            f"method.name = {config.method.name!r}: what it does depends on the parameters, so its step sizes can't "
            "share a schedule; simulate them one by one"
        )
    state = make_state(config)
    ensemble = Ensemble(problem, step_sizes_E, seeds_R, parameters=info.answers == "parameters")
    curve = Curve(list(step_sizes_E))
    rows: list[TraceRow] = []
    next_point = 0

    def after(now_s: float) -> None:
        nonlocal next_point
        if on_event is not None:
            on_event(now_s, ensemble)
        if state.begun and state.gradients >= next_point:
            next_point += every
            curve.add(now_s, state, ensemble.gradient_norms())
            if done is not None and state.finished is None and done(curve):
                state.handle(Stop("the target is reached", now_s))

    on_row = rows.append if keep_rows else lambda row: None
    num_workers = config.cluster.num_workers
    if order is not None:
        run_order(state, num_workers, order(ensemble), ensemble, on_row, after)
        return Study(curve, state, rows, float(state.gradients))
    cluster = VirtualCluster(
        state, num_workers, end_of_job or emulated(config), ensemble, on_row=on_row, on_event=after
    )
    return Study(curve, state, rows, cluster.run())
