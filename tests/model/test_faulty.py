"""The exploration finds what is wrong: every property is broken by some core, and by some server around it."""

from __future__ import annotations

import pytest
from model import faulty
from model.history import Violation
from model.setting import Setting
from model.worlds import Faults

DEATH, CUT = Faults(deaths=1), Faults(cuts=1)
BACK = Faults(restarts=1, checkpoints=1)

FOUND = [
    (faulty.counts_an_answer_twice, "asynchronous", Faults(), "more than 1 jobs"),
    (faulty.counts_an_answer_twice, "minibatch", Faults(), "a false answer has an effect"),
    (faulty.takes_anybodys_answer, "asynchronous", Faults(), "to worker 1, which is not there"),
    (faulty.takes_anybodys_answer, "ringleader", Faults(), "to worker 1, which is not there"),
    (faulty.takes_anybodys_answer, "minibatch", Faults(), "a false answer has an effect"),
    (faulty.takes_any_version, "asynchronous", Faults(), "a false answer has an effect"),
    (faulty.does_not_count_refusals, "asynchronous", Faults(), "a false answer has an effect"),
    (faulty.forgets_the_jobs_of_the_dead, "asynchronous", DEATH, "a job is gone without a line"),
    (faulty.forgets_the_jobs_of_the_dead, "minibatch", CUT, "a job is gone without a line"),
    (faulty.leaves_the_jobs_of_the_dead, "rescaled", DEATH, "a worker that is not there has a job"),
    (faulty.forgets_what_was_in_flight, "fedbuff", BACK, "a job is gone without a line"),
    (faulty.numbers_jobs_anew, "asynchronous", BACK, "is given twice"),
    (faulty.forgets_a_cancelled_job, "ringmaster", Faults(), "conservation"),
    (faulty.ages_one_too_many, "asynchronous", Faults(), "conservation"),
    (faulty.applies_a_gradient_twice, "asynchronous", Faults(), "a gradient is applied twice"),
    (faulty.writes_that_all_was_discarded, "asynchronous", Faults(), "job 0: discard recorded"),
    (faulty.gives_newcomers_nothing, "asynchronous", DEATH, "get no work any more"),
    (faulty.waits_for_the_dead, "minibatch", DEATH, "the version stays|get no work any more"),
    (faulty.waits_for_the_dead, "m_synchronous", DEATH, "the version stays|get no work any more"),
    (faulty.waits_for_the_dead, "bounded_staleness", DEATH, "the version stays|get no work any more"),
    (faulty.waits_for_the_dead, "throttle", DEATH, "the version stays|get no work any more"),
    (faulty.waits_for_the_dead, "random_assignment", DEATH, "get no work any more"),
    (faulty.waits_for_the_dead, "ringleader", DEATH, "the version stays"),
    (faulty.waits_for_the_dead, "malenia", DEATH, "the version stays"),
    (faulty.begins_without_the_others, "asynchronous", Faults(), "get no work any more"),
]
OPTIONS: dict[str, dict[str, object]] = {
    "bounded_staleness": {"s": 0},
    "ringmaster": {"R": 1, "cancel": True},
    "throttle": {"q": float("inf")},
}


@pytest.mark.parametrize(
    ("fault", "method", "faults", "message"), FOUND, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_faulty_core_is_found_out(fault, method, faults, message):
    setting = Setting(method, OPTIONS.get(method, {}), gradients=3, faults=faults)
    with pytest.raises(Violation, match=message):
        setting.run(fault)


@pytest.mark.parametrize("method", ["asynchronous", "minibatch"])
def test_a_server_that_does_not_ask_which_jobs_a_worker_has_is_found_out(method):
    """In the exact mode: a job that was on its way when the server died is outstanding, and nobody computes it."""
    setting = Setting(method, faults=Faults(restarts=1), exact=True, compares=False)
    with pytest.raises(Violation, match=r"get no work any more|the version stays") as found:
        setting.run()
    assert "('crash', 'all sent is lost')" in str(found.value), "the way there is told"
