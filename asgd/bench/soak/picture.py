"""Memory, open files and threads of every process over the time of a soak, as one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from asgd.report.plots import COLOURS

# In the order of the legend, with the look of their lines: several lie on each other.
KINDS = {
    "server": ("-", 2.0),
    "supervisor": ("-", 2.0),
    "launcher": ("-", 2.0),
    "evaluator": ("--", 1.6),
    "workers": (":", 1.6),
    "joined workers": ("-", 0.7),
}
_OWN, _FILES, _THREADS = 2, 3, 4  # places in a process of a result's samples


@dataclass(frozen=True)
class _Series:
    kind: str
    minutes: list[float]
    values: list[float]


@dataclass(frozen=True)
class SoakPicture:
    """Arguments: name: of the file, without an ending; shown: the samples in a result of `asgd bench soak`."""

    name: str
    shown: Sequence[Mapping[str, Any]]

    def figure(self) -> Any:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8.0, 9.0), layout="constrained")
        own, change, files, threads = figure.subplots(4, 1, sharex=True, height_ratios=(1.0, 1.3, 1.0, 0.8))
        self._panel(own, "own memory, MB", self._series(_OWN))
        self._panel(change, "its change since the\nfirst quarter, MB", self._changes())
        self._panel(files, "open files", self._series(_FILES))
        self._panel(threads, "threads", self._series(_THREADS))
        for axes in (own, files, threads):
            axes.set_ylim(bottom=0)
        low, high = change.get_ylim()
        change.set_ylim(min(low, -1.0), max(high, 1.0))  # what hardly changes must look so
        threads.set_xlabel("minutes")
        handles, labels = own.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False, fontsize=9)
        return figure

    def _series(self, place: int) -> list[_Series]:
        """One number of each process, in the order in which the processes came."""
        found: dict[int, _Series] = {}
        for sample in self.shown:
            for process in sample["processes"]:
                series = found.setdefault(process[0], _Series(kind_of(process[1]), [], []))
                series.minutes.append(sample["time_s"] / 60)
                series.values.append(process[place])
        return list(found.values())

    def _changes(self) -> list[_Series]:
        """The memory of those that live from the end of the first quarter on, against what it was there."""
        begin, end = self.shown[0]["time_s"] / 60, self.shown[-1]["time_s"] / 60
        quarter = begin + (end - begin) / 4
        changes = []
        for series in self._series(_OWN):
            if series.minutes[0] <= quarter and series.minutes[-1] == end:
                base = next(v for m, v in zip(series.minutes, series.values, strict=True) if m >= quarter)
                changes.append(_Series(series.kind, series.minutes, [value - base for value in series.values]))
        return changes

    @staticmethod
    def _panel(axes: Any, label: str, all_series: Sequence[_Series]) -> None:
        order = list(KINDS)
        named: set[str] = set()
        for series in sorted(all_series, key=lambda series: order.index(series.kind)):
            dashes, width = KINDS[series.kind]
            axes.plot(
                series.minutes,
                series.values,
                dashes,
                color=COLOURS[order.index(series.kind)],
                linewidth=width,
                label=None if series.kind in named else series.kind,
            )
            named.add(series.kind)
        axes.set_ylabel(label)
        axes.grid(True, alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)


def kind_of(role: str) -> str:
    """What a process counts as in the picture.

    >>> kind_of("worker-3"), kind_of("guest-0"), kind_of("train"), kind_of("server")
    ('workers', 'joined workers', 'supervisor', 'server')
    """
    if role == "train":
        return "supervisor"
    return {"worker": "workers", "guest": "joined workers"}.get(role.partition("-")[0], role)
