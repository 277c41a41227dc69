"""What is counted in a record, on records made by hand."""

from __future__ import annotations

import msgspec
import pytest

from asgd.bench.chaos.counting import Span, differing, doubled, others_rates
from asgd.core.actions import Record
from asgd.core.events import Arrival
from asgd.core.trace import TraceRow
from asgd.run.journal import Header, Journal


def row(arrival, job, worker=0, action="apply", time_s=None):
    return TraceRow(arrival=arrival, time_s=arrival / 10 if time_s is None else time_s, worker=worker, job=job,
                    read_version=0, version=0, delay=0, concurrency=1, action=action, steps=int(action == "apply"),
                    step_size=0.1 if action == "apply" else None, reason=None, loss=1.0, samples=1, compute_s=0.0,
                    wait_s=0.0)  # fmt: skip


def record(path, in_trace, in_journal, undone=()):
    (path / "trace.jsonl").write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in in_trace))
    if undone:
        (path / "trace.undone.jsonl").write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in undone))
    journal = Journal(path / "journal.bin", Header(0, "asynchronous", "task"), [])
    for each in in_journal:
        arrival = Arrival(each.worker, each.job, each.version, 1.0, 1, 0.0, each.time_s)
        journal.append(arrival, [Record(each)])
    journal.close()


def test_a_clean_record_has_nothing_doubled(tmp_path):
    rows = [row(0, 7), row(1, 8), row(2, 9, action="lost")]
    record(tmp_path, rows, rows[:2])
    assert doubled(tmp_path) == 0 and differing(tmp_path) == 0


@pytest.mark.parametrize("again", ["apply", "discard"])
def test_a_job_that_ends_twice_is_doubled(tmp_path, again):
    rows = [row(0, 7), row(1, 8), row(2, 7, action=again)]
    record(tmp_path, rows, rows)
    assert doubled(tmp_path) == 1


def test_a_job_that_was_used_again_after_a_restart_had_undone_it_is_doubled(tmp_path):
    rows = [row(0, 7), row(1, 8)]
    record(tmp_path, rows, rows, undone=[row(1, 8)])
    assert doubled(tmp_path) == 1


def test_a_job_that_the_journal_alone_has_twice_is_doubled(tmp_path):
    rows = [row(0, 7), row(1, 8)]
    record(tmp_path, rows, [*rows, row(2, 8)])
    assert doubled(tmp_path) == 1


def test_trace_and_journal_must_name_the_same_jobs(tmp_path):
    record(tmp_path, [row(0, 7), row(1, 8)], [row(0, 7), row(1, 9)])
    assert differing(tmp_path) == 2


def arrivals(slow_from_s=None):
    """Three workers, one arrival of each in 0.1 s; worker 0 is away from 2.0 s to 2.5 s."""
    rows = []
    for step in range(40):
        for worker in range(3):
            time_s = 0.1 * step + 0.03 * worker
            late = slow_from_s is not None and slow_from_s <= time_s < slow_from_s + 0.5 and step % 2
            if not (late or (worker == 0 and 2.0 < time_s < 2.5)):
                rows.append(row(len(rows), len(rows), worker, time_s=time_s))
    begin = 1 + max(number for number, each in enumerate(rows) if each.worker == 0 and each.time_s <= 2.0)
    end = 1 + min(number for number, each in enumerate(rows) if each.worker == 0 and each.time_s >= 2.5)
    return rows, Span(begin, end, killed=0)


def test_a_death_that_costs_the_others_nothing_has_ratio_1():
    rows, span = arrivals()
    deaths = others_rates(rows, [span])
    assert deaths is not None and deaths.num == 1 and deaths.ratio == pytest.approx(1.0, abs=0.1)


def test_a_death_that_slows_the_others_down_shows():
    rows, span = arrivals(slow_from_s=2.01)
    deaths = others_rates(rows, [span])
    assert deaths is not None and deaths.ratio < 0.8


def test_a_death_with_another_fault_nearby_is_not_judged():
    rows, span = arrivals()
    assert others_rates(rows, [Span(span.begin - 5, span.begin - 3, killed=None), span]) is None
    assert others_rates(rows, [Span(3, None, killed=None), span]) is None, "it never ended"
    assert others_rates(rows, [Span(1, 2, killed=None), span]) is not None
