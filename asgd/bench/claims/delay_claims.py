"""Claims 2 and 3 judged: rows, words and plots from what `delays.py` measures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from asgd.bench.claims.delays import ALLOWED_NAME, NUM_WORKERS, SUFFICIENT_NAME, TUNED_NAME, Setting, measure_all
from asgd.bench.claims.effort import Effort
from asgd.bench.claims.outcome import Measured, Outcome, Row, Verdict, judge_at_most
from asgd.bench.claims.statistics import exponent, exponents
from asgd.report.plots import Line, Plot

FLAT = 0.1  # an exponent up to this counts as no growth
FEWEST = 4  # points that an exponent is judged from
LONG = 4  # largest delays that a run must last at least, so that late answers can do harm


def growth(setting: Setting, needed_DR: np.ndarray) -> Measured:
    """The exponent of updates in tau_max, over the seeds."""
    return exponents([setting.max_delays] * needed_DR.shape[1], needed_DR.T.tolist())


def judge_growth(setting: Setting, needed_DR: np.ndarray, bound: float) -> Verdict:
    """At most tau_max^bound: undecided from too few points, from runs that are short beside the delay, or where a step
    size never got there.
    """
    enough = len(setting.max_delays) >= FEWEST and bool(np.isfinite(needed_DR).all())
    if not enough or bool((needed_DR.mean(axis=1) < LONG * np.array(setting.max_delays)).any()):
        return "undecided"
    return judge_at_most(growth(setting, needed_DR), bound)


def means(needed_DR: np.ndarray) -> str:
    """The mean over the seeds for each largest delay."""
    return ", ".join("never" if not math.isfinite(value) else f"{value:.0f}" for value in needed_DR.mean(axis=1))


def check_constant(effort: Effort) -> Outcome:
    """Claim 2: constant steps. The bound grows with tau_max^(1/2), older ones with tau_max; both are upper bounds."""
    return judge_constant(measure_all(effort))


def judge_constant(settings: Sequence[Setting]) -> Outcome:
    """The rows and words of claim 2."""
    rows, tuned, largest = [], [], []
    for s in settings:
        at = f"{s.problem}, {s.order}, tau_max {s.max_delays[0]} to {s.max_delays[-1]}"
        best = growth(s, s.tuned)
        tuned.append(best)
        settling = exponent(s.max_delays, [1.0 / step if step else math.inf for step in s.largest])
        largest.append(settling)
        steps = ", ".join(f"{step:.3g}" for step in s.largest)
        settles = Measured(settling)
        # On a quadratic the limit can't fall to 0, see below: nothing is at stake there.
        judged: Verdict = "finding" if s.problem == "quadratic" else judge_at_most(settles, 0.5)
        if len(s.largest) < FEWEST:
            judged = "undecided"
        rows += [
            Row(f"{at}: updates to eps, best step", "at most tau_max^0.5 (older: ^1)", best,
                judge_growth(s, s.tuned, 0.5)),
            Row(f"{at}: largest step that settles ({steps}), as tau_max^-p", "p at most 0.5 (older: 1)",
                settles, judged),
            Row(f"{at}: updates to eps, largest step of the grid that gets there", "", growth(s, s.at_largest),
                "finding"),
            Row(f"{at}: updates to eps, the theorem's step", "0.5: so the step falls", growth(s, s.theorem), "finding"),
            Row(f"{at}: updates until it stays below eps, best step", "", means(s.tuned_stays), "finding"),
        ]  # fmt: skip
    highest = max((best.value for best in tuned), default=math.nan)
    steepest = max(largest, default=math.nan)
    attained = "no order that was tried attains the bound's 1/2" if max(highest, steepest) < 0.45 else (
        "an order attains the bound's 1/2, or comes near it"
    )  # fmt: skip
    finding = (
        f"Exponents in tau_max: updates to eps with the best step {min(b.value for b in tuned):.2f} to {highest:.2f}; "
        f"largest step that settles -{steepest:.2f} at the steepest: {attained}. On a quadratic without noise no order "
        f"can make the limit fall to 0: each eigen-direction is stable for eta lambda C < 1 (here eta < "
        f"{1 / NUM_WORKERS:.3f}) whatever tau_max, since to change sign it needs stale gradients of the other sign, "
        "of which there are at most C, none larger than the largest so far."
    )
    return Outcome(rows, finding, [_constant_plot(settings)])


def check_adaptive(effort: Effort) -> Outcome:
    """Claim 3: delay-adaptive steps at one step size for all delays."""
    return judge_adaptive(measure_all(effort))


def judge_adaptive(settings: Sequence[Setting]) -> Outcome:
    """The rows and words of claim 3."""
    rows, exponents_seen = [], []
    for s in settings:
        at = f"{s.problem}, {s.order}, tau_max {s.max_delays[0]} to {s.max_delays[-1]}"
        for name in (SUFFICIENT_NAME, TUNED_NAME):
            needed_DR = s.adaptive[name]
            what = f"{name} (eta = {s.fixed:.3g}, beyond the theorem)" if name == TUNED_NAME else name
            seen = growth(s, needed_DR)
            exponents_seen.append(seen.value)
            verdict = judge_growth(s, needed_DR, FLAT)
            rows.append(Row(f"{at}: updates to eps, {what}", f"tau_max^0 (to {FLAT})", seen, verdict))
        rows.append(Row(f"{at}: updates to eps, {ALLOWED_NAME}", "", means(s.adaptive[ALLOWED_NAME]), "finding"))
        rows += [
            Row(f"{at}: the same with a constant step of {s.fixed:.3g}", "", means(s.constant), "finding"),
            Row(f"{at}: until it stays below eps, scale, {s.fixed:.3g}", "", means(s.adaptive_stays), "finding"),
            Row(f"{at}: until it stays below eps, constant, {s.fixed:.3g}", "", means(s.constant_stays), "finding"),
        ]
    failed = [s for s in settings if not np.isfinite(s.constant).all()]
    too_long = [s for s in settings if not np.isfinite(s.adaptive[ALLOWED_NAME]).all()]
    smallest_limit = 2.0 * math.sin(math.pi / (2 * (2 * (NUM_WORKERS - 1) + 1)))
    finding = (
        "With one step size for all delays the exponents of the updates to eps in tau_max are "
        f"{np.nanmin(exponents_seen):.2f} to {np.nanmax(exponents_seen):.2f}. A constant step of the size that is "
        f"best for `scale` doesn't get to eps with every delay in {len(failed)} of {len(settings)} settings. With eta "
        f"= 1/(4L), the largest that Theorem 8 names, {len(too_long)} settings never get there: delays up to tau_C "
        f"aren't shortened, and a constant delay of tau_C - 1 alone is unstable above {smallest_limit:.3f}/L. So its "
        "eta must be tuned below that; 1/(4L tau_C) suffices."
    )
    return Outcome(rows, finding, [_adaptive_plot(settings)])


def _lines(settings: Sequence[Setting], what: str) -> list[Line]:
    lines = []
    for s in settings:
        if s.problem == settings[0].problem:
            needed_DR = s.tuned if what == "tuned" else s.adaptive[what]
            lines.append(Line(s.order, s.max_delays, needed_DR.mean(axis=1).tolist()))
    return lines


def _constant_plot(settings: Sequence[Setting]) -> Plot:
    first = settings[0]
    start = float(first.theorem[0].mean())
    lines = _lines(settings, "tuned")
    lines.append(Line("the theorem's step", first.max_delays, first.theorem.mean(axis=1).tolist(), style="points"))
    for power in (0.5, 1.0):
        grown = [start * (delay / first.max_delays[0]) ** power for delay in first.max_delays]
        lines.append(Line(f"growth as τ_max^{power:g}", first.max_delays, grown, style="predicted"))
    return Plot(
        "claim2_constant", f"Best constant step, {NUM_WORKERS} workers ({first.problem}), by order of arrivals",
        "largest delay τ_max", "updates until the mean of ||∇f||² is below eps", lines, log_x=True, log_y=True,
    )  # fmt: skip


def _adaptive_plot(settings: Sequence[Setting]) -> Plot:
    return Plot(
        "claim3_adaptive",
        f"Delay-adaptive (Theorem 8, η = 1/(4Lτ_C)), {NUM_WORKERS} workers ({settings[0].problem})",
        "largest delay τ_max", "updates until the mean of ||∇f||² is below eps",
        _lines(settings, SUFFICIENT_NAME), log_x=True, log_y=True,
    )  # fmt: skip
