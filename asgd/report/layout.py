"""Where the parts of a picture lie: axes, legend, numbers on the axes, and labels that may be anybody's text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def plain(text: str, longest: int = 60) -> str:
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


def legend_rows(labels: Sequence[str], width: float) -> int:
    """Rows that a legend of these labels takes below a picture of `width` inches; none for a single label."""
    return 0 if len(labels) < 2 else -(-len(labels) // _legend_columns(labels, width))


def _legend_columns(labels: Sequence[str], width: float) -> int:
    """As many as fit: a sign takes about 0.078 inches, the handle and the space between columns 0.55."""
    return max(1, min(len(labels), int((width - 0.2) / (0.55 + 0.078 * max(map(len, labels))))))


def legend_below(axes: Any, labels: Sequence[str]) -> None:
    """The legend under the x axis, in the room that `fixed_axes` left for it."""
    if len(labels) < 2:
        return
    width = axes.figure.get_figwidth()
    axes.figure.legend(
        loc="lower left", bbox_to_anchor=(0.0, 0.0), ncols=_legend_columns(labels, width), frameon=False, fontsize=9,
        handlelength=1.8, columnspacing=1.2, borderaxespad=0.2, labelspacing=0.25,
    )  # fmt: skip


def with_commas(axis: Any) -> None:
    """Thousands apart, and so few numbers that they don't touch."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:,.6g}"))
