"""The script of faults: from a seed and nothing else, in order, with the kills that were asked for."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from asgd.bench.chaos.script import UNTIL_LOST, UNTIL_NEXT, Fault, make_script, versions_for

settings = st.tuples(st.integers(0, 2**32), st.integers(1, 300), st.integers(1, 12), st.integers(5, 80), st.booleans())


def script_of(setting) -> tuple[list[Fault], int]:
    seed, kills, num_workers, every, evaluator = setting
    versions = versions_for(kills, every, evaluator=evaluator)
    return make_script(seed, kills, num_workers, versions, evaluator=evaluator), versions


@given(settings)
def test_it_has_the_kills_that_were_asked_for_a_fifth_of_them_of_the_server(setting):
    script, _ = script_of(setting)
    kills = Counter(fault.role for fault in script if fault.kind == "kill")
    assert kills.total() == setting[1] and kills["server"] == setting[1] // 5
    assert setting[4] or not any(fault.role == "evaluator" for fault in script)


@given(settings)
def test_the_same_seed_gives_the_same_script_and_versions_rise_to_the_end(setting):
    script, versions = script_of(setting)
    assert script == script_of(setting)[0]
    at = [fault.version for fault in script]
    assert at == sorted(at) and at[-1] <= versions
    assert all(fault.version > 0 for fault in script if fault.when == "version")


@given(settings)
def test_each_fault_names_whom_it_hits_and_how_long_it_lasts(setting):
    script, _ = script_of(setting)
    for fault in script:
        assert (0 <= fault.worker < setting[2]) if fault.role == "worker" else fault.worker == -1
        lasts = fault.kind in ("stop", "delay", "half_open")
        assert lasts == (fault.length != 0) and fault.length >= UNTIL_NEXT
        assert (fault.length == UNTIL_LOST) <= (fault.role == "worker")


@given(st.integers(0, 1000))
def test_two_hundred_kills_hit_the_start_a_recovery_and_the_end(seed):
    versions = versions_for(200, 60)
    script = make_script(seed, 200, 4, versions)
    assert [(fault.when, fault.version) for fault in script[:2]] == [("spawned", 0), ("opened", 0)]
    again = [place for place, fault in enumerate(script) if place > 1 and fault.when in ("spawned", "opened")]
    assert len(again) == 7 and {script[place].when for place in again} == {"spawned", "opened"}
    assert all((script[place - 1].kind, script[place - 1].role) == ("kill", "server") for place in again)
    assert [fault.when for fault in script[-3:]] == ["evaluating", "ending", "ending"]
    assert {fault.name for fault in script} >= {
        "worker killed", "worker stopped", "worker stopped until taken for dead", "server killed", "server stopped",
        "evaluator killed", "connection slow", "connection cut off", "connection half open",
    }  # fmt: skip


def test_other_seeds_give_other_scripts():
    assert make_script(0, 50, 4, 1000) != make_script(1, 50, 4, 1000)
