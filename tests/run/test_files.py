"""Files that survive crashes: the old content or the new, whole lines, one writer."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from asgd.errors import RunError
from asgd.run.files import (
    LineAppender,
    give_lock_back,
    lines_back_to,
    take_lock,
    telling_the_way_on,
    whole_lines,
    write_atomically,
)


def test_replacing_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"

    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"newer")
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("torn", [b"", b"x", b"x" * 200_000])  # longer than one read from the end
def test_appending_goes_on_after_the_last_whole_line(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"one\n" + torn)
    notes: list[str] = []
    appender = LineAppender(path, notes)
    appender.append(b"two")
    appender.close()
    appender.close()
    assert path.read_bytes() == b"one\ntwo\n"
    assert len(notes) == (1 if torn else 0)


def test_whole_lines(tmp_path: Path) -> None:
    assert whole_lines(tmp_path / "missing") == (b"", False)
    (tmp_path / "lines").write_bytes(b"one\ntw")
    assert whole_lines(tmp_path / "lines") == (b"one\n", True)


def test_a_directory_that_becomes_read_only_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    appender = LineAppender(tmp_path / "lines", [])
    appender.append(b"one")
    appender.flush()

    def read_only(*arguments: object) -> int:
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", read_only)
        patch.setattr(os, "ftruncate", read_only)
        appender.append(b"two")
        with pytest.raises(RunError, match="lines cannot be written: Read-only file system"):
            appender.flush()
    appender.close()
    assert (tmp_path / "lines").read_bytes() == b"one\ntwo\n"


def test_a_lock_is_held_until_given_back(tmp_path: Path) -> None:
    held = take_lock(tmp_path / "lock", "the thing", [])
    with pytest.raises(RunError, match="is writing the thing: stop it first"):
        take_lock(tmp_path / "lock", "the thing", [])
    give_lock_back(held)
    give_lock_back(take_lock(tmp_path / "lock", "the thing", []))
    with pytest.raises(RunError, match="cannot be opened for writing"):
        take_lock(tmp_path / "nowhere" / "lock", "the thing", [])


@pytest.mark.parametrize("wanted", [0, 3, 199_000, 199_999, 10**9])
def test_the_end_of_a_long_file_is_read_and_not_the_rest(tmp_path: Path, wanted: int) -> None:
    path = tmp_path / "lines"
    assert lines_back_to(path, lambda line: True) == b""
    path.write_bytes(b"".join(b"%d %s\n" % (number, b"x" * 40) for number in range(200_000)) + b"torn")
    content = lines_back_to(path, lambda line: int(line.split()[0]) <= wanted)
    lines = content.split(b"\n")
    numbers = [int(line.split()[0]) for line in lines[:-1]]
    assert lines[-1] == b"" and numbers == list(range(numbers[0], 200_000)) and numbers[0] <= wanted
    assert wanted < 150_000 or len(content) <= 1 << 20 < path.stat().st_size
    path.write_bytes(b"no line end")
    assert lines_back_to(path, lambda line: True) == b""


@pytest.mark.parametrize(("number", "way"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EACCES, False)])
def test_a_full_disk_says_how_the_run_goes_on(number, way):
    with pytest.raises(RunError) as raised, telling_the_way_on():
        try:
            raise OSError(number, "the reason")
        except OSError as error:
            raise RunError("trace.jsonl cannot be written: the reason.") from error
    sentence = "trace.jsonl cannot be written: the reason"
    assert str(raised.value) == sentence + ("; make room, and then --resume goes on" if way else ".")
