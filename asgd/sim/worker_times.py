"""How long each worker's jobs take: out of a run's trace, or a file of numbers."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from asgd.core.state import CANCELLED
from asgd.core.trace import TraceRow
from asgd.errors import ConfigError, RunError
from asgd.run.files import reason_of
from asgd.sim.times import read_history

MOST_BYTES = 10_000_000
MOST_SECONDS = 1e9
_ROUNDING_S = 1e-9


class Span(NamedTuple):
    """One job of a worker, in seconds of the run: from when the worker was free for it to its end at the server."""

    start_s: float
    end_s: float
    cancelled: bool = False

    @property
    def seconds(self) -> float:
        return self.end_s - self.start_s


def spans_of(rows: Sequence[TraceRow]) -> dict[int, list[Span]]:
    """The jobs of each worker in their order, lost ones left out.

    A job begins when it was given, or when the worker's job before it ended, if that was later (it lay in the worker's
    queue until then). Everything until its arrival counts: its way there and back, computing, waiting, and what it
    waited for at the server. Where an older trace doesn't say when a job was given, it was when its version came to be.
    A cancelled job ends when it was cancelled. After a lost job the time begins anew at the next.

    Example:
        >>> common = dict(worker=0, delay=0, concurrency=1, action="apply", steps=1, step_size=0.1, reason=None,
        ...               loss=None, samples=1, compute_s=0.5, wait_s=0.0)
        >>> rows = [TraceRow(arrival=i, time_s=0.6 * (i + 1), job=i, read_version=i, version=i, **common)
        ...         for i in range(2)]
        >>> [round(span.seconds, 3) for span in spans_of(rows)[0]]
        [0.6, 0.6]
    """
    spans: dict[int, list[Span]] = defaultdict(list)
    began_s, free_s = {0: 0.0}, defaultdict[int, float](float)
    for row in rows:
        if row.steps:
            began_s[row.version + 1] = row.time_s
        if row.action != "lost":
            given_s = began_s.get(row.read_version, 0.0) if row.assigned_s is None else row.assigned_s
            start_s = min(max(free_s[row.worker], given_s), row.time_s)
            spans[row.worker].append(Span(start_s, row.time_s, row.reason == CANCELLED))
        free_s[row.worker] = row.time_s
    return dict(spans)


def with_last(spans: Mapping[int, Sequence[Span]], end_s: float) -> dict[int, list[Span]]:
    """The jobs of each worker with the one that it had in hand when the run ended: like one that was cancelled then.

    (A worker that had none then was waiting; that it would have begun another is as good a guess.)

    Example:
        >>> with_last({0: [Span(0.0, 2.0)]}, 3.0)[0][-1]
        Span(start_s=2.0, end_s=3.0, cancelled=True)
    """
    return {
        worker: [*of_worker, Span(of_worker[-1].end_s, max(end_s, of_worker[-1].end_s), cancelled=True)]
        for worker, of_worker in spans.items()
    }


def read_spans(path: Path | str) -> dict[int, list[Span]]:
    """Those of the run in this directory, ended or not; RunError for a trace that isn't a true history."""
    rows, _ = read_history(path, "how long its jobs took can't be known")
    return spans_of(rows)


def refuse_unknown(spans: Mapping[int, Sequence[Span]], path: Path) -> None:
    """Refuse a run in which a worker finished nothing; RunError."""
    unknown = [worker for worker, of_worker in sorted(spans.items()) if all(span.cancelled for span in of_worker)]
    if unknown:
        raise RunError(
            f"{path}: {workers_text(unknown)} finished no job (all were cancelled), so how fast they are isn't known; "
            "take a run of a method that doesn't cancel jobs"
        )


def workers_text(numbers: Sequence[int]) -> str:
    """These workers in a sentence.

    Example:
        >>> workers_text([2]), workers_text([2, 3])
        ('worker 2', 'workers 2, 3')
    """
    return f"worker{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def lengths(spans: Sequence[Span]) -> list[float]:
    """How long a worker's jobs take, or would have taken, in order.

    A job that was cancelled after d seconds would have taken longer: as long as the worker's next job (of those after
    it, then of those before it) that was finished and took more than d; d and the mean of the finished ones if there is
    none. Empty if no job was finished: then nothing is known.

    Example:
        >>> lengths([Span(0.0, 2.0), Span(2.0, 3.0, cancelled=True), Span(3.0, 7.0)])
        [2.0, 4.0, 4.0]
    """
    finished = [span.seconds for span in spans if not span.cancelled]
    if not finished:
        return []
    mean, given, place = sum(finished) / len(finished), [], 0
    for span in spans:
        if span.cancelled:
            later = (s for s in (*finished[place:], *finished[:place]) if s > span.seconds)
            given.append(next(later, span.seconds + mean))
        else:
            given.append(span.seconds)
            place += 1
    return given


