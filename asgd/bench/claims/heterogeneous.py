"""Claim 5: different data. What delays cost Algorithm 2 there, and the bias of steps that depend on the delay.

Quadratics f_i(x) = |x|^2/2 + <b_i, x> with sum_i b_i = 0, so that L = 1, x* = 0 and zeta_i = ||b_i|| everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from asgd.bench.claims.effort import Effort
from asgd.bench.claims.orders import Choose
from asgd.bench.claims.outcome import Measured, Outcome, Row, judge_at_most, judge_attained, judge_equal
from asgd.bench.claims.statistics import exponents, mean
from asgd.report.plots import Line, Plot
from asgd.run.build import make_state
from asgd.sim.ensemble import Ensemble
from asgd.sim.ordered import Jobs
from asgd.sim.problems import Problem, diagonal
from asgd.sim.simulate import emulated
from asgd.sim.study import run_study, study_config
from asgd.sim.virtual import VirtualCluster

CLIENTS, STEP, DIMENSION = 256, 0.01, 4


class Floor(NamedTuple):
    """The mean of ||grad f||^2 when it no longer falls, and the theorem's term at L = 1, eta^2 tau_avg mean_i(zeta_i^2
    tau_avg^i), from the delays that there were.
    """

    norm: float
    term: float
    max_delay: int


def opposed(num_workers: int, who: str = "all") -> Problem:
    """Even clients pull one way, odd ones the other, from the minimiser: all of them with zeta_i = 1, or the first
    half only ("prompt") or the second half only ("late") with zeta_i = sqrt(2) and the others not at all.
    """
    pulls_N = np.where(np.arange(num_workers) % 2 == 0, 1.0, -1.0)
    if who != "all":
        silent = slice(num_workers // 2, None) if who == "prompt" else slice(0, num_workers // 2)
        pulls_N *= math.sqrt(2.0)
        pulls_N[silent] = 0.0
    return diagonal([1.0] * DIMENSION, start=0.0, shifts=np.outer(pulls_N, np.full(DIMENSION, DIMENSION**-0.5)))


def against(num_workers: int, late: bool = False, num_held: int = 0, hold_for: int = 0) -> Callable[[Ensemble], Choose]:
    """An order against the method: all answers that pull one way, until none is left, then all that pull the other way.

    Arguments: late: the second half of the clients is heard only when none of the first half has a job; num_held,
    hold_for: so many jobs at a time are held until they have that delay, whoever has them.
    """
    side = 0
    held: dict[int, int] = {}  # job -> its worker

    def choose(jobs: Jobs, version: int) -> int:
        nonlocal side
        heads = {worker: queue[0] for worker, queue in jobs.items()}
        for worker in sorted(heads, key=lambda worker: heads[worker][0], reverse=True):
            if len(held) < num_held and heads[worker][0] not in held:
                held[heads[worker][0]] = worker
        for job, worker in held.items():
            if version - heads[worker][1] >= hold_for:
                del held[job]
                return worker
        free = [worker for worker in heads if worker not in held.values()]
        heard = (late and [worker for worker in free if worker < num_workers // 2]) or free or list(heads)
        if not any(worker % 2 == side for worker in heard):
            side = 1 - side
        chosen = min((worker for worker in heard if worker % 2 == side), key=lambda worker: heads[worker])
        held.pop(heads[chosen][0], None)
        return chosen

    return lambda ensemble: choose


def floor(problem: Problem, num_workers: int, concurrency: int, seed: int, updates: int, **of_run: Any) -> Floor:
    """Algorithm 2 with a constant step from the minimiser: its mean ||grad f||^2 over the last three quarters."""
    speeds = of_run.pop("speeds", None)
    config = study_config(
        "random_assignment", num_workers, rule="constant", budget={"versions": updates}, seed=seed,
        options={"concurrency": concurrency}, speeds=speeds,
    )  # fmt: skip
    study = run_study(config, problem, [STEP], [0], every=4, **of_run)
    norms_T = np.array([norms_ER[0, 0] for norms_ER in study.curve.norms])
    stats, ledger = study.state.ledger.per_worker, study.state.ledger
    # A client that was never drawn has no delay to average; there are many draws per client where they differ.
    delays_N = np.array([stats[w].delay_sum / stats[w].used if stats[w].used else 0.0 for w in range(num_workers)])
    assert problem.shifts_ND is not None
    zeta2_N = np.sum(problem.shifts_ND.astype(np.float64) ** 2, axis=1)
    average = ledger.mean_used_delay() or 0.0
    used_N = np.array([stats[w].used for w in range(num_workers)])
    heterogeneity = float(np.sum(zeta2_N * delays_N * used_N) / used_N.sum())
    norm = float(norms_T[len(norms_T) // 4 :].mean())
    return Floor(norm, STEP**2 * average * heterogeneity, ledger.max_used_delay)


def opposed_floor(
    concurrency: int,
    seed: int,
    updates: int,
    who: str = "all",
    late: bool = False,
    num_held: int = 0,
    hold_for: int = 0,
) -> Floor:
    """The floor of opposed clients whose answers come in the order against them."""
    order = against(CLIENTS, late, num_held, hold_for)
    return floor(opposed(CLIENTS, who), CLIENTS, concurrency, seed, updates, order=order)


def placed_floor(who: str, seed: int, updates: int) -> Floor:
    """The floor of 16 workers of which the second half is 4 times slower, by who of them has other data."""
    return floor(opposed(16, who), 16, 16, seed, updates, speeds={"profile": "half_slower", "factor": 4.0})


class Delays(NamedTuple):
    """Floors above the one without delays, by setting (outer) and seed, and the settings' terms and largest delays."""

    excess: np.ndarray
    terms: np.ndarray
    max_delays: list[float]


