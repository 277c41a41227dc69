"""Claim 6: measurements made up, and the verdicts and words that they must lead to; the start is left out."""

from __future__ import annotations

import pytest

from asgd.bench.claims import Effort, queueing
from asgd.bench.claims.queueing import MINIBATCH_S, check

QUICK = Effort(quick=True)
LEMMA = {"asynchronous": 15.0, "minibatch": MINIBATCH_S, "queueing": 15.0}
DRAWN = {4: 0.7, 8: 0.4, 16: 0.327, 32: 0.28}


def made_up(monkeypatch, lemma=LEMMA, drawn=DRAWN, asynchronous=0.1, noise=0.0):
    def half_slower(method, concurrency, gradients, seed, factor=4.0):
        if method == "random_assignment":
            return drawn[concurrency] + noise * (seed - 1)
        if method == "minibatch":
            return factor / 16
        return asynchronous if factor == 4 else 1 / 16

    monkeypatch.setattr(queueing, "lemma", lambda kind, gradients, seed: lemma[kind])
    monkeypatch.setattr(queueing, "half_slower", half_slower)
    outcome = check(QUICK)
    return outcome, {row.setting: row.verdict for row in outcome.rows}


def test_as_predicted(monkeypatch):
    outcome, verdicts = made_up(monkeypatch)
    assert set(verdicts.values()) == {"holds"} == {outcome.verdict}
    assert "slower than mini-batch SGD at 4, 8, 16, 32 jobs at once" in outcome.finding
    assert "figures hold without queueing" in outcome.finding and "nowhere gives fewer" in outcome.finding
    assert "fall from 0.7 at 4 jobs to 0.28 at 32" in outcome.finding
    for absent in ("doesn't give", "no difference", "is faster", "do not fall"):
        assert absent not in outcome.finding


@pytest.mark.parametrize("kind", LEMMA)
def test_other_seconds_than_the_lemmas(monkeypatch, kind):
    outcome, verdicts = made_up(monkeypatch, lemma={**LEMMA, kind: 20.0})
    wrong = [setting for setting, verdict in verdicts.items() if verdict == "does not hold"]
    assert len(wrong) == 1 and wrong[0].startswith(queueing.LEMMA[kind][0]) and outcome.verdict == "does not hold"
    assert "doesn't give what was measured" in outcome.finding and "20 against" in outcome.finding
    assert ("hold without queueing" in outcome.finding) == (kind == "queueing")
    assert ("holds too" in outcome.finding) == (kind != "queueing")


def test_faster_than_the_bound_allows(monkeypatch):
    outcome, verdicts = made_up(monkeypatch, drawn={**DRAWN, 32: 0.2})
    assert verdicts["16 workers, half 4x slower: Algorithm 2, 32 jobs at once"] == "does not hold"
    assert outcome.verdict == "does not hold"
    assert "at 4, 8, 16 jobs at once" in outcome.finding and "At 32 jobs at once it is faster" in outcome.finding


def test_an_interval_around_the_bound_decides_nothing(monkeypatch):
    outcome, verdicts = made_up(monkeypatch, drawn={**DRAWN, 32: 0.251}, noise=0.005)
    assert verdicts["16 workers, half 4x slower: Algorithm 2, 32 jobs at once"] == outcome.verdict == "undecided"
    assert "At 32 jobs at once no difference from mini-batch SGD is shown" in outcome.finding


def test_a_rate_that_rises_with_the_jobs_is_not_said_to_fall(monkeypatch):
    outcome, _ = made_up(monkeypatch, drawn={**DRAWN, 8: 0.8})
    assert "do not fall steadily from 0.7" in outcome.finding


def test_algorithm_1_slower_than_minibatch(monkeypatch):
    outcome, verdicts = made_up(monkeypatch, asynchronous=0.3)
    assert verdicts["16 workers, half 4x slower: asynchronous, seconds per gradient"] == "does not hold"
    assert "Algorithm 1 gives fewer gradients" in outcome.finding and "nowhere" not in outcome.finding


def test_the_start_is_left_out():
    """The first jobs take 100 s, the others 1 s."""
    seconds = queueing.seconds_per_gradient(
        "asynchronous", 2, 100, 0, lambda worker, job, now_s: now_s + (100.0 if now_s == 0 else 1.0)
    )
    assert seconds == pytest.approx(0.5)
