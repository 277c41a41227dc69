"""Long random runs: more workers, jobs, faults and rules than can be explored, on one core that goes on from event to
event as the server's does.
"""

from __future__ import annotations

from typing import ClassVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from model import faulty
from model.cores import OneCore
from model.explore import false_answers
from model.plans import CASES
from model.setting import Setting
from model.worlds import Faults

PLENTY = Faults(deaths=20, cuts=20, broken=20, checkpoints=20, restarts=20)
RULES = ["constant", "scale", "drop", "wu_adaptive_2"]
QUEUEING = ["asynchronous", "ringmaster", "fedbuff", "rescaled", "malenia"]  # some of those that allow several jobs


def may_happen(*kinds):
    """A rule that takes one of these steps, wherever there is one."""

    @precondition(lambda self: any(step[0] in kinds for step in self.todo))
    @rule(index=st.integers(0, 99))
    def happens(self, index):
        steps = [step for step in self.todo if step[0] in kinds]
        self.take(steps[index % len(steps)])

    return happens


class RandomRun(RuleBasedStateMachine):
    """One run, however it may go; what may happen next, and what must hold, is the model's to say."""

    todo: ClassVar[dict] = {}
    cases: ClassVar[list] = CASES
    change = staticmethod(lambda state: state)

    @initialize(
        case=st.integers(0, 99), step_rule=st.sampled_from(RULES), workers=st.integers(1, 4), exact=st.booleans()
    )
    def begin(self, case, step_rule, workers, exact):
        method, options = self.cases[case % len(self.cases)]
        jobs = 2 if method in QUEUEING else 1
        faults = PLENTY._replace(checkpoints=0) if exact else PLENTY
        self.setting = Setting(method, options, workers, 40, faults, exact, step_rule, jobs_per_worker=jobs)
        self.fairness = self.setting.fairness(self.change)
        self.another_run()

    @precondition(lambda self: not self.todo)
    @rule()
    def another_run(self):
        self.cores = OneCore(lambda: self.change(self.setting.make_core()))
        self.protocol = self.setting.protocol(self.cores)
        self.world = self.protocol.start(self.setting.workers, self.setting.faults)
        self.look()

    def look(self):
        finished = self.cores[self.world.core].finished
        self.todo = {} if finished else dict(self.protocol.steps(self.world))

    def take(self, step):
        self.world = self.todo[step]()
        self.look()

    somebody_is_there = may_happen("join", "begin", "reconnect")
    something_is_delivered_or_computed = may_happen("deliver", "compute")
    an_answer_arrives = may_happen("arrive", "not finite")
    somebody_is_gone = may_happen("die", "cut", "notice")
    the_server_saves_or_dies = may_happen("checkpoint", "crash")

    @precondition(lambda self: self.todo)
    @rule(first=st.integers(0, 3), turns=st.integers(1, 12))
    def all_goes_well_for_a_while(self, first, turns):
        """Otherwise no run would get far. Each worker in turn has what waits for it happen."""
        for turn in range(turns):
            worker = (first + turn) % len(self.world.processes)
            for kind in ("join", "reconnect", "deliver", "compute", "arrive"):
                step = next((step for step in self.todo if step[:2] == (kind, worker)), None)
                if step is not None:
                    self.take(step)

    @invariant()
    def false_answers_count_nothing(self):
        if self.todo:
            answers = false_answers(self.world, self.cores[self.world.core].rank)
            assert self.cores.refuses(self.world.core, *answers[-12:])

    def teardown(self):
        if self.todo:
            self.fairness.check(self.world, self.cores[self.world.core].plain)


def test_short_random_runs():
    run_state_machine_as_test(RandomRun, settings=settings(max_examples=25, stateful_step_count=40, deadline=None))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_long_random_runs():
    run_state_machine_as_test(RandomRun, settings=settings(max_examples=100, stateful_step_count=150, deadline=None))


@pytest.mark.parametrize(
    ("fault", "case", "message"),
    [
        (faulty.waits_for_the_dead, ("minibatch", {}), "get no work any more|the version stays"),
        (faulty.keeps_something_to_itself, ("asynchronous", {}), "a restored core goes on in another way"),
    ],
    ids=["waits_for_the_dead", "keeps_something_to_itself"],
)
def test_random_runs_find_out_a_faulty_core(fault, case, message):
    """The second fault is one that the exploration can't see, because it restores the core before each event."""

    class FaultyRun(RandomRun):
        cases: ClassVar[list] = [case]
        change = staticmethod(fault)

    quick = settings(max_examples=100, stateful_step_count=40, deadline=None, derandomize=True, phases=[Phase.generate])
    with pytest.raises(AssertionError, match=message):
        run_state_machine_as_test(FaultyRun, settings=quick)
