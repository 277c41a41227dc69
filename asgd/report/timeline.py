"""The workers' timeline: who computed when, what the server and the network did to it, and how stale it came back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from asgd.report.exhibits import Exhibit
from asgd.report.layout import fixed_axes, legend_below, legend_rows, plain, with_commas
from asgd.report.plots import COLOURS
from asgd.report.reading import Flags, Floats, Record
from asgd.report.times import evenly, why_untimed

MOST_RUNS = 6
_MOST_VECTORS = 1500  # pieces in an SVG; more are drawn as pixels
_DOWN, _UP = COLOURS[3], COLOURS[1]  # neither is near a colour of the delays' scale


@dataclass(frozen=True)
class Timeline:
    """Lanes of workers in a window of time.

    Arguments: lanes: the workers' numbers, from top to bottom; window: from, to, in seconds; the arrays have a number
    for each job J: its lane, when its transfer to the worker began and ended, when its computation began, when real
    computation ended and emulated waiting did, when its gradient arrived, its delay, and whether it was used; lost: the
    (lane, time) of lost jobs.
    """

    name: str
    title: str
    x_label: str
    lanes: Sequence[int]
    window: tuple[float, float]
    lane_J: Floats
    given_s_J: Floats
    queued_s_J: Floats
    started_s_J: Floats
    computed_s_J: Floats
    waited_s_J: Floats
    arrived_s_J: Floats
    delay_J: Floats
    is_used_J: Flags
    lost: Sequence[tuple[int, float]] = ()

    def figure(self) -> Any:
        """The matplotlib figure."""
        few = len(self.lanes) <= 8
        labels = list(self._legend())
        height = max(1.2, len(self.lanes) * (0.42 if few else 0.15))
        figure, axes = fixed_axes(9.6, height, left=0.95, right=1.0, legend_rows=legend_rows(labels, 9.6))
        axes.set_xlim(*self.window)
        axes.set_ylim(len(self.lanes) - 0.4, -0.6)
        self._draw_jobs(figure, axes, few)
        step = 1 if len(self.lanes) <= 16 else -(-len(self.lanes) // 16)
        axes.set_yticks(range(0, len(self.lanes), step), [f"worker {lane}" for lane in self.lanes[::step]], fontsize=9)
        axes.set_xlabel(self.x_label)
        axes.set_title(plain(self.title, 90), fontsize=11, loc="left")
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        with_commas(axes.xaxis, most=8)
        for label, style in self._legend().items():
            axes.plot([], [], label=label, **style)
        legend_below(axes, labels)
        return figure

    def _draw_jobs(self, figure: Any, axes: Any, few: bool) -> None:
        from matplotlib.collections import PolyCollection
        from matplotlib.colors import Normalize

        many = 4 * len(self.lane_J) > _MOST_VECTORS
        ink = axes.xaxis.label.get_color()
        axes.hlines(range(len(self.lanes)), *self.window, colors="#888888", linewidth=0.4, alpha=0.6, zorder=0)
        scale, colours = Normalize(0, max(1.0, self.delay_J.max(initial=1.0))), _colours()
        # An edge that is seen on light and on dark paper, each of which is near an end of the scale; around thin lanes
        # it would be all that is seen.
        edge = {"edgecolors": "#8c8c8c" if few else "#ffffff", "linewidths": 0.6 if few else 0.3, "rasterized": many}
        # From top to bottom of a lane: the transfers, the computation, the queue.
        blocks = (
            (self.started_s_J, self.computed_s_J, -0.18, 0.4, colours(scale(self.delay_J)), edge),
            (self.computed_s_J, self.waited_s_J, -0.02, 0.24, colours(scale(self.delay_J)), edge | {"hatch": "////"}),
            (self.given_s_J, self.queued_s_J, -0.42, -0.18, _DOWN, {"rasterized": many}),
            (self.waited_s_J, self.arrived_s_J, -0.42, -0.18, _UP, {"rasterized": many}),
        )
        for begin, end, top, bottom, colour, style in blocks:
            there = end > begin
            colour = colour[there] if isinstance(colour, np.ndarray) else colour
            boxes = _boxes(self.lane_J[there], begin[there], end[there], top, bottom)
            axes.add_collection(PolyCollection(boxes, facecolors=colour, **style))
        queued = self.started_s_J > self.queued_s_J
        axes.hlines(
            self.lane_J[queued] + 0.45, self.queued_s_J[queued], self.started_s_J[queued], colors=ink,
            linewidth=1.4 if few else 0.6, rasterized=many,
        )  # fmt: skip
        size = 5 if few else 3
        unused = ~self.is_used_J
        axes.plot(self.arrived_s_J[unused], self.lane_J[unused] + 0.1, "x", color=ink, markersize=size, clip_on=True)
        axes.plot([at for _, at in self.lost], [lane for lane, _ in self.lost], "X", color=_UP, markersize=size + 2)
        _colour_scale(figure, axes, scale)

    def _legend(self) -> dict[str, dict[str, Any]]:
        box = {"marker": "s", "linestyle": "none"}
        entries: dict[str, dict[str, Any]] = {"computing (colour: delay)": box | {"color": "#7c7b78"}}
        if (self.waited_s_J > self.computed_s_J).any():
            entries["waiting (emulated)"] = box | {"markerfacecolor": "none", "color": "#7c7b78"}
        if (self.queued_s_J > self.given_s_J).any():
            entries["to the worker"] = box | {"color": _DOWN, "markersize": 4}
        if (self.arrived_s_J > self.waited_s_J).any():
            entries["to the server"] = box | {"color": _UP, "markersize": 4}
        if (self.started_s_J > self.queued_s_J).any():
            entries["a job is queued"] = {"linestyle": "-", "color": _ink()}
        if not self.is_used_J.all():
            entries["discarded"] = {"marker": "x", "linestyle": "none", "color": _ink()}
        if self.lost:
            entries["lost"] = {"marker": "X", "linestyle": "none", "color": _UP}
        return entries


def _colours() -> Any:
    """Cividis, which colour-blind readers see as others do, without its darkest part, which dark paper would hide."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    return ListedColormap(colormaps["cividis"](np.linspace(0.15, 1.0, 256)))


