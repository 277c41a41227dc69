"""Delays: their histogram with tau_C, average and maximum; delays and step sizes in the course of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from asgd.report.exhibits import Exhibit, seconds_label, thinned, thinning
from asgd.report.plots import Line, Mark, Plot
from asgd.report.reading import Flags, Floats, Record

MOST_BINS = 60
MOST_DOTS = 6000  # beyond, dots would only be a blot


class Histogram(NamedTuple):
    """Numbers of used and of discarded gradients in bins of delays; `edges` has one more: [first, next, ..., end)."""

    edges: list[float]
    used: list[int]
    discarded: list[int]


def histogram(record: Record, largest: int | None = None) -> Histogram:
    """The delays of all gradients that came, in bins of one delay each, or of more if there were too many of them."""
    trace = record.trace
    largest = int(trace.delay_R[trace.has_arrived_R].max(initial=0)) if largest is None else largest
    width = -(-(largest + 1) // MOST_BINS)
    count = -(-(largest + 1) // width)
    edges = np.arange(count + 1) * width

    def counts(rows: Flags) -> list[int]:
        return np.bincount(trace.delay_R[rows] // width, minlength=count).tolist()

    discarded = counts(trace.has_arrived_R & ~trace.is_used_R)
    return Histogram((edges - 0.5).tolist(), counts(trace.is_used_R), discarded)


def delay_exhibits(records: Sequence[Record]) -> list[Exhibit]:
    """The histogram of delays, delay over time and step size over time."""
    if not any(record.trace.has_arrived_R.any() for record in records):
        return [Exhibit("Delays and step sizes", "No gradient came: there are no delays.")]
    first = _histogram_of_one(records[0]) if len(records) == 1 else _histograms_of_many(records)
    return [first, _over_time(records, "delay"), _over_time(records, "step_size")]


def _histogram_of_one(record: Record) -> Exhibit:
    bins, delays = histogram(record), record.delays()
    assert delays is not None
    lines = [Line("used", bins.edges, bins.used, style="filled")]
    if any(bins.discarded):
        tops = [low + more for low, more in zip(bins.used, bins.discarded, strict=True)]
        lines.append(Line("discarded or cancelled", bins.edges, tops, bins.used, style="filled"))
    marks = [
        Mark(f"concurrency τ_C = {delays.concurrency:,}", delays.concurrency, dashes=":"),
        Mark(f"average {delays.average:,.2f}", delays.average, dashes="--", colour=2),
        Mark(f"largest {delays.largest:,}", delays.largest, dashes="-.", colour=3),
    ]
    width = round(bins.edges[1] - bins.edges[0])
    plot = Plot(
        "delay_histogram", "Delays of gradients", "delay (updates)", "gradients", lines, marks=marks, compact=True,
        from_zero=True, whole="x",
    )  # fmt: skip
    total = sum(bins.used) + sum(bins.discarded)
    caption = (
        f"All {total:,} gradients that came, by the updates between giving the job and the gradient's arrival"
        + (f", in bins of {width:,} delays" if width > 1 else "")
        + f". The average is {delays.average_of}."
    )
    words = (
        f"Histogram of {total:,} delays; concurrency {delays.concurrency:,}, average {delays.average:,.2f}, "
        f"largest {delays.largest:,}."
    )
    return Exhibit(plot.title, caption, plot, words)


def _histograms_of_many(records: Sequence[Record]) -> Exhibit:
    largest = max(int(record.trace.delay_R[record.trace.has_arrived_R].max(initial=0)) for record in records)
    lines, marks, said = [], [], []
    for index, record in enumerate(records):
        delays = record.delays()
        if delays is None:
            continue
        bins = histogram(record, largest)
        total = sum(bins.used) + sum(bins.discarded)
        shares = [100.0 * (a + b) / total for a, b in zip(bins.used, bins.discarded, strict=True)]
        lines.append(Line(record.label, bins.edges, shares, style="outline", colour=index))
        marks.append(Mark("", delays.average, dashes=":", colour=index))
        said.append(
            f"{record.label}: τ_C {delays.concurrency:,}, average {delays.average:,.2f}, largest {delays.largest:,}"
        )
    plot = Plot(
        "delay_histogram", "Delays of gradients", "delay (updates)", "gradients (%)", lines, marks=marks, compact=True,
        from_zero=True, whole="x",
    )  # fmt: skip
    caption = f"Share of each run's gradients; dotted: the average delay. {'; '.join(said)}."
    return Exhibit(plot.title, caption, plot, f"Histograms of delays. {'; '.join(said)}.")


def _over_time(records: Sequence[Record], name: str) -> Exhibit:
    title = "Delay over time" if name == "delay" else "Step size over time"
    series = [_values(record, name) for record in records]
    if not any(len(y) for _, y in series):
        return Exhibit(title, "No update was made: there are no step sizes.")
    few = len(records) == 1 and len(series[0][0]) <= MOST_DOTS
    lines: list[Line] = []
    # Delays jump from gradient to gradient: means of many show where they go, and the band how far they jump.
    thin = [thinned(x, y, 80 if len(records) == 1 and not few else 40) for x, y in series]
    for index, (record, one) in enumerate(zip(records, thin, strict=True)):
        if not one.x:
            continue
        if few:
            lines += _dots(record, name)
        elif len(records) == 1:  # bands of several runs would hide each other
            lines.append(Line("smallest to largest", one.x, one.mean, one.low, one.high, "band", index))
        label, colour = (record.label, index) if len(records) > 1 else ("mean", 6)
        lines.append(Line(label, one.x, one.mean, style="line", colour=colour))
    marks = []
    delays = records[0].delays() if len(records) == 1 and name == "delay" else None
    if delays is not None:
        marks.append(Mark(f"τ_C = {delays.concurrency:,}", delays.concurrency, "y", ":"))
    label = "delay (updates)" if name == "delay" else "step size η"
    plot = Plot(
        f"{name}_over_time", title, seconds_label(records), label, lines, marks=marks, compact=True, from_zero=True,
        whole="y" if name == "delay" else "",
    )  # fmt: skip
    what = "Of gradients that came." if name == "delay" else "Of each update."
    caption = what + thinning(thin, "gradients" if name == "delay" else "updates", len(records) == 1 and not few)
    ranges = [
        f"{record.label} from {min(one.low):.4g} to {max(one.high):.4g}"
        for record, one in zip(records, thin, strict=True)
        if one.x
    ]
    return Exhibit(title, caption, plot, f"{title}: {'; '.join(ranges)}.")


def _values(record: Record, name: str) -> tuple[Floats, Floats]:
    trace = record.trace
    rows = trace.has_arrived_R if name == "delay" else np.isfinite(trace.step_size_R)
    values = trace.delay_R if name == "delay" else trace.step_size_R
    return trace.time_s_R[rows], values[rows].astype(np.float64)


def _dots(record: Record, name: str) -> list[Line]:
    if name == "step_size":
        x, y = _values(record, name)
        return [Line("each update", x.tolist(), y.tolist(), style="dots", colour=0)]
    trace = record.trace
    groups = {"used": trace.is_used_R, "discarded or cancelled": trace.has_arrived_R & ~trace.is_used_R}
    return [
        Line(label, trace.time_s_R[rows].tolist(), trace.delay_R[rows].tolist(), style="dots", colour=index)
        for index, (label, rows) in enumerate(groups.items())
        if rows.any()
    ]
