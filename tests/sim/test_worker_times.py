"""Times of workers: out of traces, and out of files that are refused for every fault."""

from __future__ import annotations

import pytest

from asgd.core.state import CANCELLED
from asgd.core.trace import TraceRow
from asgd.errors import ConfigError, RunError
from asgd.sim.worker_times import Span, lengths, read_file, read_spans, spans_of, with_last


def row(arrival, time_s, worker, read_version, version, **other):
    given = {"action": "apply", "steps": 1, "reason": None} | other
    return TraceRow(
        arrival=arrival, time_s=time_s, worker=worker, job=arrival, read_version=read_version, version=version,
        delay=version - read_version, concurrency=2, step_size=0.1, loss=None, samples=1, compute_s=0.1, wait_s=0.0,
        **given,
    )  # fmt: skip


def test_a_job_lasts_from_when_it_was_given_or_its_worker_was_free():
    queued = {"assigned_s": 0.25}
    rows = [row(0, 1.0, 0, 0, 0), row(1, 1.5, 1, 0, 1), row(2, 3.0, 0, 0, 2, **queued), row(3, 4.0, 1, 3, 3)]
    spans = spans_of(rows)
    assert spans[0] == [Span(0.0, 1.0), Span(1.0, 3.0)]  # given at 0.25, and lay in the queue until 1.0
    assert spans[1] == [Span(0.0, 1.5), Span(3.0, 4.0)]  # an older trace: version 3 came to be at 3.0


def test_lost_jobs_have_no_length_and_the_next_begins_when_given():
    rows = [
        row(0, 1.0, 0, 0, 0), row(1, 9.0, 0, 1, 1, action="lost", steps=0, reason="gone"),
        row(2, 12.0, 0, 1, 1, assigned_s=11.5),
    ]  # fmt: skip
    assert spans_of(rows)[0] == [Span(0.0, 1.0), Span(11.5, 12.0)]


def test_cancelled_jobs_take_what_later_ones_took_that_were_longer():
    rows = [
        row(0, 2.0, 0, 0, 0), row(1, 3.0, 0, 1, 1, action="discard", steps=0, reason=CANCELLED),
        row(2, 3.5, 0, 1, 1), row(3, 8.0, 0, 2, 2),
    ]  # fmt: skip
    spans = spans_of(rows)[0]
    assert [span.cancelled for span in spans] == [False, True, False, False]
    assert lengths(spans) == [2.0, 4.5, 0.5, 4.5]
    assert lengths([Span(0.0, 1.0), Span(1.0, 9.0, cancelled=True)]) == [1.0, 9.0]  # none was longer: 8 + their mean
    assert lengths([Span(0.0, 1.0, cancelled=True)]) == []


def test_the_job_in_hand_at_the_end_counts_as_cancelled_then():
    assert with_last({3: [Span(0.0, 1.0)]}, 1.5) == {3: [Span(0.0, 1.0), Span(1.0, 1.5, cancelled=True)]}


@pytest.mark.parametrize(
    ("content", "values"),
    [
        ("[0.5, 2, 1e-3]", [0.5, 2.0, 0.001]),
        (" [1]\n", [1.0]),
        ("0.5\n\n 2 \n", [0.5, 2.0]),
        ("1.5", [1.5]),
    ],
)
def test_files_of_both_kinds(tmp_path, content, values):
    (tmp_path / "times").write_text(content)
    assert read_file(tmp_path / "times") == values


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "there is no number"),
        (b"[]", "there is no number"),
        (b"0.5\n0\n", "line 2: '0.0'"),
        (b"0.5\n\n-1\n", "line 3: '-1.0'"),
        (b"nan\n", "line 1: 'nan'"),
        (b"inf", "line 1: 'inf'"),
        (b"0.5 0.6\n", "line 1: '0.5 0.6'"),
        (b"0.5,0.6\n", "line 1: '0.5,0.6'"),
        (b"[0.5, NaN]", "number 2: 'nan'"),
        (b"[0.5, 0]", "number 2: '0'"),
        (b"[true]", "number 1: 'True'"),
        (b'["0.5"]', "number 1: '0.5'"),
        (b"[[0.5]]", r"number 1: '\[0.5\]'"),
        (b"[1" + b"0" * 400 + b"]", "number 1: '10000"),
        (b"[0.5", "is no JSON"),
        (b'{"a": 1}', "holds a JSON dict"),
        (b'"0.5"', "holds a JSON str"),
        (b"[" * 100_000, "is no JSON"),
        (b"\xff\xfe", "is no text"),
    ],
)
def test_faults_of_a_file_are_named(tmp_path, content, sentence):
    (tmp_path / "times").write_bytes(content)
    with pytest.raises(ConfigError, match=f"--times .*times.*{sentence}"):
        read_file(tmp_path / "times")


def test_no_file_and_a_directory_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="there is no such file"):
        read_file(tmp_path / "none")
    with pytest.raises(ConfigError, match="it is no file"):
        read_file(tmp_path)


def test_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="not the directory of a run"):
        read_spans(tmp_path)
