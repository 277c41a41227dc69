"""The ledger accepts every true history and catches every forged one."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgd.core.trace import TraceRow
from asgd.run.ledger import MAX_PROBLEMS, check_trace, conservation, delay_statistics


@dataclasses.dataclass
class Job:
    number: int
    worker: int
    version: int
    age: int = 0  # counted up at each update, never subtracted from versions: that is what makes it independent


def random_history(seed: int, num_arrivals: int) -> tuple[list[TraceRow], list[int]]:
    """A random history of a server with joins, deaths, discards, accumulation and changing concurrency."""
    draw = random.Random(seed)
    num_workers = draw.randint(1, 6)
    kinds = draw.choice(["apply", "apply apply discard", "accumulate", "apply accumulate discard lost"]).split()
    out: list[Job] = []
    rows: list[TraceRow] = []
    version, time_s, next_job = 0, 0.0, draw.choice([0, 2**32])

    def give(count: int) -> None:
        nonlocal next_job
        for _ in range(count):
            out.append(Job(next_job, draw.randrange(num_workers), version))
            next_job += draw.randint(1, 3)

    give(draw.randint(1, 2 * num_workers))
    for arrival in range(num_arrivals):
        if not out:
            give(draw.randint(1, num_workers))
        job = draw.choice(out)
        concurrency = len(out)
        out.remove(job)
        action = draw.choice(kinds)
        steps = 1 if action == "apply" else int(draw.random() < 0.3)
        time_s += draw.choice([0.0, draw.random()])
        rows.append(
            TraceRow(
                arrival=arrival,
                time_s=time_s,
                worker=job.worker,
                job=job.number,
                read_version=job.version,
                version=version,
                delay=job.age,
                concurrency=concurrency,
                action=action,
                steps=steps,
                step_size=draw.random() if steps else None,
                reason=None if action in ("apply", "accumulate") else "a reason",
                loss=draw.choice([None, 1.0]),
                samples=0 if action == "lost" else 64,
                compute_s=draw.random(),
                wait_s=0.0,
            )
        )
        if steps:
            version += 1
            for other in out:
                other.age += 1
        give(draw.choice([0, 1, 1, 1, 2]))
    return rows, [job.age for job in out]


histories = st.builds(random_history, st.integers(0, 2**32), st.integers(1, 60))


@given(histories)
@settings(deadline=None)
def test_true_histories_balance(history: tuple[list[TraceRow], list[int]]) -> None:
    rows, outstanding = history
    left, right = conservation(rows, outstanding)
    assert left == right
    assert check_trace(rows, outstanding) == []


def changed(name: str, change: Callable[[Any], Any]) -> Callable[[list[TraceRow], int], list[TraceRow]]:
    def forge(rows: list[TraceRow], at: int) -> list[TraceRow]:
        new = dataclasses.replace(rows[at], **{name: change(getattr(rows[at], name))})
        return [*rows[:at], new, *rows[at + 1 :]]

    return forge


def stale(rows: list[TraceRow], at: int) -> list[TraceRow]:
    """One delay too many, with a read version that agrees: only the conservation law sees it."""
    row = rows[at]
    return [
        *rows[:at],
        dataclasses.replace(row, delay=row.delay + 1, read_version=row.read_version - 1),
        *rows[at + 1 :],
    ]


FORGERIES: dict[str, Callable[[list[TraceRow], int], list[TraceRow]]] = {
    "arrival": changed("arrival", lambda value: value + 1),
    "version": changed("version", lambda value: value + 1),
    "read_version": changed("read_version", lambda value: value - 1),
    "delay": changed("delay", lambda value: value + 1),
    "stale": stale,
    "worker": changed("worker", lambda value: -1),
    "time goes back": changed("time_s", lambda value: -1.0),
    "time is nothing": changed("time_s", lambda value: float("nan")),
    "action": changed("action", lambda value: "applied"),
    "two steps": changed("steps", lambda value: value + 2),
    "step": changed("steps", lambda value: 1 - value),
    "step size": changed("step_size", lambda value: 0.1 if value is None else None),
    "bad step size": changed("step_size", lambda value: float("inf")),
    "compute": changed("compute_s", lambda value: -1.0),
    "queue": changed("queue_s", lambda value: -0.1),
    "given after it arrived": changed("assigned_s", lambda value: 1e9),
    "given before the run": changed("assigned_s", lambda value: -0.1),
    "begun at no time": changed("started_s", lambda value: float("inf")),
    "samples": changed("samples", lambda value: -64),
    "nobody outstanding": changed("concurrency", lambda value: 0),
    "too many outstanding": changed("concurrency", lambda value: value + 1000),
    "lost row": lambda rows, at: [*rows[:at], *rows[at + 1 :]] if at + 1 < len(rows) else rows[:0],
    "doubled row": lambda rows, at: [*rows[: at + 1], *rows[at:]],
}


@pytest.mark.parametrize("forgery", FORGERIES)
@given(seed=st.integers(0, 2**32), num_arrivals=st.integers(2, 40), data=st.data())
@settings(deadline=None, max_examples=25)
def test_forged_histories_are_caught(forgery: str, seed: int, num_arrivals: int, data: st.DataObject) -> None:
    rows, outstanding = random_history(seed, num_arrivals)
    forged = FORGERIES[forgery](rows, data.draw(st.integers(0, len(rows) - 1)))
    if forged:  # an empty history can be true
        assert check_trace(forged, outstanding) != []


@given(seed=st.integers(0, 2**32), num_arrivals=st.integers(2, 40), data=st.data(), by=st.sampled_from([-1, 1]))
@settings(deadline=None)
def test_one_job_more_or_less_at_an_update_is_caught(
    seed: int, num_arrivals: int, data: st.DataObject, by: int
) -> None:
    rows, outstanding = random_history(seed, num_arrivals)
    updates = [row.arrival for row in rows if row.steps]
    if updates:
        forged = changed("concurrency", lambda value: value + by)(rows, data.draw(st.sampled_from(updates)))
        assert "conservation law" in check_trace(forged, outstanding)[-1]


@given(seed=st.integers(0, 2**32), num_arrivals=st.integers(2, 40), data=st.data())
@settings(deadline=None)
def test_a_wrong_age_in_flight_is_caught(seed: int, num_arrivals: int, data: st.DataObject) -> None:
    rows, outstanding = random_history(seed, num_arrivals)
    if outstanding:
        at = data.draw(st.integers(0, len(outstanding) - 1))
        outstanding[at] += data.draw(st.sampled_from([-1, 1, 1000]))
        assert check_trace(rows, outstanding) != []


def plain(*columns: tuple[int, int, int, int, str], **changes: Any) -> list[TraceRow]:
    """Rows of (worker, read_version, version, concurrency, action), one update each when applied."""
    return [
        TraceRow(
            arrival=number,
            time_s=float(number),
            worker=worker,
            job=number,
            read_version=read_version,
            version=version,
            delay=version - read_version,
            concurrency=concurrency,
            action=action,
            steps=int(action == "apply"),
            step_size=0.1 if action == "apply" else None,
            reason=None,
            loss=None,
            samples=1,
            compute_s=0.1,
            wait_s=0.0,
        )
        for number, (worker, read_version, version, concurrency, action) in enumerate(columns)
    ]


# Two workers from version 0. Worker 0 is applied twice, worker 1 arrives with delay 2 and is discarded (its next job
# starts at version 2), worker 0 is applied again; in flight at the end: worker 0's new job (0), worker 1's (1).
BY_HAND = plain((0, 0, 0, 2, "apply"), (0, 1, 1, 2, "apply"), (1, 0, 2, 2, "discard"), (0, 2, 2, 2, "apply"))


def test_a_history_written_out_by_hand() -> None:
    assert conservation(BY_HAND, [0, 1]) == (0 + 0 + 2 + 0 + 0 + 1, 1 + 1 + 1)
    assert check_trace(BY_HAND, [0, 1]) == []
    statistics = delay_statistics(BY_HAND, [0, 1])
    assert statistics.mean_applied == 0.0  # the discarded one doesn't count
    assert statistics.average == 1 / 4  # three used; of two in flight the one just given is left out
    assert statistics.max == 1
    assert statistics.per_worker == {0: 0.0}


def test_mini_batch_has_no_delays() -> None:
    rows = [
        dataclasses.replace(row, action="accumulate", steps=int(row.arrival % 3 == 2))
        for row in plain(*[(worker, step, step, 3 - worker, "") for step in range(4) for worker in range(3)])
    ]
    rows = [dataclasses.replace(row, step_size=0.1 if row.steps else None) for row in rows]
    assert check_trace(rows, [0, 0, 0]) == []
    assert delay_statistics(rows, [0, 0, 0]).average == 0.0


def test_statistics_of_delays() -> None:
    rows = plain((0, 0, 0, 3, "apply"), (1, 0, 1, 3, "apply"), (2, 0, 2, 3, "apply"), (1, 2, 3, 3, "apply"))
    statistics = delay_statistics(rows, [0, 1, 9])
    assert Fraction(statistics.mean_applied) == Fraction(0 + 1 + 2 + 1, 4)
    assert statistics.average == (0 + 1 + 2 + 1 + 1 + 9) / 6
    assert statistics.max == 9
    assert statistics.per_worker == {0: 0.0, 1: 1.0, 2: 2.0}


def test_nothing_happened() -> None:
    assert check_trace([], []) == []
    assert check_trace([], [0, 0]) == []
    assert "only 0 updates were made" in check_trace([], [1])[0]
    assert delay_statistics([], []).max == 0


def test_concurrency_that_balances_but_cannot_be_is_caught() -> None:
    # The sum of the right side stays the same; a discard in between shows that the numbers are made up.
    rows = changed("concurrency", lambda value: value + 1)(BY_HAND, 0)
    rows = changed("concurrency", lambda value: value - 1)(rows, 1)
    assert conservation(rows, [0, 1]) == conservation(BY_HAND, [0, 1])
    assert any("Row 1 has concurrency 1, and from 2 to 2" in problem for problem in check_trace(rows, [0, 1]))


def test_sentences_say_what_is_wrong_and_do_not_flood() -> None:
    assert (
        check_trace(changed("delay", lambda value: 7)(BY_HAND, 2), [0, 1])[0]
        == "Row 2 has delay 7, and 2 - 0 is its age."
    )
    assert "row 0 had" in check_trace(changed("job", lambda value: 0)(BY_HAND, 3), [0, 1])[0]
    rows = [dataclasses.replace(row, version=row.version + 5) for row in random_history(1, 200)[0]]
    problems = check_trace(rows, [])
    assert len(problems) <= MAX_PROBLEMS + 2
    assert any(problem.startswith("And ") for problem in problems)


def test_without_the_jobs_in_flight_any_beginning_of_a_history_is_true_and_damage_is_still_caught() -> None:
    rows, _ = random_history(3, 120)
    for length in (0, 1, 17, 60, len(rows)):
        assert check_trace(rows[:length], None) == []
    assert "time does not go back" in check_trace(changed("time_s", lambda value: -1.0)(BY_HAND, 2), None)[0]
    low = changed("concurrency", lambda value: value - 1)(BY_HAND, 1)
    assert any("Row 1 has concurrency 1" in problem for problem in check_trace(low, None))
