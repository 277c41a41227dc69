"""Where the parts of a picture lie: axes, legend, numbers on the axes, and labels that may be anybody's text."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def plain(text: str, longest: int = 44) -> str:
    """A text of somebody else's as a label: one line, no formula, nothing that an XML file can't hold, not too long."""
    text = "".join(sign if sign.isprintable() else "?" for sign in text)
    if len(text) > longest:
        text = f"{text[: longest // 2]}…{text[len(text) - longest // 2 :]}"
    # To matplotlib, a dollar begins a formula and a leading underscore hides a label.
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")


def free_axes(size: tuple[float, float]) -> tuple[Any, Any]:
    """A figure of that many inches that finds room for its texts itself, which takes time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots()


def fixed_axes(width: float, height: float, *, left: float, right: float, legend_rows: int) -> tuple[Any, Any]:
    """A figure of `width` inches whose one pair of axes is `height` high, with room for title, labels and legend."""
    from matplotlib.figure import Figure

    top, bottom = 0.34, 0.56 + 0.2 * legend_rows
    whole = top + height + bottom
    figure = Figure(figsize=(width, whole))
    return figure, figure.add_axes((left / width, bottom / whole, (width - left - right) / width, height / whole))


def legend_rows(labels: Sequence[str], width: float, fewest: int = 2) -> int:
    """Rows that a legend of these labels takes below a picture of `width` inches; none for fewer labels."""
    return 0 if len(labels) < fewest else -(-len(labels) // _legend_columns(labels, width))


def _legend_columns(labels: Sequence[str], width: float) -> int:
    """As many as fit: a sign takes about 0.078 inches, the handle and the space between columns 0.55."""

    def taken(columns: int) -> float:
        rows, longer = divmod(len(labels), columns)  # matplotlib gives the first columns a row more
        ends = [column * rows + min(column, longer) for column in range(columns + 1)]
        return sum(0.55 + 0.078 * max(map(len, labels[begin:end])) for begin, end in itertools.pairwise(ends))

    return max((n for n in range(1, len(labels) + 1) if taken(n) <= width - 0.1), default=1)


def legend_below(axes: Any, labels: Sequence[str], fewest: int = 2) -> None:
    """The legend under the x axis, in the room that `fixed_axes` left for it, in the order of the labels."""
    if len(labels) < fewest:
        return
    # matplotlib's own order is by kind: lines before bars.
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    axes.figure.legend(
        [handles[label] for label in labels], labels, loc="lower left", bbox_to_anchor=(0.0, 0.0), frameon=False,
        ncols=_legend_columns(labels, axes.figure.get_figwidth()), fontsize=9, handlelength=1.8, columnspacing=1.2,
        borderaxespad=0.2, labelspacing=0.25,
    )  # fmt: skip


def with_commas(axis: Any, most: int = 5, whole: bool = False) -> None:
    """Thousands apart, so few numbers that they don't touch, and whole ones only if asked for; very small and very
    large ones as multiples of a power of ten, which the axis's label names.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    largest = max(map(abs, axis.get_view_interval()))
    power = 0 if 0.01 <= largest < 1e6 or largest == 0.0 else 3 * math.floor(math.log10(largest) / 3)
    if power:
        axis.set_label_text(f"{axis.label.get_text()} (×10{str(power).translate(_RAISED)})")
    axis.set_major_locator(MaxNLocator(most, steps=[1, 2, 2.5, 5, 10], integer=whole))
    axis.set_major_formatter(FuncFormatter(lambda value, place: f"{value / 10**power:,.6g}"))
