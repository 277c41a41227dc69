"""When a run counts as survived, and how it is shown."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from asgd.bench.chaos.script import Fault
from asgd.bench.chaos.striking import Struck
from asgd.bench.chaos.survival import Survival, fault_table, survived, verdict_table

GOOD = Survival("run", "asynchronous", "exact", 0, kills=2, server_kills=1, num_left=0, exact=True, went_on=True)


def test_a_run_that_lost_and_doubled_nothing_has_survived():
    assert GOOD.passed and GOOD.to_dict()["passed"]


@pytest.mark.parametrize(
    "fault",
    [{"doubled": 1}, {"differing": 1}, {"problems": ["the books"]}, {"exact": False}, {"went_on": False},
     {"num_left": 1}, {"error": "it died"}],
)  # fmt: skip
def test_each_thing_that_went_wrong_is_enough(fault):
    assert not replace(GOOD, **fault).passed


def struck(fault, **times):
    return Struck(fault, pid=1, struck_s=10.0, rows=5, version=5, incarnation=0, checkpoint=0, **times)


def test_times_are_told_by_kind():
    server = Fault(5, "kill", "server")
    rows = survived([
        struck(server, opened_s=10.5, goes_on_s=11.0),
        struck(server, opened_s=10.25, goes_on_s=13.0),
        struck(Fault(6, "stop", "server", length=4), ended_s=12.0, goes_on_s=12.5),
        struck(Fault(7, "stop", "worker", 1, 4), ended_s=11.0, goes_on_s=10.1, back_s=11.5),
    ])  # fmt: skip
    killed, stopped, worker = rows
    assert [row.name for row in rows] == ["server killed", "server stopped", "worker stopped"]
    assert (killed.num, killed.goes_on.median_s, killed.goes_on.max_s, killed.coming_up.max_s) == (2, 2.0, 3.0, 0.5)
    assert stopped.goes_on.max_s == 0.5, "from the end of the stop"
    assert worker.goes_on.max_s == pytest.approx(0.1) and worker.back.max_s == 0.5


def test_the_tables_say_what_failed():
    result = replace(GOOD, error="it died", num_left=3, faults=survived([struck(Fault(5, "kill", "server"))]))
    console = Console(file=io.StringIO(), width=120)
    console.print(fault_table(result), verdict_table(result))
    shown = console.file.getvalue()
    assert "server killed" in shown and "it died" in shown and "faults that never struck" in shown
