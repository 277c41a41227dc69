"""Plots as data, and the one place that draws them: PNG and SVG files that a colour-blind reader can tell apart."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from asgd.report.layout import fixed_axes, free_axes, legend_below, legend_rows, plain, with_commas

# Okabe and Ito's palette, with another marker for each: neither colour nor shape alone has to be seen.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8c8c00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", ":", "-.")  # of series beyond the eighth, whose colours come again
MOST_VECTOR_DOTS = 800  # more of them are drawn as pixels within the SVG: a page must stay small
_MOST_SHAPES = 200  # dots that have their series' marker, too; the shapes of more can't be seen
_STYLE = {"svg.hashsalt": "asgd", "font.size": 10}
# Pictures within a page take its colours: these stand for the page's ink and paper until `render` has put those in.
_INK, _PAPER = "#1f2328", "#ffffff"
_INLINE = _STYLE | {
    "svg.fonttype": "none", "text.color": _INK, "axes.labelcolor": _INK, "axes.edgecolor": _INK, "xtick.color": _INK,
    "ytick.color": _INK,
}  # fmt: skip


@dataclass(frozen=True)
class Line:
    """One series of a plot.

    Arguments: label: for the legend, which leaves out an empty one; x: numbers, or names of categories; y: as many
    numbers; low, high: ends of the intervals of y, if any; style: "measured" (markers joined by a line), "predicted" (a
    dashed line), "points", "bars", "line" (without markers), "dots" (small ones, many), "band" (the area from low to
    high), "filled" and "outline" (a histogram: y between the edges x, one more of them, standing on low if given);
    colour: index of its colour, by default its place among the plot's lines.
    """

    label: str
    x: Sequence[float] | Sequence[str]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    style: Literal["measured", "predicted", "points", "bars", "line", "dots", "band", "filled", "outline"] = "measured"
    colour: int | None = None


@dataclass(frozen=True)
class Mark:
    """A line across a whole plot at one place of an axis; colour: an index, or None for that of the text."""

    label: str
    place: float
    axis: Literal["x", "y"] = "x"
    dashes: str = "--"
    colour: int | None = None


@dataclass(frozen=True)
class Plot:
    """A picture with one pair of axes; `name` is that of its file, without an ending.

    `compact`: a small one with fixed margins and its legend below, which takes a quarter of the time to draw;
    `from_zero`: the y axis begins at 0; `whole`: the axes ("x", "y" or "xy") that have whole numbers only.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line] = field(default_factory=tuple)
    log_x: bool = False
    log_y: bool = False
    marks: Sequence[Mark] = field(default_factory=tuple)
    compact: bool = False
    from_zero: bool = False
    whole: str = ""


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


class Picture(Protocol):
    """Anything else that can be drawn: it makes its own matplotlib figure."""

    @property
    def name(self) -> str: ...

    def figure(self) -> Any: ...


def draw(plot: Plot | HeatMap | Picture, folder: Path) -> list[Path]:
    """Draw a plot into `folder` as NAME.png and NAME.svg, and return the two paths.

    Example:
        draw(Plot("speed", "Speed", "workers", "updates/s", [Line("asynchronous", [1, 2], [10.0, 19.0])]), Path("out"))
    """
    with _drawing(_STYLE):
        return _save(_figure_of(plot), plot.name, folder)


def render(plot: Plot | HeatMap | Picture) -> str:
    """Draw a plot as an <svg> element to stand within a page, in the page's colours --ink and --paper.

    Its ids begin with its name, so that a page can have several; text is text, in the page's reach.
    """
    with _drawing(_INLINE):
        file = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        _figure_of(plot).savefig(file, format="svg", dpi=150, transparent=True, metadata=nothing)
    svg = file.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<style type="text/css">.*?</style>', "", svg, count=1, flags=re.DOTALL)  # would hold for the page
    # Only within tags: a text may look like an attribute.
    return re.sub(r"<[^<>]*>", lambda tag: _for_a_page(tag[0], plot.name), svg)


def _for_a_page(tag: str, name: str) -> str:
    """A tag whose ids nobody else on the page has, and whose ink and paper are the page's."""
    tag = re.sub(r' id="', f' id="{name}-', tag)
    tag = re.sub(r'(xlink:href="|url\()#', rf"\g<1>#{name}-", tag)
    return tag.replace(_INK, "var(--ink)").replace("#000000", "var(--ink)").replace(_PAPER, "var(--paper)")


@contextmanager
def _drawing(style: dict[Any, Any]) -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context(style), warnings.catch_warnings():
        # A run may be named in a script that the font doesn't have; an SVG shows it with another font.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


def _figure_of(plot: Plot | HeatMap | Picture) -> Any:
    if isinstance(plot, HeatMap):
        return _heat_map(plot)
    return _plot(plot) if isinstance(plot, Plot) else plot.figure()


