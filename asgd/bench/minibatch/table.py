"""A complete benchmark in words: its tables, the protocol that they are by, and what to doubt."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from rich.table import Table

from asgd.bench.minibatch.comparing import Interval, Row, rows
from asgd.bench.minibatch.plan import DDP, Plan
from asgd.bench.minibatch.results import Record
from asgd.bench.minibatch.tuning import ROOM
from asgd.sim.tuning import STEP_SIZE


def conclude(plan: Plan, record: Record) -> list[Row]:
    """Put what a complete record comes to into it: rows, protocol and warnings; returns the rows."""
    found = rows(plan, record)
    record.rows = [msgspec.to_builtins(row) for row in found]
    record.protocol = protocol_lines(plan, record)
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
        "times sooner",
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


def protocol_lines(plan: Plan, record: Record) -> list[str]:
    """By which protocol the numbers came about, in sentences."""
    protocol, config = plan.protocol, plan.config
    seconds = config.budget.time_s
    also = "".join(f" and {key} in {', '.join(map(str, values))}" for key, values in protocol.also.items())
    sizes = protocol.step_sizes
    tuned_by = (
        f"seconds to {protocol.metric} {protocol.target:g} (where no step size reaches it with every seed: by the "
        "metric at the end)"
        if protocol.target is not None
        else f"{protocol.metric} over the last 10% of the run"
    )
    where = "on real processes" if all(map(plan.is_real, plan.settings)) else "in virtual time"
    lines = [
        f"Tuning: every method on the same grid, {len(sizes)} step sizes 2^(k/{protocol.per_octave}) from "
        f"{sizes[0]:.4g} to {sizes[-1]:.4g}{also}, by {tuned_by}, {where}, each point for {seconds:g} s with seeds "
        f"{_list(plan.tuning_seeds)}. Where a best one was at an edge, the grid of all was made longer, at most "
        f"{protocol.widen} times.",
    ]
    if protocol.confirm and where == "in virtual time":
        lines.append(
            f"Confirmed: the best point and its two neighbours on the grid ran for real once with seed "
            f"{plan.tuning_seeds[0]}, for {ROOM:g} times the seconds that the best one had needed, at most "
            f"{seconds:g}; the best of the three is what is measured."
        )
    lines += [
        f"Measured: every method with the fresh seeds {_list(plan.fresh_seeds)}, one run at a time, the methods in "
        "turn for each seed (A B C, B C A, ...), on the same task, processes and protocol. Intervals: 95%, Student's t "
        "over the seeds; those of ratios are of the mean logarithm of each seed's ratio.",
        f"Budgets: every run lasts {seconds:g} s of training, whatever is done in it. So models are compared after "
        "equal seconds, and, at the last evaluation before the samples that every run got through, after equal "
        "gradients (used or not).",
        f"Evaluation: after the training, off the clock, of the versions kept {_every(plan)}; a time to the target is "
        "that of the first such version at or beyond it. Keeping one costs the server a write of the parameters, "
        "within the clock.",
        "Predicted throughput: sum 1/h_i asynchronous, n / (mean of each round's longest job) mini-batch, from the "
        "speeds alone; other methods by their decisions in virtual time.",
    ]
    if any(contender.key == DDP for contender in plan.contenders):
        lines.append(
            "PyTorch DDP (gloo) makes the same update as mini-batch and takes its step size; it does the same jobs "
            "with the same waits."
        )
    machine = record.machine
    lines.append(
        f"Machine: {machine.cores} cores, {machine.processor}, {machine.system}, Python {machine.python}, torch "
        f"{machine.torch}; begun {machine.started}, {record.seconds / 60:.1f} minutes in all: "
        + "; ".join(machine.commands)
    )
    return lines


def warnings(plan: Plan, record: Record, found: Sequence[Row]) -> list[str]:
    """What to doubt."""
    several = len(plan.settings) > 1
    sentences = []
    for row in found:
        who = f"{row.label} under {row.setting}" if several else row.label
        if row.at_edge and row.contender != DDP:
            sentences.append(
                f"{who}: its step size {row.values[STEP_SIZE]:.4g} is the {row.at_edge} of the grid: another may be "
                "better"
            )
        if row.tuned_by == "final" and plan.protocol.target is not None and row.contender != DDP:
            sentences.append(
                f"{who}: no step size reached the target with every tuning seed; it is tuned by the last values"
            )
        if row.diverged:
            sentences.append(f"{who}: {row.diverged} of {row.seeds} runs diverged, and are in no mean")
        if row.time_s and row.resolution_s and row.resolution_s > 0.05 * row.time_s.value:
            sentences.append(
                f"{who}: evaluations are {row.resolution_s:.2g} s apart, which is "
                f"{row.resolution_s / row.time_s.value:.0%} of its time to the target"
            )
    troubled = [run for run in record.runs if run.lost or run.restarts or run.evaluations_missing]
    for run in troubled:
        sentences.append(
            f"{run.contender} under {run.setting}, seed {run.seed}: {run.lost} jobs lost, {run.restarts} restarts, "
            f"{run.evaluations_missing} evaluations missing"
        )
    if plan.protocol.seeds < 3:
        sentences.append(f"{plan.protocol.seeds} measured seeds: at least 3 make an interval worth reading")
    return sentences


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
        table.add_column(column, overflow="fold")
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


def _list(numbers: Sequence[int]) -> str:
    return f"{numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else str(numbers[0])


def _every(plan: Plan) -> str:
    evaluation = plan.config.evaluation
    parts = [
        f"every {value:,} {unit}"
        for value, unit in (
            (evaluation.every_samples, "samples"),
            (evaluation.every_versions, "updates"),
            (evaluation.every_s, "seconds"),
        )
        if value
    ]
    return " and ".join(parts)
