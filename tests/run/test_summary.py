"""The summary's table of the workers."""

from __future__ import annotations

from asgd.core.ledger import Ledger, WorkerStats
from asgd.run.formats import WorkerSummary
from asgd.run.summary import _workers

STATS = {0: WorkerStats(used=1, weight=0.1), 1: WorkerStats(used=3, weight=0.2, lost=1), 2: WorkerStats(weight=0.3)}


def test_the_workers_parts_do_not_depend_on_who_joined_first():
    forwards = _workers(Ledger(num_used=4, per_worker=dict(STATS)))
    backwards = _workers(Ledger(num_used=4, per_worker=dict(reversed(STATS.items()))))
    assert forwards == backwards and list(backwards) == [0, 1, 2]
    assert forwards[1] == WorkerSummary(used=3, discarded=0, lost=1, share=0.75, weight=0.2 / (0.1 + 0.2 + 0.3))


def test_parts_of_nothing_are_zero():
    assert _workers(Ledger(per_worker={7: WorkerStats(discarded=2)})) == {
        7: WorkerSummary(used=0, discarded=2, lost=0, share=0.0, weight=0.0)
    }
