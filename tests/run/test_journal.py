"""The journal's file: what is written is read again, and every damage is either cut off or named."""

from __future__ import annotations

import errno
import math
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgd.core.actions import Assign, Finish, Record, Refuse
from asgd.core.events import Arrival, Begin, Join, Leave, Resume, Stop, Tick
from asgd.core.trace import TraceRow
from asgd.errors import RunError
from asgd.run import journal as module
from asgd.run.journal import Header, Journal, Opened, Outcome, check, entries, has_effect, header_of

HEADER = Header(seed=1, method="asynchronous", task="abc")
OPENED = Opened(0, 0, False, 0, 0, 4, (100, 0, 0, 0.0))
EVENTS = [
    Join(0, 0.25),
    Begin(0.5),
    Arrival(3, 2**33, 17, 0.1 + 0.2, 64, 0.01, 1.0, 0.5, True, None, 0.0, None),
    Arrival(0, 1, 0, math.inf, 64, 0.01, 1.5, 0.0, False, 0.75, 0.25, 1.25),
    Leave(3, "killed by signal 9", 2.0),
    Resume(2.5),
    Tick(3.0),
    Stop("interrupted by SIGINT", 4.0, True),
]


def row(action="apply", step_size=0.1):
    steps = 0 if step_size is None else 1
    return Record(TraceRow(0, 1.0, 3, 7, 0, 0, 0, 1, action, steps, step_size, None, 0.5, 64, 0.01, 0.0))


def actions_of(event):
    return [row()] if isinstance(event, Arrival) else [Finish("over")]


@pytest.fixture
def written(tmp_path):
    """A journal with every kind of event in it, closed."""
    path = tmp_path / "journal.bin"
    journal = Journal(path, HEADER, [])
    journal.opened(OPENED)
    for event in EVENTS:
        journal.append(event, actions_of(event))
    journal.close()
    return path


def test_what_is_written_is_read_again(written):
    read = list(entries(written))
    assert [entry.event for entry in read] == [OPENED, *EVENTS]
    assert [type(entry.event) for entry in read] == [type(event) for event in [OPENED, *EVENTS]]
    assert [entry.outcome for entry in read if entry.outcome] == [Outcome("apply", 0.1)] * 2
    assert header_of(written) == HEADER
    assert [entry.event for entry in entries(written, read[4].offset)] == EVENTS[3:]


def test_an_update_takes_tens_of_bytes(written):
    read = list(entries(written))
    assert read[4].offset - read[3].offset < 100


def test_it_goes_on_where_it_ended(written):
    notes = []
    journal = Journal(written, HEADER, notes)
    journal.append(Join(9, 5.0), [])
    journal.close()
    assert [entry.event for entry in entries(written)] == [OPENED, *EVENTS, Join(9, 5.0)] and notes == []


@pytest.mark.parametrize(
    ("event", "actions", "finished", "written"),
    [
        (Arrival(0, 1, 0, 1.0, 1, 0.0, 0.0), [Refuse(0, 1, "not outstanding")], False, False),
        (Arrival(0, 1, 0, 1.0, 1, 0.0, 0.0), [Refuse(0, 1, "again"), Finish("over")], False, True),
        (Arrival(0, 1, 0, 1.0, 1, 0.0, 0.0), [], True, False),
        (Arrival(0, 1, 0, 1.0, 1, 0.0, 9.0), [Finish("budget used up")], False, True),
        (Arrival(0, 1, 0, 1.0, 1, 0.0, 0.0), [row(), Assign(0, 2, 1)], False, True),
        (Tick(1.0), [], False, False),
        (Tick(1.0), [Finish("budget used up")], False, True),
        (Join(0, 0.0), [], False, True),
        (Leave(0, "died", 0.0), [], False, True),
        (Leave(0, "died", 0.0), [], True, False),
    ],
)
def test_only_what_has_an_effect_is_in_it(event, actions, finished, written):
    assert has_effect(event, actions, finished) == written


