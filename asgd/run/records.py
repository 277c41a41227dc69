"""A run's directory: its configuration, its history line by line, its evaluations and its summary (a public format).

What can go wrong and what is left then: lines are kept in memory and written in whole lines by `flush`, so a killed
server loses the lines since the last flush, and a machine without power may tear the last line; `read_*` leave out a
last line without its line end, and say so in `notes`. Every other damage is an error that names the line.
`summary.json` is written last and by an atomic rename: a directory that has it is finished.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from asgd.core.trace import TraceRow
from asgd.errors import RunError
from asgd.run.files import (
    LineAppender,
    RowT,
    decode_line,
    give_lock_back,
    read_bytes,
    reason_of,
    remove,
    take_lock,
    whole_lines,
    write_atomically,
)
from asgd.run.formats import MetricsRow, Summary
from asgd.run.journal import Header, Journal

JOBS_PER_INCARNATION = 2**32  # the jobs of incarnation k are numbered from k * 2**32
CONFIG, TRACE, METRICS, SUMMARY = "config.toml", "trace.jsonl", "metrics.jsonl", "summary.json"
UNDONE_TRACE, UNDONE_METRICS = "trace.undone.jsonl", "metrics.undone.jsonl"
JOURNAL, UNDONE_JOURNAL = "journal.bin", "journal.undone.bin"
INCARNATION, LOCK, CLAIM, CHECKPOINTS = "incarnation.json", "run.lock", "command.lock", "checkpoints"
TENSORBOARD = "tensorboard"
# What overwriting removes, and nothing else: a file that somebody else put there is not ours to delete.
_OURS = (SUMMARY, CONFIG, TRACE, METRICS, UNDONE_TRACE, UNDONE_METRICS, INCARNATION, CHECKPOINTS, "snapshots", "logs",
         "report.html", "report", TENSORBOARD, JOURNAL, UNDONE_JOURNAL)  # fmt: skip


class Follower(Protocol):
    """Takes the lines of a record as they are added to it."""

    def arrived(self, row: TraceRow) -> None: ...

    def evaluated(self, row: MetricsRow) -> None: ...

    def close(self) -> None: ...


@contextlib.contextmanager
def claim(path: Path) -> Iterator[None]:
    """Keep a run's directory for one command, from before it is made until its processes are gone.

    The server's own lock begins seconds later: until then a second command could take the directory over.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"The run directory {path} cannot be made: {reason_of(error)}.") from error
    descriptor = take_lock(path / CLAIM, f"the run directory {path}", [])
    try:
        yield
    finally:
        if not has_begun(path):
            (path / CLAIM).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # what failed to start is in it
                path.rmdir()
        give_lock_back(descriptor)


def has_begun(path: Path) -> bool:
    """Whether a run's directory holds any history, and not only what a run that failed to start leaves."""
    trace = path / TRACE
    return (path / SUMMARY).exists() or (path / CHECKPOINTS).exists() or (trace.exists() and trace.stat().st_size > 0)


def discard_unbegun(path: Path) -> None:
    """Remove the directory of a run that failed before its first arrival; one with a history stays as it is."""
    if has_begun(path):
        return
    for name in (*_OURS, LOCK):
        remove(path / name)
    with contextlib.suppress(OSError):  # something else is in it
        path.rmdir()


