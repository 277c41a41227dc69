"""A run's journal, journal.bin: every event that had an effect on the core, in order, some 100 bytes for each update.

    file    8 bytes "ASGDJRN1", then records
    record  length of the body (u32), CRC-32 of the body (u32), both little-endian; the body: one byte that says what
            it holds, then MessagePack

An event is written to the kernel, with one call, after the core has decided and before any of its effects leave the
server: so nobody has a job that the journal doesn't know. It is brought to the disk in groups, by time.

What can go wrong and what is left then: a killed server loses nothing that had an effect; a machine without power may
lose the last moments, or tear the last records: a damaged end is recognised by its CRC, cut off and said. Damage before
good records is an error that names the place, because the events after it have lost their meaning.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from asgd.core.actions import Action, Record, Refuse
from asgd.core.events import Arrival, Begin, Event, Join, Leave, Resume, Stop, Tick
from asgd.errors import RunError
from asgd.run.files import read_bytes, reason_of, sync_directory

MAGIC = b"ASGDJRN1"
_FRAME = struct.Struct("<II")
_MAX_BODY_BYTES = 1 << 20
_ACTIONS = ("none", "apply", "accumulate", "discard")  # of an arrival; "none": it came too late and ended the run


class Header(NamedTuple):
    """What the first record says: whose journal this is."""

    seed: int
    method: str
    task: str  # the digest of the work, see `task_digest`
    since: int = 0  # the incarnation of the server that began it: 0, unless an earlier journal had to be put aside


class Opened(NamedTuple):
    """A server has started: from here on jobs are numbered from `first_job` on, and the run has this budget.

    `kept`: the state went on as it was, with the workers and their jobs; otherwise they were gone (the next event is
    then `Resume`, unless it is the run's first start). `rows` and `version`: of the state that it started with.
    """

    incarnation: int
    first_job: int
    kept: bool
    rows: int
    version: int
    num_workers: int
    budget: tuple[int, int, int, float]  # versions, samples, gradients, time_s


NOT_OPENED = Opened(-1, 0, False, 0, 0, 0, (0, 0, 0, 0.0))


class Outcome(NamedTuple):
    """What the core did with an arrival, so that whoever reads it again can compare."""

    action: str
    step_size: float | None


class Entry(NamedTuple):
    """One record: where it begins in the file, the event (or the start of a server), and what became of an arrival."""

    offset: int
    event: Event | Opened
    outcome: Outcome | None = None


_KINDS: tuple[type[Any], ...] = (Header, Opened, Join, Leave, Begin, Arrival, Tick, Stop, Resume)
_TAG_OF = {kind: bytes([number]) for number, kind in enumerate(_KINDS)}
_DECODERS: list[msgspec.msgpack.Decoder[Any]] = [
    msgspec.msgpack.Decoder(tuple[Arrival, int, float | None] if kind is Arrival else kind) for kind in _KINDS
]
_encode = msgspec.msgpack.Encoder().encode


def has_effect(event: Event, actions: Sequence[Action], finished_before: bool) -> bool:
    """Whether an event must be in the journal: refused answers and the passing of time are not, nor is anything that
    comes after the end.
    """
    if finished_before:
        return False
    match event:
        case Arrival():
            return any(not isinstance(action, Refuse) for action in actions)
        case Tick():
            return bool(actions)
    return True


def outcome_of(actions: Sequence[Action]) -> Outcome:
    """What the actions say became of the arrival that caused them: their first line of the trace is its own."""
    for action in actions:
        if isinstance(action, Record):
            return Outcome(action.row.action, action.row.step_size)
    return Outcome("none", None)


def _framed(event: Header | Opened | Event, actions: Sequence[Action] = ()) -> bytes:
    kind = type(event)
    if kind is Arrival:
        action, step_size = outcome_of(actions)
        body = _TAG_OF[kind] + _encode((event, _ACTIONS.index(action), step_size))
    else:
        body = _TAG_OF[kind] + _encode(event)
    return _FRAME.pack(len(body), zlib.crc32(body)) + body


class Journal:
    """The journal of a run, open for appending; a damaged end is cut off, and said in `notes`.

    Arguments: path: the file, made when it is not there; header: whose journal it is; notes: takes sentences about
    what was found; sync_s: seconds between two times that it is brought to the disk.
    Errors: RunError when it can't be written, is another run's, or is damaged before its end.
    """

    def __init__(self, path: Path, header: Header, notes: list[str], sync_s: float = 0.2) -> None:
        self.path, self.since, self.last_opened = path, header.since, NOT_OPENED
        self._sync_s, self._synced_s, self._synced_at = sync_s, 0.0, 0
        self._syncer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._syncing: Future[None] | None = None
        content = _content(path)
        whole, first = _good(path, content, header)
        if torn := len(content) - whole:
            notes.append(f"The last {torn} bytes of {path} are damaged or torn and have been cut off.")
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            os.ftruncate(self._descriptor, whole)
        except OSError as error:
            raise RunError(f"{path} cannot be written: {reason_of(error)}.") from error
        self.position, self.checksum = whole, zlib.crc32(content[:whole])
        if first is not None:
            self.since = first.since
        else:
            self._write(MAGIC + _framed(header))
            sync_directory(path.parent)

    def append(self, event: Event, actions: Sequence[Action], finished_before: bool = False) -> None:
        """Write an event that the core has handled, if it had an effect; when this returns the kernel has it."""
        if has_effect(event, actions, finished_before):
            self._write(_framed(event, actions))

    def opened(self, opened: Opened) -> None:
        """Write that a server has started."""
        self.last_opened = opened
        self._write(_framed(opened))

    def _write(self, record: bytes) -> None:
        try:
            written = os.pwrite(self._descriptor, record, self.position)
            while written < len(record):
                written += os.pwrite(self._descriptor, record[written:], self.position + written)
        except OSError as error:
            with contextlib.suppress(OSError):  # half a record would be cut off at the next start
                os.ftruncate(self._descriptor, self.position)
            raise RunError(f"{self.path} cannot be written: {reason_of(error)}.") from error
        self.position += len(record)
        self.checksum = zlib.crc32(record, self.checksum)

    def sync_if_due(self, now_s: float) -> None:
        """Begin to bring it to the disk, beside the training, if that is due; `now_s`: of any clock that only rises."""
        if now_s - self._synced_s < self._sync_s or self._synced_at == self.position:
            return
        if self._syncing is not None:
            if not self._syncing.done():
                return
            self._collect()
        if os.fstat(self._descriptor).st_nlink == 0:
            raise RunError(f"{self.path} was removed while the run was writing it: nothing of the run can be kept.")
        self._synced_s, self._synced_at = now_s, self.position
        self._syncing = self._syncer.submit(os.fsync, self._descriptor)

    def _collect(self) -> None:
        syncing, self._syncing = self._syncing, None
        try:
            if syncing is not None:
                syncing.result()
        except OSError as error:
            raise RunError(f"{self.path} cannot be written: {reason_of(error)}.") from error

    def sync(self) -> None:
        """Bring it to the disk now: a checkpoint counts on it."""
        self._collect()
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise RunError(f"{self.path} cannot be written: {reason_of(error)}.") from error
        self._synced_at = self.position

    def is_continued(self, position: int, checksum: int) -> bool:
        """Whether it begins with what had this position and this `checksum` when it was written."""
        content = read_bytes(self.path)[: self.position]
        return position <= len(content) and zlib.crc32(content[:position]) == checksum

    def cut(self, position: int, undone: Path) -> int:
        """Move what comes after a position to the end of another file; returns the number of events moved.

        A crash in the middle of this can leave them twice there, never too many or too few here.
        """
        content = read_bytes(self.path)[: self.position]
        if position < len(content):
            cut = _entries(self.path, content, position, len(content))
            num_events = sum(not isinstance(entry.event, Opened) for entry in cut)
            _move_aside(self._descriptor, content, position, undone)
            self.position, self.checksum = position, zlib.crc32(content[:position])
            return num_events
        return 0

    def close(self) -> None:
        """Bring it to the disk and close it; may be called twice."""
        if self._descriptor < 0:
            return
        try:
            self.sync()
        finally:
            self._syncer.shutdown(wait=True)
            os.close(self._descriptor)
            self._descriptor = -1


def check(path: Path, header: Header | None = None) -> tuple[int, int]:
    """Length of the good part of a journal in bytes, and of the damaged end after it; 0, 0 when there is no file.

    Arguments: header: what it must begin with, None for any.
    Errors: RunError when it is no journal or another run's, or is damaged before records that are good.
    """
    content = _content(path)
    whole, _ = _good(path, content, header)
    return whole, len(content) - whole


def _content(path: Path) -> bytes:
    return read_bytes(path) if path.exists() else b""


def _good(path: Path, content: bytes, header: Header | None = None) -> tuple[int, Header | None]:
    """Length of the good part of a journal's content, and its first record; 0, None when there is none; see `check`."""
    if not content.startswith(MAGIC):
        if content and not MAGIC.startswith(content):
            raise RunError(f"{path} is not a journal of this program: it must begin with {MAGIC.decode()}.")
        return 0, None
    end = _end_of_good(content)
    if end < len(content):
        later = _next_good(content, end + 1)
        if later is not None:
            raise RunError(
                f"{path} is damaged: the record at byte {end} doesn't match its checksum, and good ones follow (from "
                f"byte {later} on)."
            )
    if end == len(MAGIC):
        return 0, None
    first = _decoded(path, content, len(MAGIC))
    if not isinstance(first, Header) or (header is not None and first[:3] != header[:3]):
        raise RunError(f"{path} is the journal of another run: it begins with {first}, and not with {header}.")
    return end, first


def _end_of_good(content: bytes) -> int:
    """Where the good records end that follow each other from the start on."""
    end = position = len(MAGIC)
    while (position := _end_of_record(content, end)) > 0:
        end = position
    return end


def cut_damaged(path: Path, position: int, undone: Path) -> int:
    """Cut a journal that is damaged after a position, though good records follow (a disk may have taken a later block
    before an earlier one), there: the rest goes to the end of another file; returns its bytes, 0 if it isn't so.
    """
    content = _content(path)
    end = _end_of_good(content)
    if not content.startswith(MAGIC) or end < position or _next_good(content, end + 1) is None:
        return 0
    try:
        with path.open("r+b") as file:
            _move_aside(file.fileno(), content, position, undone)
    except OSError as error:
        raise RunError(f"{path} cannot be cut: {reason_of(error)}.") from error
    return len(content) - position


def _move_aside(descriptor: int, content: bytes, position: int, undone: Path) -> None:
    """Move a journal's content from a position on to the end of another file, on the disk before it is cut here."""
    try:
        with undone.open("ab") as file:
            file.write(content[position:])
            file.flush()
            os.fsync(file.fileno())
        os.ftruncate(descriptor, position)
        os.fsync(descriptor)
    except OSError as error:
        raise RunError(f"{undone} cannot be written: {reason_of(error)}.") from error


def entries(path: Path, begin: int = 0) -> Iterator[Entry]:
    """What a journal holds from a position on (0: from the start), up to its damaged end, if it has one.

    Errors: RunError, see `check`; also for a position where no record begins.
    """
    content = read_bytes(path)  # once: a run that goes on writes more meanwhile
    whole, _ = _good(path, content)
    yield from _entries(path, content, begin, whole)


def _entries(path: Path, content: bytes, begin: int, whole: int) -> Iterator[Entry]:
    position = begin or _end_of_record(content, len(MAGIC))
    if position > whole:
        raise RunError(f"{path} ends at byte {whole}, before byte {begin}.")
    while position < whole:
        end = _end_of_record(content, position)
        if end < 0:
            raise RunError(f"{path} has no record at byte {position}.")
        yield _entry(position, _decoded(path, content, position))
        position = end


def _entry(offset: int, decoded: Any) -> Entry:
    if isinstance(decoded, tuple) and isinstance(decoded[0], Arrival):
        event, action, step_size = decoded
        return Entry(offset, event, Outcome(_ACTIONS[action], step_size))
    return Entry(offset, decoded)


def appended(path: Path, begin: int = len(MAGIC)) -> tuple[list[Entry], int]:
    """The whole records that a journal has from a position on, and where they end; what was cut from one begins at 0.

    For who follows a journal that grows: what is damaged or only half there is left for the next time.
    """
    try:
        with path.open("rb") as file:
            file.seek(begin)
            content = file.read()
    except FileNotFoundError:
        return [], begin
    found, position = list[Entry](), 0
    while (end := _end_of_record(content, position)) > 0:
        decoded = _decoded(path, content, position)
        if not isinstance(decoded, Header):
            found.append(_entry(begin + position, decoded))
        position = end
    return found, begin + position


def header_of(path: Path) -> Header:
    """The first record; RunError when there is none."""
    _, first = _good(path, _content(path))
    if first is None:
        raise RunError(f"{path} has no journal in it.")
    return first


def _end_of_record(content: bytes, position: int) -> int:
    """Where the record at a position ends, -1 when there is no good one."""
    if position + _FRAME.size > len(content):
        return -1
    length, checksum = _FRAME.unpack_from(content, position)
    end: int = position + _FRAME.size + length
    if not 1 <= length <= _MAX_BODY_BYTES or end > len(content):
        return -1
    return end if zlib.crc32(content[end - length : end]) == checksum else -1


def _next_good(content: bytes, position: int) -> int | None:
    return next((at for at in range(position, len(content)) if _end_of_record(content, at) > 0), None)


def _decoded(path: Path, content: bytes, position: int) -> Any:
    length, _ = _FRAME.unpack_from(content, position)
    body = content[position + _FRAME.size : position + _FRAME.size + length]
    try:
        return _DECODERS[body[0]].decode(memoryview(body)[1:])
    except (msgspec.DecodeError, IndexError) as error:
        raise RunError(f"{path} has a record at byte {position} that this program doesn't know: {error}.") from error
