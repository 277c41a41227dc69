"""What checking a claim gives: rows of a table, a verdict, a finding in words, and plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

from asgd.report.plots import HeatMap, Plot

# "holds" and "does not hold" are of a prediction, "undecided" where the measurement's interval contains the border
# between them; a "finding" is a measurement that nothing was claimed of.
Verdict = Literal["holds", "does not hold", "undecided", "finding"]


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
    """A checked claim. `finding` says in words what was seen, also where the claim doesn't hold as stated; `details`
    are rows for the result file only, too many for a terminal.
    """

    rows: Sequence[Row]
    finding: str
    plots: Sequence[Plot | HeatMap] = field(default_factory=tuple)
    details: Sequence[Row] = field(default_factory=tuple)

    @property
    def verdict(self) -> Verdict:
        """The worst of the rows': the claim holds if each of its predictions does."""
        verdicts = {row.verdict for row in (*self.rows, *self.details)}
        worst: tuple[Verdict, ...] = ("does not hold", "undecided", "holds")
        return next((verdict for verdict in worst if verdict in verdicts), "finding")

    def to_dict(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "finding": self.finding,
            "rows": [row.to_dict() for row in self.rows],
            "details": [row.to_dict() for row in self.details],
            "plots": [asdict(plot) for plot in self.plots],
        }


def judge(holds: bool) -> Verdict:
    """The verdict on a prediction."""
    return "holds" if holds else "does not hold"


def judge_at_most(measured: Measured, bound: float) -> Verdict:
    """The verdict on an upper bound: the whole interval must lie on one side of it.

    Example:
        >>> [judge_at_most(Measured(1.0, 0.9, 1.1), bound) for bound in (1.2, 1.0, 0.5)]
        ['holds', 'undecided', 'does not hold']
    """
    low = measured.value if measured.low is None else measured.low
    high = measured.value if measured.high is None else measured.high
    if high <= bound:
        return "holds"
    return "does not hold" if not low <= bound else "undecided"


def judge_attained(measured: Measured, bound: float, width: float) -> Verdict:
    """The verdict on an upper bound that may be attained: a narrow interval around it agrees with it too.

    Example:
        >>> [judge_attained(Measured(1.0, low, high), 1.0, 0.5) for low, high in ((0.8, 1.2), (0.1, 1.9), (1.1, 1.3))]
        ['holds', 'undecided', 'does not hold']
    """
    verdict = judge_at_most(measured, bound)
    narrow = measured.low is not None and measured.high is not None and measured.high - measured.low <= width
    return "holds" if verdict == "undecided" and narrow else verdict


def judge_equal(measured: Measured, predicted: float, tolerance: float = 0.0) -> Verdict:
    """The verdict on a predicted number: within the interval, or within `tolerance` of the measured value.

    Example:
        >>> judge_equal(Measured(1.0, 0.9, 1.1), 1.05), judge_equal(Measured(1.0), 1.05, 0.02)
        ('holds', 'does not hold')
    """
    inside = measured.low is not None and measured.high is not None and measured.low <= predicted <= measured.high
    return judge(inside or abs(measured.value - predicted) <= tolerance)