class RunDirectory:
    """One run's directory, read by anybody and written by one server at a time.

    Arguments:
        path: the directory; use `create` or `open` rather than the constructor.

    Errors: `RunError`, one sentence that names the file and what to do.

    Example:
        >>> import tempfile
        >>> with RunDirectory.create(Path(tempfile.mkdtemp()) / "first", "seed = 0\\n") as run:
        ...     run.append_metrics(MetricsRow(time_s=0.0, version=0, samples_seen=0, test_loss=2.3))
        ...     run.flush()
        ...     [row.test_loss for row in run.read_metrics()]
        [2.3]
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.incarnation = 0
        self.notes: list[str] = []  # sentences about what was found when reading, e.g. a torn last line
        self._lock: int | None = None
        self._appenders: dict[str, LineAppender] = {}
        self._follower: Follower | None = None
        self._journal: Journal | None = None

    @classmethod
    def create(cls, path: Path | str, config_toml: str, overwrite: bool = False) -> RunDirectory:
        """Make a new run's directory, locked for writing; a run that is there already is refused or replaced."""
        run = cls(Path(path))
        if run.path.exists() and not run.path.is_dir():
            raise RunError(f"{run.path} is a file, and a run needs a directory: give another path (--run-dir).")
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            run._refuse_what_is_there(overwrite)
            run._acquire()
            try:
                run._refuse_what_is_there(overwrite)  # again: another server may have come first
                for name in _OURS:
                    remove(run.path / name)
                write_atomically(run.path / CONFIG, config_toml.encode())
            except BaseException:
                run.close()
                raise
        except OSError as error:
            raise RunError(f"The run directory {run.path} cannot be made: {reason_of(error)}.") from error
        return run

    @classmethod
    def open(cls, path: Path | str, mode: Literal["read", "write"] = "read") -> RunDirectory:
        """Open an existing run's directory; "write" takes the lock, to go on with the run."""
        run = cls(Path(path))
        try:
            is_run = (run.path / CONFIG).is_file()
        except OSError as error:  # a name that is too long, for instance
            raise RunError(f"{run.path} cannot be opened: {reason_of(error)}.") from error
        if not is_run:
            what = f"has no {CONFIG}" if run.path.is_dir() else "does not exist"
            raise RunError(f"{run.path} is not the directory of a run: it {what}.")
        if mode == "write":
            run._acquire()
        return run

    def _refuse_what_is_there(self, overwrite: bool) -> None:
        entries = {entry.name for entry in self.path.iterdir()} - {LOCK, CLAIM}
        if not entries or (entries <= set(_OURS) and not has_begun(self.path)):
            return
        if entries - set(_OURS) and not entries & {CONFIG, TRACE, SUMMARY}:
            raise RunError(
                f"{self.path} has files in it but no {CONFIG}: it is not the directory of a run and is left alone; "
                "give another path (--run-dir) or empty it."
            )
        if not overwrite:
            raise RunError(
                f"The run directory {self.path} already holds a run: give another path (--run-dir) or continue that "
                "run (--resume); it is replaced only when told to (--overwrite)."
            )

    def _acquire(self) -> None:
        self._lock = take_lock(self.path / LOCK, f"the run directory {self.path}", self.notes)

    def close(self) -> None:
        """Write what is still in memory, close the files and give the lock back; may be called twice."""
        try:
            if self._lock is not None:
                self.flush()
        finally:
            try:
                if self._follower is not None:
                    self._follower.close()
            finally:
                self._follower = None
                for appender in self._appenders.values():
                    appender.close()
                self._appenders.clear()
                if self._journal is not None:
                    self._journal.close()
                self._journal = None
                if self._lock is not None:
                    give_lock_back(self._lock)
                self._lock = None

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # Writing.

    def follow(self, follower: Follower) -> None:
        """Let somebody have every line that is added from now on; closed with the directory."""
        self._follower = follower

    def append_trace(self, row: TraceRow) -> None:
        """Add a line to trace.jsonl (in memory until `flush`); a loss that is not finite is written as null."""
        times = (row.time_s, row.compute_s, row.wait_s, row.assigned_s or 0.0, row.queue_s, row.started_s or 0.0)
        if not all(map(math.isfinite, times)):
            raise RunError(f"Arrival {row.arrival} has a time that is not a finite number: {row}.")
        self._append(TRACE, row)
        if self._follower is not None:
            self._follower.arrived(row)

    def append_metrics(self, row: MetricsRow) -> None:
        """Add a line to metrics.jsonl (in memory until `flush`); numbers that are not finite are written as null."""
        self._append(METRICS, row)
        if self._follower is not None:
            self._follower.evaluated(row)

    def _append(self, name: str, row: object) -> None:
        appender = self._appenders.get(name)
        if appender is None:
            self._check_writable()
            appender = self._appenders[name] = LineAppender(self.path / name, self.notes)
        appender.append(msgspec.json.encode(row))

    def flush(self, sync: bool = False) -> None:
        """Write the lines in memory to the files; `sync` also to the disk (before a checkpoint that counts on them)."""
        for appender in self._appenders.values():
            appender.flush(sync)
        if sync and self._journal is not None:
            self._journal.sync()

    def open_journal(self, header: Header, sync_s: float = 0.2) -> Journal:
        """Open journal.bin for appending, closed with the directory; see `Journal`."""
        self._check_writable()
        self._journal = Journal(self.path / JOURNAL, header, self.notes, sync_s)
        return self._journal

    @property
    def journal(self) -> Journal:
        """What `open_journal` gave."""
        assert self._journal is not None, "the journal is opened first"
        return self._journal

    def put_journal_aside(self) -> None:
        """Rename a journal that nothing can go on with, to journal.undone.bin."""
        self._check_writable()
        if self._journal is not None:
            self._journal.close()
        try:
            (self.path / JOURNAL).replace(self.path / UNDONE_JOURNAL)
        except OSError as error:
            raise RunError(f"{self.path / JOURNAL} cannot be renamed: {reason_of(error)}.") from error

    def write_summary(self, summary: Summary) -> None:
        """Write summary.json by an atomic rename, after everything else: from then on the run counts as ended."""
        self._check_writable()
        self.flush(sync=True)
        self._replace(SUMMARY, msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n")

    def write_config(self, config_toml: str) -> None:
        """Replace config.toml, for a run that goes on with a larger budget."""
        self._check_writable()
        self._replace(CONFIG, config_toml.encode())

    def remove_summary(self) -> None:
        """Take summary.json away, when a run that had ended goes on."""
        self._check_writable()
        try:
            (self.path / SUMMARY).unlink(missing_ok=True)
        except OSError as error:
            raise RunError(f"{self.path / SUMMARY} cannot be removed: {reason_of(error)}.") from error

    def next_incarnation(self) -> int:
        """Number this start of the server: 0 first, then 1 and so on; stored before it is returned.

        Jobs of incarnation k are numbered from k * JOBS_PER_INCARNATION, so no job number comes twice in a run.
        """
        self._check_writable()
        path = self.path / INCARNATION
        incarnation = 0
        if path.exists():
            try:
                incarnation = msgspec.json.decode(path.read_bytes(), type=dict[str, int])["next"]
            except (msgspec.DecodeError, KeyError, OSError) as error:
                raise RunError(f'{path} is damaged: it must hold {{"next": N}} ({error}).') from error
        self._replace(INCARNATION, msgspec.json.encode({"next": incarnation + 1}))
        self.incarnation = incarnation
        return incarnation

    def truncate_trace(self, num_arrivals: int) -> int:
        """Move the lines after the first `num_arrivals` from trace.jsonl to trace.undone.jsonl; gives their number.

        After a crash the parameters are those of a checkpoint; this makes trace.jsonl their history again. A crash in
        the middle of this can leave moved lines twice in the undone file, never too many or too few in trace.jsonl.
        """
        lines = self._take_lines(TRACE)
        if len(lines) < num_arrivals:
            raise RunError(
                f"{self.path / TRACE} has {len(lines)} lines and the checkpoint came after {num_arrivals} arrivals: "
                "lines are missing, so the history of its parameters is not known."
            )
        if num_arrivals:
            last = decode_line(self.path / TRACE, num_arrivals, lines[num_arrivals - 1], TraceRow)
            if last.arrival != num_arrivals - 1:
                raise RunError(
                    f"Line {num_arrivals} of {self.path / TRACE} has arrival {last.arrival}, and {num_arrivals - 1} "
                    "belongs there: lines are missing or doubled."
                )
        self._move_to_undone(TRACE, UNDONE_TRACE, lines[:num_arrivals], lines[num_arrivals:])
        return len(lines) - num_arrivals

    def truncate_metrics(self, version: int) -> int:
        """Move the evaluations of versions after `version` to metrics.undone.jsonl; gives their number."""
        lines = self._take_lines(METRICS)
        rows = [decode_line(self.path / METRICS, i, line, MetricsRow) for i, line in enumerate(lines, start=1)]
        kept = [line for line, row in zip(lines, rows, strict=True) if row.version <= version]
        undone = [line for line, row in zip(lines, rows, strict=True) if row.version > version]
        self._move_to_undone(METRICS, UNDONE_METRICS, kept, undone)
        return len(undone)

    def _take_lines(self, name: str) -> list[bytes]:
        self._check_writable()
        if name in self._appenders:
            self._appenders.pop(name).close()
        content, _ = whole_lines(self.path / name)
        return content.split(b"\n")[:-1]

    def _move_to_undone(self, name: str, undone_name: str, kept: list[bytes], undone: list[bytes]) -> None:
        if undone:
            appender = LineAppender(self.path / undone_name, self.notes)
            for line in undone:
                appender.append(line)
            appender.close(sync=True)
        if (self.path / name).exists():
            self._replace(name, b"".join(line + b"\n" for line in kept))

    def _replace(self, name: str, content: bytes) -> None:
        try:
            write_atomically(self.path / name, content)
        except OSError as error:
            raise RunError(f"{self.path / name} cannot be written: {reason_of(error)}.") from error

    def _check_writable(self) -> None:
        if self._lock is None:
            raise RunError(f"The run directory {self.path} is closed or open for reading: open it with mode='write'.")

    # Reading.

    def read_config(self) -> str:
        """The text of config.toml."""
        return read_bytes(self.path / CONFIG).decode(errors="replace")

    def read_trace(self) -> list[TraceRow]:
        """All rows of trace.jsonl, strictly typed (100,000 lines take half a second); none when there is no file."""
        return self._read_rows(TRACE, TraceRow)

    def read_metrics(self) -> list[MetricsRow]:
        """All rows of metrics.jsonl, strictly typed; none when there is no file."""
        return self._read_rows(METRICS, MetricsRow)

    def read_summary(self) -> Summary:
        """The content of summary.json; an error when the run has not ended."""
        path = self.path / SUMMARY
        if not path.exists():
            raise RunError(f"{self.path} has no {SUMMARY}: the run goes on, or was killed before its end (--resume).")
        try:
            return msgspec.json.decode(read_bytes(path), type=Summary)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RunError(f"{path} is damaged: {error}.") from error

    def is_finished(self) -> bool:
        """Whether the run has ended and written its summary."""
        return (self.path / SUMMARY).is_file()

    def _read_rows(self, name: str, kind: type[RowT]) -> list[RowT]:
        path = self.path / name
        content, torn = whole_lines(path)
        if torn:
            self.notes.append(f"The last line of {path} is torn (a crash while it was written) and is left out.")
        if b"\n\n" not in content and not content.startswith(b"\n"):  # decode_lines would pass over empty lines
            try:
                return msgspec.json.Decoder(kind).decode_lines(content)
            except (msgspec.DecodeError, UnicodeDecodeError):
                pass  # read again line by line to say which one it was
        return [decode_line(path, i, line, kind) for i, line in enumerate(content.split(b"\n")[:-1], start=1)]
