"""What checking a claim gives: rows of a table, a verdict, a finding in words, and plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

from asgd.report.plots import HeatMap, Plot

# "holds" and "does not hold" are of a prediction; a "finding" is a measurement that nothing was claimed of.
Verdict = Literal["holds", "does not hold", "finding"]


class Measured(NamedTuple):
    """A measured number with its interval (95% unless a row says otherwise); without one when it is exact."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:.4g}"
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


@dataclass(frozen=True)
class Row:
    """One line of a claim's table: in which setting, what is predicted, what was measured, and whether it agrees."""

    setting: str
    predicted: str
    measured: Measured | str
    verdict: Verdict

    def to_dict(self) -> dict[str, Any]:
        measured = self.measured if isinstance(self.measured, str) else self.measured._asdict()
        return {"setting": self.setting, "predicted": self.predicted, "measured": measured, "verdict": self.verdict}


@dataclass(frozen=True)
class Outcome:
    """A checked claim. `finding` says in words what was seen, also where the claim doesn't hold as stated."""

    rows: Sequence[Row]
    finding: str
    plots: Sequence[Plot | HeatMap] = field(default_factory=tuple)

    @property
    def verdict(self) -> Verdict:
        """The claim holds if each of its predictions does."""
        verdicts = {row.verdict for row in self.rows}
        return "does not hold" if "does not hold" in verdicts else "holds" if "holds" in verdicts else "finding"

    def to_dict(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "finding": self.finding,
            "rows": [row.to_dict() for row in self.rows],
            "plots": [asdict(plot) for plot in self.plots],
        }


def judge(holds: bool) -> Verdict:
    """The verdict on a prediction."""
    return "holds" if holds else "does not hold"