def _plot(plot: Plot) -> Any:
    figure, axes = _compact_axes(plot) if plot.compact else free_axes((7.5, 4.8))
    bars = [line for line in plot.lines if line.style == "bars"]
    for index, line in enumerate(plot.lines):
        _draw_line(axes, line, index if line.colour is None else line.colour, bars)
    for mark in plot.marks:
        colour = axes.xaxis.label.get_color() if mark.colour is None else COLOURS[mark.colour % len(COLOURS)]
        across = axes.axvline if mark.axis == "x" else axes.axhline
        across(mark.place, linestyle=mark.dashes, linewidth=1.3, color=colour, label=plain(mark.label))
    axes.set_title(plain(plot.title, 90), fontsize=11, loc="left")
    axes.set_xlabel(plot.x_label)
    axes.set_ylabel(plot.y_label)
    if plot.log_x:
        _logarithmic_x(axes, sorted({float(x) for line in plot.lines for x in line.x}))
    if plot.log_y:
        _logarithmic_y(axes)
    elif plot.from_zero:
        standing = any(line.style in ("bars", "filled", "outline") for line in plot.lines)
        # A line that lies at 0 must not hide behind the axis.
        axes.set_ylim(bottom=0.0 if standing else -0.03 * axes.get_ylim()[1])
    axes.grid(True, which="major", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    names = [str(name) for line in plot.lines if line.style == "bars" for name in line.x]
    if any(len(name) > 3 for name in names):  # longer ones would touch each other
        axes.tick_params(axis="x", rotation=30)
        for label in axes.get_xticklabels():
            label.set_horizontalalignment("right")
    if plot.compact:
        named = any(line.style == "bars" for line in plot.lines)
        for name, axis, other in (("x", axes.xaxis, plot.log_x or named), ("y", axes.yaxis, plot.log_y)):
            if not other:
                with_commas(axis, whole=name in plot.whole)
        legend_below(axes, _labels(plot))
    elif len(plot.lines) > 1:
        outside = len(plot.lines) > 5
        place = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5)} if outside else {"loc": "best"}
        axes.legend(frameon=False, fontsize=9, **place)
    return figure


def _labels(plot: Plot) -> list[str]:
    labels = [line.label for line in plot.lines] + [mark.label for mark in plot.marks]
    return [plain(label) for label in labels if label]


def _compact_axes(plot: Plot) -> tuple[Any, Any]:
    return fixed_axes(4.8, 2.3, left=0.72, right=0.2, legend_rows=legend_rows(_labels(plot), 4.8))


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
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{ending}" for ending in ("png", "svg")]
    for path in paths:
        metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
        figure.savefig(path, dpi=150, metadata=metadata)
    return paths


def _heat_map(plot: HeatMap) -> Any:
    from matplotlib.colors import LogNorm

    size = (max(7.5, 2.6 + 0.62 * len(plot.columns)), 1.7 + 0.3 * len(plot.rows))
    figure, axes = free_axes(size)
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
    dashes = DASHES[index // len(COLOURS) % len(DASHES)]
    errors = None
    if line.style in ("measured", "points", "bars") and line.low is not None and line.high is not None:
        errors = [
            [max(0.0, y - low) for y, low in zip(line.y, line.low, strict=True)],
            [max(0.0, high - y) for y, high in zip(line.y, line.high, strict=True)],
        ]
    label = plain(line.label) or None
    if line.style == "bars":
        width = 0.8 / len(bars)
        places = [place + (bars.index(line) - (len(bars) - 1) / 2) * width for place in range(len(line.x))]
        axes.bar(places, line.y, width, yerr=errors, capsize=2, color=colour, label=label)
        axes.set_xticks(range(len(line.x)), [str(name) for name in line.x])
    elif line.style == "predicted":
        axes.plot(line.x, line.y, "--", color=colour, label=label, linewidth=1.3)
    elif line.style == "line":
        axes.plot(line.x, line.y, dashes, color=colour, label=label, linewidth=1.5)
    elif line.style == "dots":
        many = len(line.x) > MOST_VECTOR_DOTS
        dot = marker if len(line.x) <= _MOST_SHAPES else "."
        axes.plot(line.x, line.y, dot, color=colour, label=label, markersize=3.5, alpha=0.6, rasterized=many)
    elif line.style == "band":
        axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.22, linewidth=0, label=label)
    elif line.style == "filled":
        axes.stairs(line.y, line.x, baseline=line.low or 0.0, fill=True, color=colour, label=label)
    elif line.style == "outline":
        axes.stairs(line.y, line.x, color=colour, linewidth=1.6, linestyle=dashes, label=label)
    else:
        joined = dashes if line.style == "measured" else "none"
        axes.errorbar(
            line.x, line.y, yerr=errors, capsize=2, color=colour, marker=marker, markersize=5, linestyle=joined,
            linewidth=1.3, label=label,
        )  # fmt: skip