def measure_floors(effort: Effort, updates: int, seeds: Sequence[int], cells: Sequence[tuple[Any, ...]]) -> Delays:
    """The floors of opposed clients; a cell holds concurrency, who, late, num_held and hold_for."""
    base = np.mean([f.norm for f in effort.map(opposed_floor, [(1, 1000 + seed, updates) for seed in seeds])])
    arguments = [(cell[0], seed, updates, *cell[1:]) for cell in cells for seed in seeds]
    floors = effort.map(opposed_floor, arguments)
    rows = [floors[i : i + len(seeds)] for i in range(0, len(floors), len(seeds))]
    return Delays(
        np.array([[f.norm - base for f in row] for row in rows]),
        np.array([[f.term for f in row] for row in rows]),
        [float(np.mean([f.max_delay for f in row])) for row in rows],
    )


def average_rows(by_concurrency: Delays, by_worker: Delays, by_largest: Delays, num_held: int) -> list[Row]:
    """The rows of the first part."""
    grown = exponents(by_concurrency.terms.T.tolist(), by_concurrency.excess.T.tolist())
    shares = by_concurrency.excess.mean(axis=1) / by_concurrency.terms.mean(axis=1)
    prompt, late = by_worker.excess
    terms = by_worker.terms.mean(axis=1)
    more = mean((late - prompt).tolist())
    of_largest = exponents([by_largest.max_delays] * by_largest.excess.shape[1], by_largest.excess.T.tolist())
    ends = f"{by_largest.max_delays[0]:.0f} to {by_largest.max_delays[-1]:.0f}"
    return [
        Row("order against the method, C varied: floor above that without delays, in the theorem's term",
            "at most term^1, which may be attained", grown, judge_attained(grown, 1.0, 0.5)),
        Row("the same / term, for each C", "at most a constant", ", ".join(f"{s:.2f}" for s in shares), "finding"),
        Row("half of the clients heard first: floor with zeta on the late half minus floor with it on the prompt one",
            f"above 0, at most {terms[1] - terms[0]:.3g}", more, judge_at_most(_negative(more), 0.0)),
        Row(f"{num_held} of 16 jobs held, tau_max {ends}: floor above that without delays, in tau_max",
            "at most tau_max^0 (older: ^1)", of_largest, judge_at_most(of_largest, 0.1)),
        Row("the term of the theorem there, largest / smallest", "", f"{_spread(by_largest.terms):.2f}", "finding"),
    ]  # fmt: skip


def _negative(measured: Measured) -> Measured:
    low, high = measured.low, measured.high
    return Measured(-measured.value, None if high is None else -high, None if low is None else -low)


def _spread(terms: np.ndarray) -> float:
    means = terms.mean(axis=1)
    return float(means.max() / means.min())


def average_delays(effort: Effort, updates: int, seeds: Sequence[int]) -> tuple[list[Row], list[Plot], str]:
    """What the delays cost at different data: the theorem's term, and whether it is the one that counts."""
    concurrencies = [4, 8, 16] if effort.quick else [4, 8, 16, 32]
    holds = [64, 128, 256] if effort.quick else [64, 128, 256, 512, 1024]
    num_held = 8
    by_concurrency = measure_floors(effort, updates, seeds, [(c,) for c in concurrencies])
    by_worker = measure_floors(effort, updates, seeds, [(16, who, True) for who in ("prompt", "late")])
    by_largest = measure_floors(effort, updates, seeds, [(16, "all", False, num_held, hold) for hold in holds])
    rows = average_rows(by_concurrency, by_worker, by_largest, num_held)
    natural = {}
    for who in ("prompt", "late"):
        some = effort.map(placed_floor, [(who, seed, updates) for seed in seeds])
        natural[who] = mean([f.norm / STEP for f in some])
        setting = (
            f"emulated speeds, half 4x slower, the {'fast' if who == 'prompt' else 'slow'} ones differ: floor / eta"
        )
        rows.append(Row(setting, "", natural[who], "finding"))
    terms, excess = by_concurrency.terms.mean(axis=1), by_concurrency.excess.mean(axis=1)
    plots = [
        Plot("claim5_term", "Algorithm 2, different data, order against the method: what delays add to the floor",
             "η² L² τ_avg mean_i(ζ_i² τ_avg^i), by concurrency", "mean of ||∇f||² above that without delays",
             [Line("measured", terms.tolist(), excess.tolist()),
              Line("the term", terms.tolist(), terms.tolist(), style="predicted")], log_x=True, log_y=True),
        Plot("claim5_largest", "Algorithm 2, different data: the largest delay at fixed average delays",
             "largest delay τ_max", "mean of ||∇f||² above that without delays",
             [Line(f"{num_held} of 16 jobs held", by_largest.max_delays, by_largest.excess.mean(axis=1).tolist())],
             log_x=True, log_y=True),
    ]  # fmt: skip
    words = (
        "Against the method, the delays' part of the floor grows as the theorem's term to the power "
        f"{rows[0].measured}, is larger by {rows[2].measured} with the same heterogeneity on late clients than with "
        f"it on prompt ones, and grows as tau_max to the power {rows[3].measured} at the same average delays. With "
        f"emulated speeds the floor / eta is {natural['late']} where the slow workers differ and {natural['prompt']} "
        "where the fast ones do."
    )
    return rows, plots, words


