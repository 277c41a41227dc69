"""Claim 6: seconds per gradient of asynchronous and mini-batch SGD when clients are drawn at random, with queueing."""

from __future__ import annotations

from typing import Any

from asgd.bench.claims.effort import Effort
from asgd.bench.claims.outcome import Measured, Outcome, Row, judge
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


def seconds_per_gradient(
    method: str, num_workers: int, gradients: int, seed: int, end_of_job: EndOfJob | None = None, **of_study: Any
) -> float:
    """Virtual seconds per gradient of a run of the core alone."""
    config = study_config(method, num_workers, rule="constant", budget={"gradients": gradients}, seed=seed, **of_study)
    state = make_state(config)
    end_s = VirtualCluster(state, num_workers, end_of_job or emulated(config)).run()
    return end_s / state.gradients


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


def half_slower(method: str, concurrency: int, gradients: int, seed: int) -> float:
    """Seconds per gradient of 16 workers, half of them 4x slower; concurrency only counts for Algorithm 2."""
    options = {"concurrency": concurrency} if method == "random_assignment" else {}
    speeds = {"profile": "half_slower", "factor": 4.0}
    return seconds_per_gradient(method, 16, gradients, seed, speeds=speeds, options=options)


def check(effort: Effort) -> Outcome:
    """Lemma 11's 15 against 42.5, and where Algorithm 2 is slower than mini-batch SGD."""
    gradients, seeds = (3_000 if effort.quick else 30_000), effort.seeds(5, 3)
    rows = []
    lemma_rows = [
        ("asynchronous", "10 jobs of random free clients: asynchronous", ASYNCHRONOUS_S),
        ("minibatch", "the same: mini-batch", MINIBATCH_S),
        ("queueing", "10 jobs among 1000 clients with queues (Algorithm 2)", ASYNCHRONOUS_S),
    ]
    for kind, setting, expected in lemma_rows:
        measured = mean(effort.map(lemma, [(kind, gradients, seed) for seed in seeds]))
        rows.append(_row(f"{setting}, seconds per 10 gradients", expected, measured))
    expected_at = {"asynchronous": 0.100, "minibatch": 0.250, "random_assignment": 0.327}
    for method, expected in expected_at.items():
        measured = mean(effort.map(half_slower, [(method, 16, gradients, seed) for seed in seeds]))
        rows.append(_row(f"16 workers, half 4x slower: {method}, seconds per gradient", expected, measured))
    concurrencies = [4, 8, 16, 32] if effort.quick else [2, 4, 8, 16, 32, 64, 128]
    by_concurrency = [
        mean(effort.map(half_slower, [("random_assignment", concurrency, gradients, seed) for seed in seeds]))
        for concurrency in concurrencies
    ]
    rows += [
        Row(f"the same, Algorithm 2 with {concurrency} jobs at once", "", measured, "finding")
        for concurrency, measured in zip(concurrencies, by_concurrency, strict=True)
    ]
    slower = [c for c, measured in zip(concurrencies, by_concurrency, strict=True) if measured.value > 0.25]
    plot = Plot(
        "claim6_queueing", "Seconds per gradient, 16 workers of which 8 are 4x slower", "jobs at once (Algorithm 2)",
        "seconds per gradient",
        [
            _line("Algorithm 2, constant step", concurrencies, by_concurrency),
            Line("mini-batch, 16 at once", concurrencies, [0.25] * len(concurrencies), style="predicted"),
            Line("Algorithm 1, 16 at once", concurrencies, [0.1] * len(concurrencies), style="predicted"),
        ],
        log_x=True,
    )  # fmt: skip
    finding = (
        "Lemma 11's figures hold without queueing, and with queues while the jobs are few among many clients. With 16 "
        "workers of which half are 4x slower, Algorithm 2 is slower than mini-batch SGD at "
        f"{', '.join(map(str, slower))} jobs at once: the uniform draw sends half of the jobs to slow workers, where "
        "they queue while fast ones idle. Always faster than mini-batch is true of Algorithm 1 only."
    )
    return Outcome(rows, finding, [plot])


def _row(setting: str, expected: float, measured: Measured) -> Row:
    """Within the interval of the measurement, or within 2% of the prediction."""
    inside = measured.low is not None and measured.high is not None and measured.low <= expected <= measured.high
    return Row(setting, f"{expected:.4g}", measured, judge(inside or abs(measured.value / expected - 1) < 0.02))


def _line(label: str, x: list[int], measured: list[Measured]) -> Line:
    low = [m.value if m.low is None else m.low for m in measured]
    high = [m.value if m.high is None else m.high for m in measured]
    return Line(label, x, [m.value for m in measured], low, high)
