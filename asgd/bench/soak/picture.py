"""Memory, open files and threads of every process over the time of a soak, as one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from asgd.report.plots import COLOURS

KINDS = ("server", "supervisor", "launcher", "evaluator", "workers", "joined workers")
_PANELS = (("own memory, MB", 2), ("open files", 3), ("threads", 4))


@dataclass(frozen=True)
class SoakPicture:
    """Arguments: name: of the file, without an ending; shown: the samples in a result of `asgd bench soak`."""

    name: str
    shown: Sequence[Mapping[str, Any]]

    def figure(self) -> Any:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8.0, 7.5), layout="constrained")
        panels = figure.subplots(len(_PANELS), 1, sharex=True)
        for axes, (label, place) in zip(panels, _PANELS, strict=True):
            self._panel(axes, place)
            axes.set_ylabel(label)
            axes.set_ylim(bottom=0)
            axes.grid(True, alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
        panels[-1].set_xlabel("minutes")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
        return figure

    def _panel(self, axes: Any, place: int) -> None:
        """Each process's line; the kinds in the order of the legend."""
        series: dict[int, tuple[str, list[float], list[float]]] = {}
        for sample in self.shown:
            for process in sample["processes"]:
                _, times, values = series.setdefault(process[0], (kind_of(process[1]), [], []))
                times.append(sample["time_s"] / 60)
                values.append(process[place])
        named: set[str] = set()
        for kind, times, values in sorted(series.values(), key=lambda each: -KINDS.index(each[0])):
            joined = kind == "joined workers"
            axes.plot(
                times,
                values,
                color=COLOURS[KINDS.index(kind)],
                linewidth=1.0 if joined else 1.6,
                alpha=0.6 if joined or kind == "workers" else 1.0,
                label=None if kind in named else kind,
            )
            named.add(kind)


def kind_of(role: str) -> str:
    """What a process counts as in the picture.

    >>> kind_of("worker-3"), kind_of("guest-0"), kind_of("train"), kind_of("server")
    ('workers', 'joined workers', 'supervisor', 'server')
    """
    if role == "train":
        return "supervisor"
    return {"worker": "workers", "guest": "joined workers"}.get(role.partition("-")[0], role)