def test_every_torn_end_is_cut_off_and_said(written):
    content = written.read_bytes()
    ends = [entry.offset for entry in entries(written)] + [len(content)]
    for length in range(ends[0], len(content)):
        written.write_bytes(content[:length])
        good = max(end for end in ends if end <= length)
        assert check(written) == (good, length - good)
        assert len(list(entries(written))) == ends.index(good)
        notes = []
        Journal(written, HEADER, notes).close()
        assert written.read_bytes() == content[:good] and len(notes) == (length > good)


@given(st.binary(min_size=1, max_size=60))
def test_rubbish_after_the_end_is_cut_off(tmp_path_factory, rubbish):
    path = tmp_path_factory.getbasetemp() / "rubbish.bin"
    path.unlink(missing_ok=True)
    journal = Journal(path, HEADER, [])
    journal.opened(OPENED)
    journal.close()
    whole = path.stat().st_size
    path.write_bytes(path.read_bytes() + rubbish)
    assert check(path) == (whole, len(rubbish))


def test_every_flipped_bit_is_seen(written):
    content = written.read_bytes()
    offsets = [entry.offset for entry in entries(written)]
    for place in range(8, len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        written.write_bytes(damaged)
        if place >= offsets[-1]:
            assert check(written) == (offsets[-1], len(content) - offsets[-1])
            continue
        begin = max((offset for offset in offsets if offset <= place), default=8)
        with pytest.raises(RunError, match=f"record at byte {begin} doesn't match its checksum"):
            check(written)


def test_another_runs_journal_and_other_files_are_refused(written, tmp_path):
    with pytest.raises(RunError, match="the journal of another run"):
        Journal(written, HEADER._replace(seed=2), [])
    (tmp_path / "other.bin").write_bytes(b"something else entirely")
    with pytest.raises(RunError, match="is not a journal of this program"):
        Journal(tmp_path / "other.bin", HEADER, [])


def test_what_is_cut_is_moved(written, tmp_path):
    undone = tmp_path / "undone.bin"
    read = list(entries(written))
    journal = Journal(written, HEADER, [])
    assert journal.cut(read[5].offset, undone) == 4
    journal.append(Join(9, 5.0), [])
    journal.close()
    assert [entry.event for entry in entries(written)] == [OPENED, *EVENTS[:4], Join(9, 5.0)]
    assert undone.stat().st_size > 4 * 12


def test_a_journal_that_grows_is_read_as_it_was_when_that_began(written, monkeypatch):
    journal, read = Journal(written, HEADER, []), module.read_bytes

    def growing(path):
        content = read(path)
        journal.append(Join(9, 5.0), [])
        return content

    monkeypatch.setattr(module, "read_bytes", growing)
    assert [entry.event for entry in entries(written)] == [OPENED, *EVENTS]
    journal.close()


@pytest.mark.parametrize("short", [False, True])
def test_a_full_disk_leaves_whole_records_and_says_so(written, monkeypatch, short):
    before = written.read_bytes()
    journal = Journal(written, HEADER, [])
    real, calls = os.pwrite, []

    def full(descriptor, content, offset):
        calls.append(1)
        if short and len(calls) == 1:
            return real(descriptor, bytes(content)[:5], offset)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(RunError, match=r"journal\.bin cannot be written: No space left on device"):
            journal.append(Join(9, 5.0), [])
    journal.close()
    assert written.read_bytes() == before


def test_it_is_brought_to_the_disk_in_groups(written, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(1))
    journal = Journal(written, HEADER, [], sync_s=0.2)
    for number in range(10):
        journal.append(Join(10 + number, 5.0), [])
        journal.sync_if_due(100.0 + number * 0.05)
        if journal._syncing is not None:
            journal._syncing.result()
    assert len(synced) == 3
    journal.sync()
    assert len(synced) == 4
    journal.close()


def test_a_journal_that_is_removed_is_noticed(tmp_path):
    path = tmp_path / "journal.bin"
    journal = Journal(path, Header(1, "asynchronous", "t"), [])
    path.unlink()
    with pytest.raises(RunError, match="was removed while the run was writing it"):
        journal.sync_if_due(1.0)
    journal.close()
