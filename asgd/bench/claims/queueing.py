"""Claim 6: seconds per gradient of asynchronous and mini-batch SGD when clients are drawn at random, with queueing."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from asgd.bench.claims.effort import Effort
from asgd.bench.claims.outcome import Measured, Outcome, Row, Verdict, judge_at_most, judge_equal
from asgd.bench.claims.statistics import mean
from asgd.report.plots import Line, Plot
from asgd.run.build import make_state
from asgd.run.speeds import uniform
from asgd.sim.simulate import emulated
from asgd.sim.study import study_config
from asgd.sim.virtual import EndOfJob, VirtualCluster

# Lemma 11's example: 1000 clients, 90% of them at 10 s per gradient, the others at 60 s; 10 jobs at once.
CLIENTS, SLOW_SHARE, FAST_S, SLOW_S, AT_ONCE = 1000, 0.1, 10.0, 60.0, 10
ASYNCHRONOUS_S = (1 - SLOW_SHARE) * FAST_S + SLOW_SHARE * SLOW_S
MINIBATCH_S = FAST_S * (1 - SLOW_SHARE) ** AT_ONCE + SLOW_S * (1 - (1 - SLOW_SHARE) ** AT_ONCE)
WORKERS, FACTOR = 16, 4.0  # half of the workers take 1 s per gradient, the others FACTOR
PER_WORKER_S = FACTOR / WORKERS  # seconds per gradient when every worker must do 1/n of the jobs, and of mini-batch SGD
SIMULATED_S = 0.327  # of Algorithm 2 with as many jobs as workers, in an earlier simulation by other code
START = 10  # one START-th of the gradients, at the beginning, is left out: queues must have filled up
TOLERANCE = 0.02  # relative
ROUNDING = 1e-9  # relative: sums of the same times in another order


def seconds_per_gradient(
    method: str, num_workers: int, gradients: int, seed: int, end_of_job: EndOfJob | None = None, **of_study: Any
) -> float:
    """Virtual seconds per gradient of a run of the core alone, from its first START-th on."""
    config = study_config(method, num_workers, rule="constant", budget={"gradients": gradients}, seed=seed, **of_study)
    state = make_state(config)
    times_s: list[float] = []
    cluster = VirtualCluster(
        state, num_workers, end_of_job or emulated(config), on_row=lambda row: times_s.append(row.time_s)
    )
    cluster.run()
    first = gradients // START
    return (times_s[-1] - times_s[first - 1]) / (len(times_s) - first)


def drawn_anew(seed: int) -> EndOfJob:
    """Every job is of another client, drawn at random, that is free: no queueing."""

    def end_of_job(worker: int, job: int, now_s: float) -> float:
        return now_s + (SLOW_S if uniform(seed, 0, job, "client") < SLOW_SHARE else FAST_S)

    return end_of_job


def fixed_clients(worker: int, job: int, now_s: float) -> float:
    """The first 90% of the clients are fast, and a client's jobs wait for each other."""
    return now_s + (FAST_S if worker < (1 - SLOW_SHARE) * CLIENTS else SLOW_S)


def lemma(kind: str, gradients: int, seed: int) -> float:
    """Seconds per 10 gradients in Lemma 11's example: "asynchronous" and "minibatch" without queueing, "queueing"."""
    if kind == "queueing":
        options = {"options": {"concurrency": AT_ONCE}}
        return AT_ONCE * seconds_per_gradient("random_assignment", CLIENTS, gradients, seed, fixed_clients, **options)
    return AT_ONCE * seconds_per_gradient(kind, AT_ONCE, gradients, seed, drawn_anew(seed))


def half_slower(method: str, concurrency: int, gradients: int, seed: int, factor: float = FACTOR) -> float:
    """Seconds per gradient of 16 workers, half of them slower; concurrency only counts for Algorithm 2."""
    options = {"concurrency": concurrency} if method == "random_assignment" else {}
    speeds = {"profile": "half_slower", "factor": factor}
    return seconds_per_gradient(method, WORKERS, gradients, seed, speeds=speeds, options=options)