class WorkerTimes:
    """When jobs are done, by the record of each worker: an `EndOfJob`.

    A worker's jobs take what they took in the record, in order; when those are used up they come again from the first
    one. A job that begins when it began in the record also ends when it ended there, to the last bit: so the
    same method takes the same course. For cancelled jobs, and those in hand at the end, see `lengths` and `with_last`.

    Arguments: spans: the jobs of each worker by number; num_workers: those of 0 to num_workers - 1 are needed.
    Attributes: used: jobs begun so far by each worker.
    Errors: ConfigError when a worker has none.

    Example:
        >>> times = WorkerTimes({0: [Span(0.0, 1.0), Span(1.0, 3.0)]}, 1)
        >>> times.end_of_job(0, 0, 0.0), times.end_of_job(0, 1, 1.5), times.end_of_job(0, 2, 4.0), times.repeats
        (1.0, 3.5, 5.0, 1)
    """

    def __init__(self, spans: Mapping[int, Sequence[Span]], num_workers: int) -> None:
        missing = [worker for worker in range(num_workers) if worker not in spans]
        if missing:
            raise ConfigError(
                f"cluster.num_workers = {num_workers}: the recorded run has no job of worker {missing[0]}; allowed are "
                f"at most {missing[0]} workers (--set cluster.num_workers={missing[0]})"
                if missing[0]
                else "the recorded run has no job of worker 0"
            )
        self._spans = {worker: spans[worker] for worker in range(num_workers)}
        self._lengths = {worker: lengths(of_worker) for worker, of_worker in self._spans.items()}
        self.used = dict.fromkeys(range(num_workers), 0)

    def end_of_job(self, worker: int, job: int, now_s: float) -> float:
        """When the worker's next job is done."""
        place, spans = self.used[worker], self._spans[worker]
        self.used[worker] += 1
        if place < len(spans):
            span = spans[place]
            if not span.cancelled and abs(span.start_s - now_s) <= _ROUNDING_S:
                return span.end_s
        return now_s + self._lengths[worker][place % len(spans)]

    @property
    def repeats(self) -> int:
        """How often a worker's times had to begin again, at most."""
        return max((used - 1) // len(self._spans[worker]) if used else 0 for worker, used in self.used.items())


def read_file(path: Path) -> list[float]:
    """Seconds per gradient of each worker: a JSON list of numbers, or one number per line (empty lines don't count).

    Errors: ConfigError in one sentence that names what is wrong: no number, not above 0, too large, or none at all.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "times.txt"
        >>> _ = path.write_text("0.1\\n0.4\\n")
        >>> read_file(path)
        [0.1, 0.4]
    """
    allowed = "a JSON list of seconds per gradient, one for each worker, or one number per line"
    try:
        if not path.is_file():
            raise ConfigError(f"--times {path}: {'it is no file' if path.exists() else 'there is no such file'}")
        if path.stat().st_size > MOST_BYTES:
            raise ConfigError(f"--times {path}: it has more than {MOST_BYTES:,} bytes; allowed is {allowed}")
        text = path.read_text()
    except OSError as error:
        raise ConfigError(f"--times {path}: it can't be read: {reason_of(error)}") from error
    except UnicodeDecodeError:
        raise ConfigError(f"--times {path}: it is no text; allowed is {allowed}") from None
    if text.lstrip()[:1] in ("[", "{", '"'):
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"--times {path}: it is no JSON ({error}); allowed is {allowed}") from None
        if not isinstance(values, list):
            raise ConfigError(f"--times {path}: it holds a JSON {type(values).__name__}; allowed is {allowed}")
        return check_times(values, f"--times {path}", [f"number {i}" for i in range(1, len(values) + 1)])
    lines = [(i, line.strip()) for i, line in enumerate(text.splitlines(), start=1) if line.strip()]
    return check_times([_number(line) for _, line in lines], f"--times {path}", [f"line {i}" for i, _ in lines])


def check_times(values: Sequence[object], where: str, places: Sequence[str]) -> list[float]:
    """The values as seconds; ConfigError naming the first that isn't a finite number above 0.

    Example:
        >>> check_times([0.5, -1], "times", ["number 1", "number 2"])
        Traceback (most recent call last):
        asgd.errors.ConfigError: times, number 2: '-1'; allowed are seconds above 0, to 1e+09
    """
    if not values:
        raise ConfigError(f"{where}: there is no number; allowed is at least one worker's seconds per gradient")
    for value, place in zip(values, places, strict=True):
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= MOST_SECONDS:
            raise ConfigError(
                f"{where}, {place}: {str(value)[:40]!r}; allowed are seconds above 0, to {MOST_SECONDS:g}"
            )
    return [float(value) for value in values]  # type: ignore[arg-type]


def _number(text: str) -> object:
    try:
        return float(text)
    except ValueError:
        return text
