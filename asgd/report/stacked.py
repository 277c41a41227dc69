"""Stacked horizontal bars: what a time, or anything else that adds up, went into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from asgd.report.layout import fixed_axes, legend_below, legend_rows, plain, with_commas
from asgd.report.plots import COLOURS

_MOST_NAMES = 24  # of bars; of more, every other one or fewer are named
_HATCHES = ("", "//", "\\\\", "xx", "--", "||", "++")


@dataclass(frozen=True)
class Stacked:
    """Bars, one below the other, each made of the same parts.

    Arguments: rows: the names of the bars; parts: (label, value of each row), from left to right; one that is 0 in all
    rows isn't shown, and the others keep their colours.
    """

    name: str
    title: str
    x_label: str
    rows: Sequence[str]
    parts: Sequence[tuple[str, Sequence[float]]]

    def figure(self) -> Any:
        """The matplotlib figure; parts differ in colour and in hatching."""
        labels = [plain(label) for label, values in self.parts if any(values)]
        names = [plain(row, 28) for row in self.rows]
        left = 0.35 + 0.085 * max(map(len, names))
        each = 0.32 if len(names) <= 8 else 0.2 if len(names) <= _MOST_NAMES else 0.11
        figure, axes = fixed_axes(
            9.6, max(0.8, each * len(names) + 0.2), left=left, right=0.25, legend_rows=legend_rows(labels, 9.6, 1)
        )
        places, ends = range(len(names)), [0.0] * len(names)
        for index, (label, values) in enumerate(self.parts):
            if not any(values):
                continue
            axes.barh(
                places, values, 0.8, left=ends, color=COLOURS[index % len(COLOURS)], label=plain(label), linewidth=0,
                hatch=_HATCHES[index % len(_HATCHES)] if len(names) <= _MOST_NAMES else "", edgecolor="#ffffff",
            )  # fmt: skip
            ends = [end + value for end, value in zip(ends, values, strict=True)]
        step = -(-len(names) // _MOST_NAMES)
        axes.set_yticks(list(places)[::step], names[::step])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlabel(self.x_label)
        axes.set_title(plain(self.title, 90), fontsize=11, loc="left")
        axes.grid(True, axis="x", alpha=0.3)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        with_commas(axes.xaxis, most=10)
        legend_below(axes, labels, 1)
        return figure
