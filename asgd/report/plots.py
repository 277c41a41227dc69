"""Plots as data, and the one place that draws them: PNG and SVG files that a colour-blind reader can tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

# Okabe and Ito's palette, with another marker for each: neither colour nor shape alone has to be seen.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8c8c00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


@dataclass(frozen=True)
class Line:
    """One series of a plot.

    Arguments: label: for the legend; x: numbers, or names of categories; y: as many numbers; low, high: ends of the
    intervals of y, if any; style: "measured" (markers joined by a line), "predicted" (a dashed line), "points", "bars".
    """

    label: str
    x: Sequence[float] | Sequence[str]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    style: Literal["measured", "predicted", "points", "bars"] = "measured"


@dataclass(frozen=True)
class Plot:
    """A picture with one pair of axes; `name` is that of its file, without an ending."""

    name: str
    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line] = field(default_factory=tuple)
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True)
class HeatMap:
    """A table as a picture: values >= 1, the smaller the better, shaded by their logarithm and written into the cells;
    infinite ones are left white.
    """

    name: str
    title: str
    x_label: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float]]


def draw(plot: Plot | HeatMap, folder: Path) -> list[Path]:
    """Draw a plot into `folder` as NAME.png and NAME.svg, and return the two paths.

    Example:
        draw(Plot("speed", "Speed", "workers", "updates/s", [Line("asynchronous", [1, 2], [10.0, 19.0])]), Path("out"))
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    # A fixed salt: the same data give the same file.
    with matplotlib.rc_context({"svg.hashsalt": "asgd", "font.size": 10}):
        if isinstance(plot, HeatMap):
            return _save(_heat_map(plot), plot.name, folder)
        figure, axes = pyplot.subplots(figsize=(7.5, 4.8), layout="constrained")
        bars = [line for line in plot.lines if line.style == "bars"]
        for index, line in enumerate(plot.lines):
            _draw_line(axes, line, index, bars)
        axes.set_title(plot.title, fontsize=11, loc="left")
        axes.set_xlabel(plot.x_label)
        axes.set_ylabel(plot.y_label)
        if plot.log_x:
            _logarithmic_x(axes, sorted({float(x) for line in plot.lines for x in line.x}))
        if plot.log_y:
            _logarithmic_y(axes)
        axes.grid(True, which="major", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if any(line.x and isinstance(line.x[0], str) for line in plot.lines):
            axes.tick_params(axis="x", rotation=30)
            for label in axes.get_xticklabels():
                label.set_horizontalalignment("right")
        if len(plot.lines) > 1:
            outside = len(plot.lines) > 5
            place = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5)} if outside else {"loc": "best"}
            axes.legend(frameon=False, fontsize=9, **place)
        return _save(figure, plot.name, folder)


def _logarithmic_x(axes: Any, places: Sequence[float]) -> None:
    """A logarithmic axis; with few places, the ticks are these."""
    axes.set_xscale("log")
    if len(places) <= 12:
        # Places nearer than a quarter octave would write over each other.
        apart = [place for i, place in enumerate(places) if i == 0 or place > 1.19 * places[i - 1]]
        axes.set_xticks(apart, [f"{place:.4g}" if place >= 1 else f"{place:.2g}" for place in apart])
        axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)


def _logarithmic_y(axes: Any) -> None:
    """A logarithmic axis of at least a decade: what hardly changes must look so."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    if high < 10 * low:
        middle = (low * high) ** 0.5
        axes.set_ylim(middle / 10**0.5, middle * 10**0.5)


def _save(figure: Any, name: str, folder: Path) -> list[Path]:
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{ending}" for ending in ("png", "svg")]
    for path in paths:
        metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
        figure.savefig(path, dpi=150, metadata=metadata)
    pyplot.close(figure)
    return paths


def _heat_map(plot: HeatMap) -> Any:
    from matplotlib import pyplot
    from matplotlib.colors import LogNorm

    size = (max(7.5, 2.6 + 0.62 * len(plot.columns)), 1.7 + 0.3 * len(plot.rows))
    figure, axes = pyplot.subplots(figsize=size, layout="constrained")
    largest = max([2.0, *(value for row in plot.values for value in row if value < float("inf"))])
    shown = [[value if value < float("inf") else float("nan") for value in row] for row in plot.values]
    axes.imshow(shown, cmap="cividis_r", norm=LogNorm(1.0, largest), aspect="auto")
    for i, row in enumerate(plot.values):
        for j, value in enumerate(row):
            dark = 1.0 < value < float("inf") and value > largest**0.5
            text = f"{value:.2f}" if value < 10 else f"{value:.0f}" if value < float("inf") else "-"
            weight = "bold" if value == 1.0 else "normal"
            axes.text(
                j, i, text, ha="center", va="center", fontsize=8, color="white" if dark else "black", weight=weight
            )
    axes.set_xticks(range(len(plot.columns)), list(plot.columns), rotation=35, ha="right")
    axes.set_yticks(range(len(plot.rows)), list(plot.rows))
    axes.set_xlabel(plot.x_label)
    axes.set_title(plot.title, fontsize=11, loc="left")
    return figure


def _draw_line(axes: Any, line: Line, index: int, bars: Sequence[Line]) -> None:
    colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
    errors = None
    if line.low is not None and line.high is not None:
        errors = [
            [max(0.0, y - low) for y, low in zip(line.y, line.low, strict=True)],
            [max(0.0, high - y) for y, high in zip(line.y, line.high, strict=True)],
        ]
    if line.style == "bars":
        width = 0.8 / len(bars)
        places = [place + (bars.index(line) - (len(bars) - 1) / 2) * width for place in range(len(line.x))]
        axes.bar(places, line.y, width, yerr=errors, capsize=2, color=colour, label=line.label)
        axes.set_xticks(range(len(line.x)), [str(name) for name in line.x])
    elif line.style == "predicted":
        axes.plot(line.x, line.y, "--", color=colour, label=line.label, linewidth=1.3)
    else:
        joined = "-" if line.style == "measured" else "none"
        axes.errorbar(
            line.x, line.y, yerr=errors, capsize=2, color=colour, marker=marker, markersize=5, linestyle=joined,
            linewidth=1.3, label=line.label,
        )  # fmt: skip
