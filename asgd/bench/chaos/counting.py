"""What the record of a run says of its faults: jobs that were doubled or left without an end, and what the death of a
worker cost the others.
"""

from __future__ import annotations

import random
import statistics
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from asgd.core.events import Arrival
from asgd.core.trace import TraceRow
from asgd.run.journal import Entry, appended
from asgd.run.ledger import USED
from asgd.run.records import JOURNAL, TRACE, UNDONE_JOURNAL, UNDONE_TRACE

BEFORE_S = 0.6  # and at least twice the time that the worker was away
_FEWEST_WINDOWS = 5  # before a death, to compare with
_RESAMPLES = 2000
_TAIL = 0.025


def rows_of(file: Path) -> list[TraceRow]:
    """The lines of a trace, [] if there is no such file."""
    decode = msgspec.json.Decoder(TraceRow).decode
    return [decode(line) for line in file.read_bytes().splitlines()] if file.exists() else []


def all_rows(path: Path) -> list[TraceRow]:
    """Every line of a run's trace that was ever written, those that a restart has undone included."""
    return rows_of(path / TRACE) + rows_of(path / UNDONE_TRACE)


def doubled(path: Path) -> int:
    """How often a job ended that had an end before, counted in the trace and in the journal; the larger number.

    What a restart has undone counts too: its jobs must not be used again; those that were lost may be lost again.
    """
    rows = rows_of(path / TRACE)
    answered = [row.job for row in rows + rows_of(path / UNDONE_TRACE) if row.action != "lost"]
    in_trace = [row.job for row in rows]
    in_journal = _used(appended(path / JOURNAL)[0]) + _used(appended(path / UNDONE_JOURNAL, 0)[0])
    return max(_repeats(answered), _repeats(in_trace), _repeats(in_journal))


def differing(path: Path) -> int:
    """Jobs that were used according to the trace and not to the journal, or the other way round."""
    in_trace = {row.job for row in rows_of(path / TRACE) if row.action in USED}
    return len(in_trace ^ set(_used(appended(path / JOURNAL)[0])))


def _used(entries: Iterable[Entry]) -> list[int]:
    return [
        entry.event.job
        for entry in entries
        if isinstance(entry.event, Arrival) and entry.outcome is not None and entry.outcome.action in USED
    ]


def _repeats(jobs: Sequence[int]) -> int:
    return sum(number - 1 for number in Counter(jobs).values())


class Deaths(NamedTuple):
    """What the deaths of workers cost the others: their arrivals while one was away over those in as long a time before
    it died, the median over `num` deaths with nothing else going on, and its 95% interval (bootstrap over the deaths).
    """

    num: int
    ratio: float
    low: float
    high: float


class Span(NamedTuple):
    """A fault in the lines of the trace: the line that came next when it struck, and the one that came next when it was
    over (None: never); `killed`: the worker that it killed, None for other faults.
    """

    begin: int
    end: int | None
    killed: int | None


def others_rates(rows: Sequence[TraceRow], spans: Sequence[Span], seed: int = 0) -> Deaths | None:
    """The others' arrivals around each death of a worker; None where no death can be judged.

    A fault strikes just after an arrival, so what came within L seconds of the last arrival before a death is compared
    with the mean of what came within L seconds of each arrival in the BEFORE_S seconds before; L is the time that the
    worker was away. A death counts if no other fault went on within that time or those seconds.

    Args: rows: the whole trace; spans: of all faults, in their order; seed: of the bootstrap.
    """
    times_s = [row.time_s for row in rows]
    ratios = list[float]()
    for place, (begin, end, killed) in enumerate(spans):
        if killed is None or end is None or not 0 < begin < end <= len(rows):
            continue
        died_s, back_s = times_s[begin - 1], times_s[end - 1]
        away_s = back_s - died_s
        first = bisect_left(times_s, died_s - max(BEFORE_S, 2 * away_s))
        others = [*spans[:place], *spans[place + 1 :]]
        if any(span.begin <= end and (span.end is None or span.end >= first) for span in others):
            continue
        theirs_s = [row.time_s for row in rows[first:end] if row.worker != killed and row.action != "lost"]
        before = [_within(theirs_s, start_s, away_s) for start_s in times_s[first:begin] if start_s + away_s <= died_s]
        if len(before) >= _FEWEST_WINDOWS and any(before):
            ratios.append(_within(theirs_s, died_s, away_s) / statistics.mean(before))
    if not ratios:
        return None
    chance = random.Random(seed)
    medians = sorted(statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(_RESAMPLES))
    low, high = medians[int(_TAIL * _RESAMPLES)], medians[int((1 - _TAIL) * _RESAMPLES)]
    return Deaths(len(ratios), statistics.median(ratios), low, high)


def _within(times_s: Sequence[float], start_s: float, length_s: float) -> int:
    return sum(1 for time_s in times_s if start_s < time_s <= start_s + length_s)
