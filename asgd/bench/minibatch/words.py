"""A complete benchmark in words: the protocol that its numbers are by, and what to doubt."""

from __future__ import annotations

from collections.abc import Sequence

from asgd.bench.minibatch.comparing import Row
from asgd.bench.minibatch.plan import BASELINE, DDP, Plan
from asgd.bench.minibatch.results import Record
from asgd.bench.minibatch.tuning import ROOM, edge_of
from asgd.sim.tuning import STEP_SIZE, Values

SLOW = 0.9  # of the predicted throughput: below it, the machine is warned of
FLATTERED = 1.03  # of the predicted ratio to mini-batch: above it, the baseline is warned of


def protocol_lines(plan: Plan, record: Record, found: Sequence[Row]) -> list[str]:
    """By which protocol the numbers came about, in sentences."""
    protocol, config = plan.protocol, plan.config
    seconds = config.budget.time_s
    also = "".join(f" and {key} in {', '.join(map(str, values))}" for key, values in protocol.also.items())
    sizes = protocol.step_sizes
    tuned_by = (
        f"seconds to {protocol.metric} {protocol.target:g} (where no step size reaches it with every seed: first by "
        "how many seeds do, then by the mean of the metric over the last 10% of the runs that don't)"
        if protocol.target is not None
        else f"{protocol.metric} over the last 10% of the run"
    )
    every = protocol.tuning_every_samples
    tuned_by += f", evaluated every {every:,} samples in virtual time" if every else ""
    tuned_by += f" (a {'higher' if protocol.goal.metric_rises else 'lower'} {protocol.metric} is better)"
    emulated = [setting for setting in plan.settings if not plan.is_real(setting)]
    where = "in virtual time" if emulated else "on real processes"
    mixed = bool(emulated) and len(emulated) < len(plan.settings)
    where += " (under real: on real processes)" if mixed else ""
    lines = [
        f"Tuning: every method on the same grid, {len(sizes)} step sizes 2^(k/{protocol.per_octave}) from "
        f"{sizes[0]:.4g} to {sizes[-1]:.4g}{also}, by {tuned_by}, {where}, each point for {seconds:g} s with seeds "
        f"{_list(plan.tuning_seeds)}. Where a best one was at an edge, the grid of all contenders was made an "
        f"octave longer, at most {protocol.widen} times{_widened(plan, found)}.",
    ]
    if protocol.confirm and emulated:
        lines.append(
            f"Confirmed{' (but under real)' if mixed else ''}: the best point and its two neighbours on the grid ran "
            f"for real once with seed {plan.tuning_seeds[0]}, for {ROOM:g} times the seconds that the best one had "
            f"needed, at most {seconds:g}; the best of the three is what is measured. That rests on one "
            "run each: between neighbours that are nearly equal, chance decides."
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
        f"within the clock. {_favoured(plan)}",
        "Predicted throughput: sum 1/h_i asynchronous, n / (mean of each round's longest job) mini-batch, from the "
        "speeds alone; other methods, and all where each job's time is drawn, by their decisions in virtual time with "
        "the draws of the measured seeds.",
    ]
    if any(contender.key == DDP for contender in plan.contenders):
        lines.append(
            "PyTorch DDP (gloo) makes the same update as mini-batch and takes its step size; it does the same jobs "
            "with the same waits."
        )
    machine = record.machine
    lines.append(
        f"Machine: {machine.cores} cores, {machine.processor}, {machine.system}, Python {machine.python}, torch "
        f"{machine.torch}{_with(machine.asgd)}; begun {machine.started}, {record.seconds / 60:.1f} minutes in all: "
        + "; ".join(machine.commands)
        + _load(record)
    )
    return lines


def warnings(plan: Plan, record: Record, found: Sequence[Row]) -> list[str]:
    """What to doubt."""
    several = len(plan.settings) > 1
    baseline = {row.setting: _share(row) for row in found if row.contender == BASELINE}
    sentences = []
    for row in found:
        who = f"{row.label} under {row.setting}" if several else row.label
        if row.at_edge and row.contender != DDP:
            sentences.append(
                f"{who}: its step size {row.values[STEP_SIZE]:.4g} is the {row.at_edge} of the grid: another may be "
                "better"
            )
        if row.contender != DDP:
            sentences += [f"{who}: {_edge(row, values)}" for values in row.edges]
        if row.tuned_by == "final" and plan.protocol.target is not None and row.contender != DDP:
            sentences.append(
                f"{who}: no step size reached the target with every tuning seed; it is tuned by the last values"
            )
        if row.diverged:
            sentences.append(f"{who}: {row.diverged} of {row.seeds} runs diverged, and are in no mean")
        if row.time_s and row.time_s.value and row.resolution_s and row.resolution_s > 0.05 * row.time_s.value:
            sentences.append(
                f"{who}: evaluations are {row.resolution_s:.2g} s apart, which is "
                f"{row.resolution_s / row.time_s.value:.0%} of its time to the target"
            )
        share = _share(row)
        if share < SLOW:
            sentences.append(
                f"{who}: {share:.0%} of the gradients per second that the speeds allow: the machine was too busy to "
                "keep up with them, and the times are of a busy machine"
            )
        if row.agreement and row.agreement.value > FLATTERED:
            sentences.append(
                f"{who}: {row.agreement.value:.2f} times the ratio to mini-batch that the speeds allow, because "
                f"mini-batch was held up more ({baseline[row.setting]:.0%} of its own prediction, here {share:.0%})"
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


def _share(row: Row) -> float:
    """The measured part of the predicted throughput; 1 where one of them isn't known."""
    return 1.0 if row.prediction_share is None else row.prediction_share.value


def _widened(plan: Plan, found: Sequence[Row]) -> str:
    """Which grids became longer, in brackets."""
    grids: dict[tuple[float, float], dict[str, None]] = {}
    for row in found:
        if len(row.grid) > len(plan.protocol.step_sizes):
            grids.setdefault((row.grid[0], row.grid[-1]), {})[row.setting] = None
    several = len(plan.settings) > 1
    parts = [
        f"{low:.4g} to {high:.4g}" + (f" under {', '.join(names)}" if several else "")
        for (low, high), names in grids.items()
    ]
    return f" (here: {', '.join(parts)})" if parts else ""


def _edge(row: Row, values: Values) -> str:
    """What to doubt of a combination of what is tuned along whose best step size is at an edge."""
    others = " and ".join(f"{key.rpartition('.')[2]} {value}" for key, value in values.items() if key != STEP_SIZE)
    return (
        f"with {others} its best step size {values[STEP_SIZE]:.4g} is the {edge_of(row.grid, values)} of the grid, "
        "which isn't made longer for it: with another it may be better than what was chosen"
    )


def _favoured(plan: Plan) -> str:
    """Whom the moments of evaluation favour."""
    evaluation = plan.config.evaluation
    if not evaluation.every_samples and not evaluation.every_versions:
        return "They are equally far apart in seconds for everybody, so they favour nobody."
    return (
        "Who does more of these in a second is looked at more often: its time is rounded up by less (by at most one "
        "such distance, which the warnings tell where it matters), and it has more chances to be at the target by luck."
    )


def _with(version: str) -> str:
    return f", asgd {version}" if version else ""


def _load(record: Record) -> str:
    """The load averages at which the measured runs began, where they are known."""
    loads = [run.load_before for run in record.runs if run.purpose == "measure" and run.load_before is not None]
    return f"; load average before the measured runs {min(loads):.2f} to {max(loads):.2f}" if loads else ""


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
