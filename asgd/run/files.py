"""Files of a run that survive crashes: atomic replacement, whole lines only, one writer at a time."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from asgd.errors import RunError

_BUFFERED_BYTES = 1 << 20
_lock_descriptors: set[int] = set()

RowT = TypeVar("RowT")


def take_lock(path: Path, what: str, notes: list[str]) -> int:
    """Lock a file for this process until it ends, and give the descriptor; `RunError` when another process has it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise RunError(f"The lock file {path} cannot be opened for writing: {reason_of(error)}.") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
        os.close(descriptor)
        by = f"Another process ({holder})" if holder else "Another process"
        raise RunError(f"{by} is writing {what}: stop it first, or give another path (--run-dir).") from None
    except OSError as error:
        # Some network file systems have no locks; running without one beats not running at all.
        notes.append(f"{path} could not be locked, so nothing keeps a second server out: {reason_of(error)}.")
    with contextlib.suppress(OSError):  # the number is only there for the sentence above
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    _lock_descriptors.add(descriptor)
    return descriptor


def give_lock_back(descriptor: int) -> None:
    """Unlock what `take_lock` locked; nothing in a forked child, which never had the lock."""
    if descriptor in _lock_descriptors:
        _lock_descriptors.discard(descriptor)
        os.close(descriptor)


def _close_locks_in_child() -> None:
    """A forked child must not keep the lock of a parent that has died (a flock lives as long as any copy of it)."""
    for descriptor in _lock_descriptors:
        os.close(descriptor)
    _lock_descriptors.clear()


os.register_at_fork(after_in_child=_close_locks_in_child)


class LineAppender:
    """Appends whole lines to a file: in memory until `flush`, written with one call, undone when the disk is full."""

    def __init__(self, path: Path, notes: list[str]) -> None:
        self.path = path
        self._lines: list[bytes] = []
        self._bytes = 0
        try:
            content_bytes = path.stat().st_size if path.exists() else 0
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self._size = _end_of_last_line(self._descriptor, content_bytes)
            if self._size < content_bytes:
                os.ftruncate(self._descriptor, self._size)
                notes.append(f"The last line of {path} was torn and has been removed.")
        except OSError as error:
            raise RunError(f"{path} cannot be written: {reason_of(error)}.") from error

    def append(self, line: bytes) -> None:
        self._lines.append(line)
        self._bytes += len(line)
        if self._bytes >= _BUFFERED_BYTES:
            self.flush()

    def flush(self, sync: bool = False) -> None:
        try:
            if self._lines:
                content = b"\n".join(self._lines) + b"\n"
                written = 0
                while written < len(content):
                    written += os.pwrite(self._descriptor, memoryview(content)[written:], self._size + written)
                self._size += len(content)
                self._lines.clear()
                self._bytes = 0
            if sync:
                os.fsync(self._descriptor)
        except OSError as error:
            with contextlib.suppress(OSError):  # the directory may have become read-only; a half line is cut off later
                os.ftruncate(self._descriptor, self._size)  # no half line: they stay in memory and can be tried again
            raise RunError(f"{self.path} cannot be written: {reason_of(error)}.") from error

    def close(self, sync: bool = False) -> None:
        if self._descriptor < 0:
            return
        try:
            self.flush(sync)
        finally:
            os.close(self._descriptor)
            self._descriptor = -1


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file's content so that a reader, or a crash, sees the old one or the new one and nothing between."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_directory(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sync_directory(directory: Path) -> None:
    """Bring a directory's entries to the disk, so that a rename survives a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def reason_of(error: OSError) -> str:
    """What the system says of an error, in words, without its number."""
    return error.strerror or str(error)


@contextlib.contextmanager
def telling_the_way_on() -> Iterator[None]:
    """What ends a run because the disk is full, or a quota, says how the run goes on then."""
    try:
        yield
    except RunError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(f"{str(error).removesuffix('.')}; make room, and then --resume goes on") from cause
        raise


def _end_of_last_line(descriptor: int, size: int) -> int:
    position = size
    while position > 0:
        start = max(0, position - 65536)
        found = os.pread(descriptor, position - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        position = start
    return 0


def read_bytes(path: Path) -> bytes:
    """A file's content, or a `RunError` that names it."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunError(f"{path} cannot be read: {reason_of(error)}.") from error


def whole_lines(path: Path) -> tuple[bytes, bool]:
    """A file's content up to its last line end, and whether something came after it; a missing file is empty."""
    if not path.exists():
        return b"", False
    content = read_bytes(path)
    end = content.rfind(b"\n") + 1
    return content[:end], end < len(content)


def lines_back_to(path: Path, is_early_enough: Callable[[bytes], bool]) -> bytes:
    """The last whole lines of a file, back to one that is early enough, or all; a missing file has none.

    Read from the end: it costs what comes after that line, however long the file has become.
    """
    if not path.exists():
        return b""
    length = _BUFFERED_BYTES
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            while True:
                start = max(0, size - length)
                file.seek(start)
                content = file.read(size - start)
                begin = content.find(b"\n") + 1 if start else 0  # the first may be a part of a line
                content = content[begin : content.rfind(b"\n") + 1]
                if start == 0 or (content and is_early_enough(content[: content.find(b"\n")])):
                    return content
                length *= 4
    except OSError as error:
        raise RunError(f"{path} cannot be read: {reason_of(error)}.") from error


def decode_line(path: Path, number: int, line: bytes, kind: type[RowT]) -> RowT:
    """One typed row from a line of JSON, or a `RunError` that names the line."""
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RunError(f"Line {number} of {path} is damaged: {error}.") from error


def remove(path: Path) -> None:
    """Delete a file, a link or a directory with all that is in it; nothing when it is not there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
