"""A complete benchmark as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from rich.table import Table

from asgd.bench.minibatch.comparing import Interval, Row, rows
from asgd.bench.minibatch.plan import Plan
from asgd.bench.minibatch.results import Record
from asgd.bench.minibatch.words import protocol_lines, warnings
from asgd.sim.tuning import STEP_SIZE


def conclude(plan: Plan, record: Record) -> list[Row]:
    """Put what a complete record comes to into it: rows, protocol and warnings; returns the rows."""
    found = rows(plan, record)
    record.rows = [msgspec.to_builtins(row) for row in found]
    record.protocol = protocol_lines(plan, record, found)
    record.warnings = warnings(plan, record, found)
    return found


def tables(plan: Plan, found: Sequence[Row]) -> list[Table]:
    """Throughput, the target if there is one, and what the models and delays are like."""
    to_target = [] if plan.protocol.target is None else [_target(plan, found)]
    return [_throughput(plan, found), *to_target, _rest(plan, found)]


def _throughput(plan: Plan, found: Sequence[Row]) -> Table:
    table = _table(
        plan,
        "Throughput",
        "gradients/s",
        "by the speeds",
        "samples/s",
        "over mini-batch",
        "by the speeds",
        "measured / predicted",
    )
    for row in found:
        _add(
            plan,
            table,
            row,
            shown(row.gradients_per_s),
            number(row.predicted_gradients_per_s),
            number(row.samples_per_s.value if row.samples_per_s else None),
            shown(row.throughput_ratio),
            number(row.predicted_ratio),
            shown(row.agreement),
        )
    return table


def _target(plan: Plan, found: Sequence[Row]) -> Table:
    protocol = plan.protocol
    table = _table(
        plan,
        f"{protocol.metric} {protocol.target:g}",
        "step size",
        "seconds",
        "samples",
        "times sooner than mini-batch",
    )
    for row in found:
        missed = f"not reached ({row.seeds - row.reached} of {row.seeds})"
        sooner = shown(row.time_ratio)
        if row.time_ratio_is_bound:
            sooner = f"above {sooner} (mini-batch missed it)"
        _add(
            plan,
            table,
            row,
            _step_size(row),
            shown(row.time_s) if row.time_s else missed,
            shown(row.samples) if row.samples else missed,
            sooner,
        )
    return table


def _rest(plan: Plan, found: Sequence[Row]) -> Table:
    seconds, equal = plan.config.budget.time_s, {row.equal_gradients for row in found}
    count = f"{equal.pop():,}" if len(equal) == 1 else "equal"
    metric = plan.protocol.metric
    columns = [
        f"{metric} after {seconds:g} s",
        f"after {count} gradients",
        "delay: mean, max",
        "server busy",
        "discarded",
    ]
    if plan.protocol.target is None:
        columns.insert(0, "step size")
    table = _table(plan, "Models and delays", *columns)
    for row in found:
        cells = [
            _failures(row) or shown(row.final),
            shown(row.at_equal_gradients),
            "" if row.delay_mean is None else f"{row.delay_mean:.2f}, {row.delay_max}",
            "" if row.server_busy is None else f"{row.server_busy:.1%}",
            f"{row.discarded_share:.1%}",
        ]
        _add(plan, table, row, *([_step_size(row)] if plan.protocol.target is None else []), *cells)
    return table


def shown(interval: Interval | None) -> str:
    """A number with its interval.

    Example:
        >>> shown(Interval(2.5, 2.4, 2.6)), shown(Interval(33.0)), shown(None)
        ('2.5 [2.4, 2.6]', '33', '')
    """
    if interval is None:
        return ""
    if interval.low is None or interval.high is None:
        return number(interval.value)
    return f"{number(interval.value)} [{number(interval.low)}, {number(interval.high)}]"


def number(value: float | None) -> str:
    """A number with three digits, or all of those before the point.

    Example:
        >>> number(0.12345), number(33.333), number(12345.6), number(None)
        ('0.123', '33.3', '12,346', '')
    """
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _table(plan: Plan, title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in (*(["speeds"] if len(plan.settings) > 1 else []), "method"):
        table.add_column(column, no_wrap=True)
    for column in columns:
        table.add_column(column, overflow="fold", justify="right")
    return table


def _add(plan: Plan, table: Table, row: Row, *cells: str) -> None:
    several = len(plan.settings) > 1
    last = row.contender == [contender.key for contender in plan.contenders][-1]
    table.add_row(*([row.setting] if several else []), row.label, *cells, end_section=several and last)


def _step_size(row: Row) -> str:
    others = "".join(f", {key.rpartition('.')[2]} {value}" for key, value in row.values.items() if key != STEP_SIZE)
    edge = f" ({row.at_edge} of the grid)" if row.at_edge else ""
    return f"{row.values[STEP_SIZE]:.4g}{others}{edge}"


def _failures(row: Row) -> str:
    return f"diverged ({row.diverged} of {row.seeds})" if row.diverged else ""