def check(effort: Effort) -> Outcome:
    """Lemma 11's 15 against 42.5, and where Algorithm 2 is slower than mini-batch SGD.

    With fixed speeds h_i and uniform draws each of n workers must do 1/n of the jobs, so that no more than n / max h
    gradients per second are possible with however many jobs at once: just what mini-batch SGD of n workers gives.
    """
    gradients, seeds = (3_200 if effort.quick else 32_000), effort.seeds(5, 3)
    of_lemma = {
        kind: mean(effort.map(lemma, [(kind, gradients, seed) for seed in seeds]))
        for kind in ("asynchronous", "minibatch", "queueing")
    }
    by_factor = {
        factor: {
            method: mean(effort.map(half_slower, [(method, WORKERS, gradients, seed, factor) for seed in seeds]))
            for method in ("asynchronous", "minibatch")
        }
        for factor in (FACTOR, 1.0)
    }
    concurrencies = [4, 8, 16, 32] if effort.quick else [2, 4, 8, 16, 32, 64, 128]
    drawn = {
        concurrency: mean(effort.map(half_slower, [("random_assignment", concurrency, gradients, s) for s in seeds]))
        for concurrency in concurrencies
    }
    finding = " ".join([*_of_lemma(of_lemma), *_of_algorithm_1(by_factor), *_of_algorithm_2(drawn)])
    return Outcome(_rows(of_lemma, by_factor, drawn), finding, [_plot(drawn)])


LEMMA = {
    "asynchronous": ("10 jobs of random free clients: asynchronous", ASYNCHRONOUS_S),
    "minibatch": ("the same: mini-batch", MINIBATCH_S),
    "queueing": ("10 jobs among 1000 clients with queues (Algorithm 2)", ASYNCHRONOUS_S),
}


def _rows(
    of_lemma: Mapping[str, Measured], by_factor: Mapping[float, Mapping[str, Measured]], drawn: Mapping[int, Measured]
) -> list[Row]:
    rows = []
    for kind, measured in of_lemma.items():
        setting, expected = LEMMA[kind]
        rows.append(_row(f"{setting}, seconds per 10 gradients", expected, measured))
    for factor, methods in by_factor.items():
        speeds = f"{WORKERS} workers, " + ("equal" if factor == 1 else f"half {factor:g}x slower")
        for method, expected in (("asynchronous", 2 / (WORKERS * (1 + 1 / factor))), ("minibatch", factor / WORKERS)):
            rows.append(_row(f"{speeds}: {method}, seconds per gradient", expected, methods[method]))
    for concurrency, measured in drawn.items():
        where = f"{WORKERS} workers, half {FACTOR:g}x slower: Algorithm 2, {concurrency} jobs at once"
        rows.append(Row(where, f"at least {PER_WORKER_S:g}", measured, at_least(measured, PER_WORKER_S)))
    rows.append(_row(f"the same, {WORKERS} jobs at once, against an earlier simulation", SIMULATED_S, drawn[WORKERS]))
    return rows


def _row(setting: str, expected: float, measured: Measured) -> Row:
    return Row(setting, f"{expected:.4g}", measured, _equal(measured, expected))


def _equal(measured: Measured, expected: float) -> Verdict:
    """Within the interval of the measurement, or within 2% of the prediction."""
    return judge_equal(measured, expected, TOLERANCE * expected)


def at_least(measured: Measured, bound: float) -> Verdict:
    """The verdict on a lower bound: the whole interval must lie on one side of it.

    Example:
        >>> [at_least(Measured(1.0, 0.9, 1.1), bound) for bound in (0.8, 1.0, 1.2)]
        ['holds', 'undecided', 'does not hold']
    """
    low, high = _ends(measured)
    return judge_at_most(Measured(-measured.value, -high, -low), -bound)


