"""How a run goes on after its server has ended, in whatever way.

Mode "checkpoint": from the newest good checkpoint; what record and journal have beyond it is moved aside as undone.
Mode "exact": from the newest good checkpoint (or, without one, from the start) by computing again what the journal has
beyond it; the record then has every line that it would have, and the state its workers and their jobs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from asgd.config import Config
from asgd.core.state import ServerState
from asgd.core.trace import TraceRow
from asgd.errors import RunError
from asgd.learn.flat import FlatModel
from asgd.learn.task import Task
from asgd.run.build import make_state
from asgd.run.checkpoints import Checkpoint, newest_good
from asgd.run.clock import Clock
from asgd.run.compute import TaskCompute
from asgd.run.evaluations import Evaluations
from asgd.run.files import decode_line, lines_back_to
from asgd.run.formats import ServerTimes
from asgd.run.journal import MAGIC, Journal, Opened, appended, cut_damaged, entries
from asgd.run.recompute import Recomputation, as_opened, header_for, opened_by, reopened
from asgd.run.records import INCARNATION, JOURNAL, TRACE, UNDONE_JOURNAL, RunDirectory
from asgd.run.saving import evaluations_of, has_reads, take_over
from asgd.run.vectors import Vectors

IN_CHECKPOINT_MODE = "go on from the checkpoint alone with --set recovery.mode=checkpoint"


@dataclass
class Recovered:
    """What a server goes on with; `kept`: workers and jobs are those of before, and wait to be taken up again;
    saved_at: version and time of the checkpoint that it came from.
    """

    state: ServerState
    clock: Clock
    times: ServerTimes
    kept: bool
    saved_at: tuple[int, float]


def begin_journal(config: Config, directory: RunDirectory, state: ServerState) -> None:
    """Open the journal of a new run and write that it starts with this state."""
    journal = directory.open_journal(header_for(config, directory.incarnation), config.recovery.sync_s)
    journal.opened(opened_by(config, state, directory.incarnation, kept=False))


def recover(
    config: Config,
    task: Task,
    directory: RunDirectory,
    flat: FlatModel,
    vectors: Vectors,
    evaluations: Evaluations,
    note: Callable[[str], None],
) -> Recovered:
    """Bring a run's state, model and record to where it goes on; see the modes above.

    Arguments: directory: which knows the number of this start of the server; flat, vectors: the model at version 0,
    which becomes that of the run; evaluations: new; note: takes one line about each thing worth telling.
    Errors: RunError when there is no good checkpoint, the record doesn't fit it, or the events after it
    don't give again what they gave.
    """
    checkpoint, notes = newest_good(directory.path / "checkpoints")
    for line in notes:
        note(line)
    if checkpoint is not None and checkpoint.state["layout"] != flat.layout.digest:
        raise RunError(f"the checkpoint of version {checkpoint.version} in {directory.path} belongs to another model")
    exact = config.recovery.mode == "exact"
    if exact and checkpoint is not None and not has_reads(checkpoint):
        note("the checkpoint is not one of recovery.mode = exact: this time the run goes on from it alone")
        exact = False
    if checkpoint is None and not exact:
        raise RunError(
            f"{directory.path} has no good checkpoint to resume from; compute the run again from its journal with "
            "--set recovery.mode=exact, or start it anew (--overwrite)"
        )
    undone = 0
    if checkpoint is not None and not exact:  # first: when lines are missing, everything stays as it is
        undone = directory.truncate_trace(checkpoint.state["core"]["rows"])
    journal = _open_journal(config, directory, checkpoint, exact, note)
    state, times, now_s = make_state(config), ServerTimes(), 0.0
    saved_at = (0, 0.0)
    if checkpoint is not None:
        opened = checkpoint.state.get("opened")
        if opened is not None:
            state = make_state(as_opened(config, Opened(*opened)))
        now_s, times = take_over(checkpoint, state, vectors)
        saved_at = (checkpoint.version, now_s)
    kept, first = False, state.rows
    if not exact:
        directory.truncate_metrics(state.version)
    done = directory.read_metrics()
    missing = evaluations.resume_at(state, now_s, done, *evaluations_of(checkpoint), flat.state_view().nbytes)
    for version in missing:
        note(f"the snapshot of version {version} is gone: its evaluation is missing")
    if exact:
        begin_at = 0 if checkpoint is None else int(checkpoint.state["journal"]["offset"])
        evaluated = {row.version for row in done}
        again, undone = _recompute(
            config, task, directory, flat, vectors, state, begin_at, now_s, evaluations, evaluated
        )
        state, now_s = again.state, again.now_s
        # Otherwise it would wait for workers that it had given up already.
        kept = not again.was_resuming and (state.finished is None or _is_over(config, state, now_s))
        note(f"recomputed {state.rows - first} arrivals after the checkpoint, up to version {state.version}")
        if undone:
            note(f"the end of the journal was lost: {undone} later arrivals of the trace are undone")
        directory.truncate_metrics(state.version)
    else:
        kept = _is_over(config, state, now_s)
        note(f"resumed at version {state.version}" + (f"; {undone} later arrivals are undone" if undone else ""))
    directory.remove_summary()
    start = opened_by(config, state, directory.incarnation, kept=kept)
    journal.opened(start)
    return Recovered(reopened(config, state, start), Clock(now_s), times, kept, saved_at)


def _is_over(config: Config, state: ServerState, now_s: float) -> bool:
    """Whether nothing is left to do with the budget of now either: then it ends as it had, with what was in flight."""
    budget = make_state(config).budget
    return (
        state.finished is not None
        and state.finished.complete
        and budget.is_used_up(state.version, state.samples, state.gradients, now_s)
    )


def _open_journal(
    config: Config,
    directory: RunDirectory,
    checkpoint: Checkpoint | None,
    exact: bool,
    note: Callable[[str], None],
) -> Journal:
    """The run's journal if it reaches as far as the checkpoint; in mode "checkpoint" it ends there then, and otherwise
    a new one is begun.
    """
    header, sync_s = header_for(config, directory.incarnation), config.recovery.sync_s
    num_notes = len(directory.notes)
    place = {} if checkpoint is None else checkpoint.state.get("journal", {})
    fault, offset = None, place.get("offset", 0)
    try:
        try:
            journal = directory.open_journal(header, sync_s)
        except RunError:
            path = directory.path / JOURNAL
            if exact or not offset or not cut_damaged(path, offset, directory.path / UNDONE_JOURNAL):
                raise
            note("the journal is damaged after the checkpoint: what came after the checkpoint is moved aside")
            journal = directory.open_journal(header, sync_s)
        if checkpoint is not None:
            if place.get("since") != journal.since or offset > journal.position:
                fault = f"{journal.path} doesn't reach as far as the checkpoint of version {checkpoint.version}"
            elif "checksum" in place and not journal.is_continued(offset, place["checksum"]):  # older ones have none
                fault = f"{journal.path} isn't the one that the checkpoint of version {checkpoint.version} belongs to"
    except RunError as error:
        fault = str(error).removesuffix(".")
    for line in directory.notes[num_notes:]:
        note(line)
    if fault is None:
        _check_incarnation(directory, journal, checkpoint, offset)
        if not exact:
            journal.cut(offset, directory.path / UNDONE_JOURNAL)
        return journal
    if exact:
        raise RunError(f"{fault}; {IN_CHECKPOINT_MODE}")
    note(f"{fault}; it is put aside, a new one begins here, and the whole run can't be replayed")
    directory.put_journal_aside()
    return directory.open_journal(header, sync_s)


def _check_incarnation(directory: RunDirectory, journal: Journal, checkpoint: Checkpoint | None, offset: int) -> None:
    """Jobs are numbered by the starts of the server: a number that was there before must not come again."""
    opened = None if checkpoint is None else checkpoint.state.get("opened")
    starts = [-1] if opened is None else [Opened(*opened).incarnation]
    later, _ = appended(journal.path, offset or len(MAGIC))  # opening it has shown that it is whole
    starts += [entry.event.incarnation for entry in later if isinstance(entry.event, Opened)]
    if directory.incarnation <= max(starts):
        raise RunError(
            f"{directory.path / INCARNATION} is damaged: the server has been started {max(starts) + 1} times before, "
            f'so it must hold at least {{"next": {max(starts) + 1}}}'
        )


def _recompute(
    config: Config,
    task: Task,
    directory: RunDirectory,
    flat: FlatModel,
    vectors: Vectors,
    state: ServerState,
    begin_at: int,
    now_s: float,
    evaluations: Evaluations,
    evaluated: Collection[int],
) -> tuple[Recomputation, int]:
    """Compute the events from a place in the journal on again, and complete the record; what came of it, and how many
    lines of the trace the journal doesn't have.
    """
    first, rows = state.rows, list[TraceRow]()

    def on_row(row: TraceRow) -> None:
        rows.append(row)
        evaluations.heard_loss(row.loss)

    compute = TaskCompute(config, task, flat, vectors)
    again = Recomputation(config, compute, state, on_row)
    again.now_s = now_s
    if 0 not in evaluated:
        evaluations.keep_if_due(state, flat.state_S, now_s)  # without a checkpoint it begins with version 0
    for entry in entries(directory.path / JOURNAL, begin_at):
        again.take(entry)
        if again.state.version in evaluated:
            evaluations.pass_if_due(again.state, again.now_s)
        else:
            evaluations.keep_if_due(again.state, flat.state_S, again.now_s)
        if again.differences:
            difference = again.differences[0].sentence()
            raise RunError(f"the journal doesn't give again what it gave: {difference}; {IN_CHECKPOINT_MODE}")
    num_recorded, recorded = _trace_end(directory.path / TRACE, first)
    if num_recorded < first:
        raise RunError(
            f"{directory.path / TRACE} has {num_recorded} lines and the checkpoint came after {first} arrivals: lines "
            "are missing, so the history of its parameters is not known"
        )
    for old, new in zip(recorded, rows, strict=False):
        if old != new:
            raise RunError(f"line {old.arrival + 1} of the trace of {directory.path} is {old}; the journal gives {new}")
    undone = 0
    if num_recorded > first + len(rows):  # the end of the journal was lost, and not that of the trace
        undone = directory.truncate_trace(first + len(rows))
    for row in rows[num_recorded - first :]:
        directory.append_trace(row)
    directory.flush()
    return again, undone


def _trace_end(path: Path, first: int) -> tuple[int, list[TraceRow]]:
    """How many lines a trace has, by its last one, and the rows from arrival `first` on.

    Those long before aren't read: in a run of hours that would take seconds, and memory that the server keeps.
    """

    def is_early_enough(line: bytes) -> bool:
        with contextlib.suppress(RunError):  # damaged: the one before it tells its number
            return decode_line(path, 0, line, TraceRow).arrival <= first
        return False

    rows = list[TraceRow]()
    for line in lines_back_to(path, is_early_enough).split(b"\n")[:-1]:
        rows.append(decode_line(path, rows[-1].arrival + 2 if rows else 1, line, TraceRow))
    return rows[-1].arrival + 1 if rows else 0, [row for row in rows if row.arrival >= first]