def bias_run(method: str, rule: str, factor: float, seed: int, updates: int) -> tuple[float, float]:
    """The mean of <x, u> over the second half, where the fast workers pull to +u and the slow ones to -u (a unit
    vector); and the point that is predicted from another run of the core alone, without vectors.

    Formula: x_inf = -sum_i w_i b_i / sum_i w_i with w_i = the sum of the step sizes of worker i.
    """
    num_workers = 8
    direction_D = np.full(DIMENSION, DIMENSION**-0.5)
    pulls_N = np.where(np.arange(num_workers) < num_workers // 2, -1.0, 1.0)
    problem = diagonal([1.0] * DIMENSION, start=0.0, shifts=np.outer(pulls_N, direction_D))
    speeds = {"profile": "half_slower", "factor": factor}
    config = study_config(method, num_workers, rule=rule, speeds=speeds, budget={"versions": updates}, seed=seed)
    places: list[float] = []
    run_study(
        config, problem, [STEP], [0], every=10**9,
        on_event=lambda now_s, ensemble: places.append(float(ensemble.x_ERD[0, 0] @ direction_D)),
    )  # fmt: skip
    weights_N = np.zeros(num_workers)
    other = study_config(method, num_workers, rule=rule, speeds=speeds, budget={"versions": updates}, seed=seed + 1000)

    def weigh(row: Any) -> None:
        if row.step_size is not None:
            weights_N[row.worker] += row.step_size

    VirtualCluster(make_state(other), num_workers, emulated(other), on_row=weigh).run()
    predicted = -float(weights_N @ pulls_N / weights_N.sum())
    return float(np.mean(places[len(places) // 2 :])), predicted


# method, rule, name, what is predicted by hand (None: from the step sizes), whether chance is in it
BIASES: list[tuple[str, str, str, float | None, bool]] = [
    ("random_assignment", "constant", "Algorithm 2, constant step", 0.0, True),
    ("random_assignment", "scale", "Algorithm 2, scale", None, True),
    ("random_assignment", "drop", "Algorithm 2, drop above 2 tau_C", None, True),
    ("asynchronous", "constant", "Algorithm 1, constant step", 0.6, False),  # (4 - 1) of 5 steps
    ("asynchronous", "scale", "Algorithm 1, scale", None, False),
    ("rescaled", "constant", "Rescaled", 0.0, False),
]
TOLERANCE = 0.01  # of an average over a deterministic run


def biases(effort: Effort, updates: int, seeds: Sequence[int]) -> tuple[list[Row], str]:
    """The second part: the points that the methods go to, beside those that are predicted."""
    rows, words = [], []
    for method, rule, name, by_hand, chance in BIASES:
        runs = effort.map(bias_run, [(method, rule, 4.0, seed, updates) for seed in (seeds if chance else seeds[:1])])
        measured = mean([run[0] for run in runs])
        expected = float(np.mean([run[1] for run in runs])) if by_hand is None else by_hand
        source = "from the step sizes" if by_hand is None else "by hand"
        rows.append(
            Row(f"fast workers pull to +1, slow ones (4x) to -1: limit point of {name}", f"{expected:.3f} ({source})",
                measured, judge_equal(measured, expected, 0.0 if chance else TOLERANCE))
        )  # fmt: skip
        words.append(f"{name} {measured.value:.3f} (predicted {expected:.3f})")
    return rows, f"Limit points where fast and slow workers pull to +1 and -1: {'; '.join(words)}."


def check(effort: Effort) -> Outcome:
    """Both parts."""
    updates, seeds = (6_000, [0, 1, 2]) if effort.quick else (40_000, effort.seeds(6))
    rows, plots, first = average_delays(effort, updates, seeds)
    bias_rows, second = biases(effort, updates, seeds)
    return Outcome(rows + bias_rows, f"{first} {second}", plots)