def _ink() -> str:
    import matplotlib

    return str(matplotlib.rcParams["axes.labelcolor"])


def _boxes(lane: Floats, begin: Floats, end: Floats, top: float, bottom: float) -> Any:
    """The corners of a box per job, an array (J, 4, 2)."""
    x = np.stack([begin, end, end, begin], axis=1)
    y = np.stack([lane + top, lane + top, lane + bottom, lane + bottom], axis=1)
    return np.stack([x, y], axis=2)


def _colour_scale(figure: Any, axes: Any, scale: Any) -> None:
    from matplotlib.cm import ScalarMappable

    width, whole = figure.get_figwidth(), figure.get_figheight()
    place = axes.get_position()
    high = min(1.9, place.height * whole) / whole
    bar = figure.add_axes(((width - 0.75) / width, place.y1 - high, 0.14 / width, high))
    figure.colorbar(ScalarMappable(scale, _colours()), cax=bar, label="delay (updates)")
    with_commas(bar.yaxis, whole=True)


def timeline_exhibits(records: Sequence[Record]) -> list[Exhibit]:
    """A timeline of each run's workers; of at most so many runs."""
    exhibits = [_exhibit(record, index, len(records)) for index, record in enumerate(records[:MOST_RUNS])]
    if len(records) > MOST_RUNS:
        others = ", ".join(record.label for record in records[MOST_RUNS:])
        exhibits.append(Exhibit("Further timelines", f"Not drawn, to keep the page short: {others}."))
    return exhibits


def _exhibit(record: Record, index: int, of_runs: int) -> Exhibit:
    title = "Timeline of the workers" + (f": {record.label}" if of_runs > 1 else "")
    trace = record.trace
    if not trace.is_timed_R.any():
        return Exhibit(title, why_untimed([record]))
    workers = np.unique(trace.worker_R)
    lanes = evenly(workers)
    low, high = _window(record, lanes)
    shown_R = trace.is_timed_R & np.isin(trace.worker_R, lanes) & (trace.time_s_R > low) & (trace.assigned_s_R < high)
    lane_of = {worker: lane for lane, worker in enumerate(lanes)}
    lane_J = np.array([lane_of[worker] for worker in trace.worker_R[shown_R].tolist()], np.float64)
    computed_s_J = trace.started_s_R[shown_R] + trace.compute_s_R[shown_R]
    started_s_J = trace.started_s_R[shown_R]
    lost_R = trace.is_lost_R & np.isin(trace.worker_R, lanes) & (trace.time_s_R > low) & (trace.time_s_R <= high)
    picture = Timeline(
        "timeline" if of_runs == 1 else f"timeline_{index + 1}", title,
        "seconds (virtual)" if record.is_virtual else "seconds", lanes, (low, high), lane_J,
        trace.assigned_s_R[shown_R], started_s_J - trace.queue_s_R[shown_R], started_s_J, computed_s_J,
        computed_s_J + trace.wait_s_R[shown_R], trace.time_s_R[shown_R], trace.delay_R[shown_R].astype(np.float64),
        trace.is_used_R[shown_R],
        [(lane_of[int(trace.worker_R[row])], float(trace.time_s_R[row])) for row in np.flatnonzero(lost_R)],
    )  # fmt: skip
    caption = f"{_said(record, low, high)}: {len(lane_J):,} of {len(trace):,} jobs."
    caption += " A block is a worker computing, its colour the delay of the gradient."
    if len(lanes) < len(workers):
        caption += f" Of {len(workers):,} workers, {len(lanes)} are shown, evenly spaced by number."
    caption += " An empty lane is a worker without work, or one whose job hadn't come back when the record ended."
    words = f"{title}, {len(lanes)} lanes. {caption}"
    return Exhibit(title, caption, picture, words, is_wide=True)


def _said(record: Record, low: float, high: float) -> str:
    if low <= 0.0 and high >= record.wall_s:
        return f"The whole run, {high:.4g} s"
    digits = max(0, 2 - int(np.floor(np.log10(high - low))))
    window = f"From {low:,.{digits}f} s to {high:,.{digits}f} s of {record.wall_s:,.{digits}f} s"
    return f"{window}, so that single jobs can be seen"


def _window(record: Record, lanes: Sequence[int]) -> tuple[float, float]:
    """The middle of the run, long enough for about 15 jobs of a middling worker (12 with many lanes)."""
    trace = record.trace
    time_s, worker = trace.time_s_R[trace.is_timed_R], trace.worker_R[trace.is_timed_R]
    between = []
    for lane in lanes:
        own = time_s[worker == lane]
        between.append((own[-1] - own[0]) / (len(own) - 1) if len(own) > 1 else np.inf)
    jobs = 15 if len(lanes) <= 8 else 12
    length, end = jobs * float(np.median(between)), record.wall_s
    if not length < end:
        return 0.0, end
    low = min(max(0.0, float(np.median(time_s)) - length / 2), end - length)
    return low, low + length
