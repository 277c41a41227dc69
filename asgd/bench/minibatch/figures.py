"""A benchmark's figures as data: the metric over seconds and over samples, and the throughput beside its prediction."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from asgd.bench.minibatch.comparing import Interval, Row
from asgd.bench.minibatch.plan import Plan
from asgd.bench.minibatch.results import Look, RealRun, Record
from asgd.report.plots import Line, Mark, Plot

PLACES = 200  # of the mean's line


def figures(plan: Plan, record: Record, rows: Sequence[Row]) -> list[Plot]:
    """All figures of a complete benchmark; with several profiles, the curves of each, and the ratios of all in one."""
    plots = []
    for setting in plan.settings:
        suffix = f"_{setting}" if len(plan.settings) > 1 else ""
        plots += [
            _curves(plan, record, setting, f"over_seconds{suffix}", "seconds", lambda look: look.time_s),
            _curves(plan, record, setting, f"over_samples{suffix}", "samples", lambda look: float(look.samples)),
        ]
    if len(plan.settings) == 1:
        return [*plots, _throughput(plan, rows)]
    return [*plots, *_ratios(plan, rows)]


def _curves(plan: Plan, record: Record, setting: str, name: str, unit: str, x_of: Callable[[Look], float]) -> Plot:
    lines: list[Line] = []
    for place, contender in enumerate(plan.contenders):
        runs = [run for run in record.measured(setting, contender.key) if not run.diverged]
        lines += _mean_and_band(contender.label, place, runs, x_of)
    target = plan.protocol.target
    metric = plan.protocol.metric.replace("_", " ")
    under = f", {setting}" if len(plan.settings) > 1 else ""
    return Plot(
        f"{plan.protocol.metric}_{name}",
        f"{metric.capitalize()} over {unit}{under}",
        unit,
        f"{metric}, mean and range of {plan.protocol.seeds} seeds",
        lines,
        marks=[] if target is None else [Mark(f"target {target:g}", target, axis="y", dashes=":")],
    )


def _mean_and_band(label: str, place: int, runs: Sequence[RealRun], x_of: Callable[[Look], float]) -> list[Line]:
    """The mean of the runs' curves as far as all of them go, and the area from the lowest to the highest of them."""
    curves = [[(x_of(look), look.value) for look in run.looks if look.value is not None] for run in runs]
    curves = [curve for curve in curves if len(curve) > 1]
    if not curves:
        return []
    x_N = np.linspace(max(curve[0][0] for curve in curves), min(curve[-1][0] for curve in curves), PLACES)
    y_RN = np.stack([np.interp(x_N, *np.array(curve).T) for curve in curves])
    x = x_N.tolist()
    lines = [Line(label, x, y_RN.mean(0).tolist(), style="line", colour=place)]
    if len(curves) > 1:
        low, high = y_RN.min(0).tolist(), y_RN.max(0).tolist()
        lines.append(Line("", x, low, low, high, style="band", colour=place))
    return lines


def _throughput(plan: Plan, rows: Sequence[Row]) -> Plot:
    measured = [(row.label, row.gradients_per_s) for row in rows if row.gradients_per_s is not None]
    predicted = [(r.label, r.predicted_gradients_per_s) for r in rows if r.predicted_gradients_per_s is not None]
    return Plot(
        "throughput",
        f"Gradients per second, {plan.config.cluster.num_workers} workers",
        "",
        "gradients/s",
        [
            _bars("measured (95%)", measured),
            Line(
                "by the speeds alone",
                [name for name, _ in predicted],
                [value for _, value in predicted],
                style="points",
            ),
        ],
        from_zero=True,
    )


def _ratios(plan: Plan, rows: Sequence[Row]) -> list[Plot]:
    """For each contender but mini-batch SGD: its throughput over that of mini-batch SGD under each profile."""
    workers = plan.config.cluster.num_workers
    plots = []
    for contender in plan.contenders:
        own = [row for row in rows if row.contender == contender.key and row.throughput_ratio is not None]
        if contender.label == "mini-batch" or not own:
            continue
        predicted = [(row.setting, row.predicted_ratio) for row in own if row.predicted_ratio is not None]
        sooner = [(row.setting, row.time_ratio) for row in own if row.time_ratio is not None]
        lines = [
            _bars("gradients/s (95%)", [(row.setting, row.throughput_ratio) for row in own if row.throughput_ratio]),
            Line("gradients/s by the speeds", [n for n, _ in predicted], [v for _, v in predicted], style="points"),
        ]
        if len(sooner) == len(own):
            lines.append(_bars("time to the target (95%)", sooner))
        name = "speedup_" + contender.key.replace(":", "_")
        title = f"{contender.label} over mini-batch, {workers} workers"
        plots.append(Plot(name, title, "", "how many times faster", lines, from_zero=True))
    return plots


def _bars(label: str, values: Sequence[tuple[str, Interval]]) -> Line:
    return Line(
        label,
        [name for name, _ in values],
        [one.value for _, one in values],
        [one.value if one.low is None else one.low for _, one in values],
        [one.value if one.high is None else one.high for _, one in values],
        style="bars",
    )