def _of_lemma(seen: Mapping[str, Measured]) -> list[str]:
    """What was seen of Lemma 11, in sentences."""
    agree = {kind for kind, measured in seen.items() if _equal(measured, LEMMA[kind][1]) == "holds"}
    sentences = []
    if {"asynchronous", "minibatch"} <= agree:
        sentences.append("Lemma 11's figures hold without queueing.")
    if "queueing" in agree:
        sentences.append("With queues its asynchronous one holds too while the jobs are few among many clients.")
    sentences += [
        f"Lemma 11 doesn't give what was measured for {LEMMA[kind][0]}: {seen[kind]} against {LEMMA[kind][1]:.4g}."
        for kind in seen
        if kind not in agree
    ]
    return sentences


def _of_algorithm_1(by_factor: Mapping[float, Mapping[str, Measured]]) -> list[str]:
    """Whether Algorithm 1 gives fewer gradients per second than mini-batch SGD anywhere."""
    compared = {
        factor: (methods["asynchronous"], methods["minibatch"]) for factor, methods in sorted(by_factor.items())
    }
    numbers = "; ".join(f"{ours} against {theirs} s per gradient" for ours, theirs in compared.values())
    slower = any(ours.value > theirs.value * (1 + ROUNDING) for ours, theirs in compared.values())
    where = " and ".join("equal speeds" if factor == 1 else f"half {factor:g}x slower" for factor in compared)
    gives = (
        "gives fewer gradients per second than mini-batch SGD somewhere"
        if slower
        else ("nowhere gives fewer gradients per second than mini-batch SGD")
    )
    return [f"Algorithm 1 {gives} ({where}: {numbers})."]


def _of_algorithm_2(drawn: Mapping[int, Measured]) -> list[str]:
    """Where Algorithm 2 is slower and faster than mini-batch SGD of all workers."""
    verdicts = {concurrency: at_least(measured, PER_WORKER_S) for concurrency, measured in drawn.items()}
    slower = [c for c, verdict in verdicts.items() if verdict == "holds"]
    same = [c for c, verdict in verdicts.items() if verdict == "undecided"]
    faster = [c for c, verdict in verdicts.items() if verdict == "does not hold"]
    few, many = min(drawn), max(drawn)
    sentences = []
    if slower:
        sentences.append(
            f"Algorithm 2 with half {FACTOR:g}x slower is slower than mini-batch SGD at {_list(slower)} jobs at once: "
            "the uniform draw sends half of the jobs to slow workers, where they queue while fast ones idle."
        )
    if same:
        sentences.append(f"At {_list(same)} jobs at once no difference from mini-batch SGD is shown.")
    if faster:
        sentences.append(f"At {_list(faster)} jobs at once it is faster, which the bound excludes.")
    values = [drawn[c].value for c in sorted(drawn)]
    falls = all(later < earlier for earlier, later in pairwise(values))
    sentences.append(
        f"Its seconds per gradient {'fall' if falls else 'do not fall steadily'} from {values[0]:.4g} at {few} jobs to "
        f"{values[-1]:.4g} at {many}; {PER_WORKER_S:g}, what mini-batch SGD needs, is the least that is possible."
    )
    return sentences


def _list(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


def _plot(drawn: Mapping[int, Measured]) -> Plot:
    concurrencies = list(drawn)
    return Plot(
        "claim6_queueing", "Seconds per gradient, 16 workers of which 8 are 4x slower", "jobs at once (Algorithm 2)",
        "seconds per gradient",
        [
            _line("Algorithm 2, constant step", concurrencies, list(drawn.values())),
            Line("mini-batch, 16 at once; the bound", concurrencies, [PER_WORKER_S] * len(drawn), style="predicted"),
            Line("Algorithm 1, 16 at once", concurrencies, [0.1] * len(drawn), style="predicted"),
        ],
        log_x=True,
    )  # fmt: skip


def _ends(measured: Measured) -> tuple[float, float]:
    """The interval, which is a point when the number is exact."""
    if measured.low is None or measured.high is None:
        return measured.value, measured.value
    return measured.low, measured.high


def _line(label: str, x: list[int], measured: list[Measured]) -> Line:
    ends = [_ends(m) for m in measured]
    return Line(label, x, [m.value for m in measured], [low for low, _ in ends], [high for _, high in ends])
