"""What stands in a report: pictures with their captions, or a sentence where a run's record has nothing to draw.

Also how long series get short: a page is read on a screen of some hundred points' width, and must stay small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from asgd.report.plots import HeatMap, Picture, Plot
from asgd.report.reading import Floats, Record

MOST_POINTS = 240  # of a line


@dataclass(frozen=True)
class Exhibit:
    """A picture with what it shows in words (for who can't see it) and a caption; `is_wide`: across the whole page.

    Without a picture, the caption says why there is none.
    """

    title: str
    caption: str
    picture: Plot | HeatMap | Picture | None = None
    words: str = ""
    is_wide: bool = False


class Thinned(NamedTuple):
    """A series in at most so many pieces: the mean place and value of each, its smallest and largest value, and the
    largest number of values in one.
    """

    x: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]
    most: int


def thinned(x: Floats, y: Floats, most_points: int = MOST_POINTS) -> Thinned:
    """Thin a series along x, which never decreases, to pieces of equal width; values that aren't finite are left out.

    Example:
        >>> import numpy as np
        >>> thinned(np.array([0.0, 1.0, 2.0, 3.0]), np.array([1.0, 3.0, 5.0, 5.0]), most_points=2)
        Thinned(x=[0.5, 2.5], mean=[2.0, 5.0], low=[1.0, 5.0], high=[3.0, 5.0], most=2)
    """
    finite = np.isfinite(y)
    x, y = x[finite], y[finite]
    if len(x) <= most_points:
        values = y.tolist()
        return Thinned(x.tolist(), values, values, values, min(len(x), 1))
    edges = np.linspace(x[0], x[-1], most_points + 1)[1:-1]
    begins = np.unique(np.concatenate(([0], np.searchsorted(x, edges))))
    begins = begins[begins < len(x)]
    counts = np.diff(np.append(begins, len(x)))
    return Thinned(
        (np.add.reduceat(x, begins) / counts).tolist(), (np.add.reduceat(y, begins) / counts).tolist(),
        np.minimum.reduceat(y, begins).tolist(), np.maximum.reduceat(y, begins).tolist(), int(counts.max()),
    )  # fmt: skip


def thinning(series: Sequence[Thinned], of_what: str, with_band: bool) -> str:
    """The sentence that says how series were thinned; empty if none was."""
    most = max((one.most for one in series), default=0)
    if most <= 1:
        return ""
    band = ", the band reaches from the smallest to the largest of them" if with_band else ""
    return f" Each point of the line is the mean of up to {most:,} {of_what}{band}."


def seconds_label(records: Sequence[Record]) -> str:
    """The name of an axis of seconds."""
    virtual = [record.is_virtual for record in records]
    return "seconds (virtual)" if all(virtual) else "seconds (some virtual)" if any(virtual) else "seconds"
