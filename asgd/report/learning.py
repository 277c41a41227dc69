"""Loss and accuracy over seconds, samples and versions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from asgd.report.exhibits import Exhibit, Thinned, seconds_label, thinned, thinning
from asgd.report.plots import Line, Plot
from asgd.report.reading import Floats, Record
from asgd.run.formats import MetricsRow

_MOST_MARKERS = 40
_AXES = {"seconds": "time_s", "samples": "samples_seen", "versions": "version"}
# name of the figure -> title and label of its y axis
_EVALUATED = {"test_loss": ("Test loss", "test loss"), "test_accuracy": ("Test accuracy", "test accuracy (%)")}


def learning_exhibits(records: Sequence[Record]) -> list[Exhibit]:
    """Test loss, test accuracy and training loss, each over seconds, over samples and over versions."""
    exhibits = []
    for name in _EVALUATED:
        exhibits += _evaluated(records, name)
    return exhibits + _training_loss(records)


def evaluated(record: Record, name: str) -> tuple[list[MetricsRow], list[float]]:
    """The evaluations that have a finite value of this name, and the values."""
    rows = [row for row in record.metrics if name in row.values]
    return rows, [row.values[name] for row in rows]


def _evaluated(records: Sequence[Record], name: str) -> list[Exhibit]:
    title, label = _EVALUATED[name]
    found = [evaluated(record, name) for record in records]
    if not any(values for _, values in found):
        return [Exhibit(title, _why_none(records, name))]
    without = [record.label for record, (_, values) in zip(records, found, strict=True) if not values]
    factor = 100.0 if name == "test_accuracy" else 1.0
    exhibits = []
    for axis, attribute in _AXES.items():
        lines = [
            Line(
                record.label, [getattr(row, attribute) for row in rows], [factor * value for value in values],
                style="measured" if len(rows) <= _MOST_MARKERS else "line", colour=index,
            )
            for index, (record, (rows, values)) in enumerate(zip(records, found, strict=True)) if values
        ]  # fmt: skip
        plot = _plot(records, f"{name}_over_{axis}", title, axis, label, lines)
        caption = f"Without a value: {', '.join(without)}." if without else ""
        exhibits.append(Exhibit(plot.title, _joined(caption, _scale(plot)), plot, _words(plot)))
    return exhibits


def _training_loss(records: Sequence[Record]) -> list[Exhibit]:
    if not any(np.isfinite(record.trace.loss_R).any() for record in records):
        return [Exhibit("Training loss", "No gradient came with a finite training loss: there is nothing to draw.")]
    exhibits = []
    for axis in _AXES:
        series = [thinned(_places(record, axis), record.trace.loss_R) for record in records]
        single = len(records) == 1
        plot = _plot(
            records, f"train_loss_over_{axis}", "Training loss", axis, "training loss", _lines(records, series)
        )
        caption = "Of each gradient's own batch, at the parameters it was computed at."
        exhibits.append(
            Exhibit(
                plot.title, _joined(caption + thinning(series, "gradients", single), _scale(plot)), plot, _words(plot)
            )
        )
    return exhibits


def _lines(records: Sequence[Record], series: Sequence[Thinned]) -> list[Line]:
    """A line for each run; with a single one also the band from its smallest to its largest values."""
    lines = []
    for index, (record, one) in enumerate(zip(records, series, strict=True)):
        if len(records) == 1 and one.most > 1:
            lines.append(Line("", one.x, one.mean, one.low, one.high, "band", index))
        if one.x:
            lines.append(Line(record.label, one.x, one.mean, style="line", colour=index))
    return lines


def _places(record: Record, axis: str) -> Floats:
    trace = record.trace
    by_axis = {"seconds": trace.time_s_R, "samples": trace.samples_seen_R, "versions": trace.version_R}
    return by_axis[axis].astype(np.float64)


def _plot(records: Sequence[Record], name: str, title: str, axis: str, label: str, lines: Sequence[Line]) -> Plot:
    x_label = seconds_label(records) if axis == "seconds" else axis
    values = np.array([value for line in lines for value in line.y])
    log_y = name.partition("_over_")[0] != "test_accuracy" and values.min() > 0 and values.max() > 50 * values.min()
    if log_y and lines[0].style == "band" and min(lines[0].low or [0.0]) <= 0.0:
        log_y = False
    return Plot(name, f"{title} over {axis}", x_label, label, lines, log_y=log_y, compact=True, from_zero=not log_y)


def _scale(plot: Plot) -> str:
    return "The scale is logarithmic." if plot.log_y else ""


def _joined(*sentences: str) -> str:
    return " ".join(sentence for sentence in sentences if sentence)


def _words(plot: Plot) -> str:
    """The plot for who can't see it: where each line begins and ends."""
    ends = [
        f"{line.label} goes from {line.y[0]:.4g} to {line.y[-1]:.4g}" for line in plot.lines if line.style != "band"
    ]
    return f"{plot.title}: {'; '.join(ends)}."


def _why_none(records: Sequence[Record], name: str) -> str:
    if all(record.config.evaluation.evaluate == "never" for record in records):
        return 'No evaluation: evaluation.evaluate is "never".'
    if not any(record.metrics for record in records):
        return "No evaluation is recorded (yet)."
    if name == "test_accuracy":
        return "The task reports no accuracy, or it was never finite."
    return "No evaluation gave a finite test loss."
