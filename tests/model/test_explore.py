"""Every state that can be reached, for every method: each job ends once and is recorded, the conservation law holds, no
false answer counts, and nobody who lives stays without work.

`PYTHONPATH=tests python -m model` prints how many states there are.
"""

from __future__ import annotations

import pytest
from model.cores import Cores
from model.plans import CASES, PLANS, settings
from model.setting import Setting
from model.worlds import Faults, key

from asgd.core.methods import METHODS

RESTARTED = ["asynchronous", "minibatch", "bounded_staleness", "ringleader"]


def test_every_method_is_explored():
    assert {method for method, _ in CASES} == METHODS.keys()


@pytest.mark.parametrize(("method", "options"), CASES, ids=str)
def test_a_death(method, options):
    for setting in settings("fast", method, options):
        assert setting.run().states > 400


@pytest.mark.parametrize("method", RESTARTED)
@pytest.mark.parametrize("exact", [False, True])
def test_a_restart_of_the_server(method, exact):
    faults = Faults(restarts=1, checkpoints=0 if exact else 1)
    assert Setting(method, gradients=2, faults=faults, exact=exact).run().states > 1000


@pytest.mark.slow
@pytest.mark.parametrize(("method", "options"), CASES, ids=str)
@pytest.mark.parametrize("number", range(len(PLANS["slow"])))
def test_deaths_broken_connections_and_restarts(method, options, number):
    setting = list(settings("slow", method, options))[number]
    explored = setting.run()
    print(f"{setting}: {explored.states} states, {explored.steps} steps")
    assert explored.states > 1500


def test_numbers_of_states_that_can_be_counted_by_hand():
    """One worker, one gradient, no fault: it joins, the job is delivered, computed, arrives; the run is over."""
    explored = Setting("asynchronous", workers=1, gradients=1).run()
    assert (explored.states, explored.steps, explored.depth) == (5, 4, 4)


@pytest.mark.parametrize("exact", [False, True])
def test_an_answer_arrives_twice(exact):
    """Sent, and sent again after the connection broke: the steps are there, the second one counts nothing."""
    setting = Setting("asynchronous", workers=1, gradients=9, faults=Faults(cuts=1), exact=exact)
    protocol = setting.protocol(Cores(setting.make_core))
    world = protocol.start(1, setting.faults)
    way = [
        ("join", 0),
        ("deliver", 0),
        ("compute", 0),
        ("cut", 0),
        ("reconnect", 0),
        ("arrive", 0, 0),
        ("arrive", 0, 0),
    ]
    rows = []
    for step in way:
        world = dict(protocol.steps(world))[step]()
        rows.append(world.history.rows)
    # Without exact restarts a worker that reconnects is a newcomer: its job is lost, and both answers are too late.
    assert rows == ([0, 0, 0, 0, 0, 1, 1] if exact else [0, 0, 0, 0, 1, 1, 1])
    assert world.history.jobs[0].end == ("apply" if exact else "lost")


@pytest.mark.parametrize("method", RESTARTED)
def test_states_that_count_as_one_have_one_future(method):
    """Nothing folded, books and numbers of jobs included, more states are visited, and the same classes."""
    setting = Setting(method, gradients=2, faults=Faults(deaths=1))
    protocol = setting.protocol(Cores(setting.make_core))
    world = protocol.start(2, setting.faults)
    seen, queue = {world._replace(history=None): key(world, protocol.cores)}, [world]
    while queue:
        world = queue.pop()
        if protocol.cores[world.core].finished:
            continue
        for _, happens in protocol.steps(world):
            successor = happens()
            whole = successor._replace(history=None)
            if whole not in seen:
                seen[whole] = key(successor, protocol.cores)
                queue.append(successor)
    assert len(set(seen.values())) == setting.run().states < len(seen)
