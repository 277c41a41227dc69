"""Each worker's weight, the step sizes with which its gradients went into the model, against the model itself."""

from __future__ import annotations

import json
import random

import pytest
from helpers.core_driver import Driver, make_state

from asgd.core.ledger import Ledger

WORKERS = 4
# All that step along gradients as they are, each with options under which something is discarded, cancelled or kept.
CASES = [
    ("asynchronous", {}), ("minibatch", {}), ("random_assignment", {"concurrency": 6}), ("clipped", {"clip": 1.0}),
    ("ringmaster", {"R": 3, "cancel": True}), ("throttle", {}), ("m_synchronous", {"m": 2}), ("rennala", {"batch": 3}),
    ("bounded_staleness", {"s": 1}), ("malenia", {"batch": 6}), ("fedbuff", {"buffer": 3}), ("rescaled", {}),
    ("ringleader", {}),
]  # fmt: skip


def script(driver, num_events=150):
    """The same random history for every driver: answers in any order, one in ten not finite, a death, a newcomer."""
    draw = random.Random(7)
    driver.join(*range(WORKERS))
    for event in range(num_events):
        if event == 60:
            driver.leave(2)
        if event == 90:
            driver.join(WORKERS)
        busy = sorted(worker for worker, jobs in driver.queue.items() if jobs)
        driver.answer(draw.choice(busy), finite=draw.random() < 0.9)


@pytest.mark.parametrize(("method", "options"), CASES, ids=[name for name, _ in CASES])
def test_it_is_how_far_the_model_moves_along_the_workers_gradients(method, options):
    """With gradients that are 1 for one worker and 0 for the others the model moves by that worker's weight."""
    moved = {}
    for chosen in range(WORKERS + 1):
        state = make_state(method, "scale", workers=WORKERS, method_options=options, seed=1)
        driver = Driver(state, x=0.0)
        driver.gradient = lambda x, job, driver=driver, chosen=chosen: float(driver.given[job][0] == chosen)
        script(driver)
        moved[chosen] = -driver.x
    weights = {worker: stats.weight for worker, stats in state.ledger.per_worker.items()}
    assert weights == pytest.approx(moved) and min(weights.values()) > 0
    assert state.version > 5


def test_mixing_counts_its_weight():
    driver = Driver(make_state("fedasync", workers=2, method_options={"alpha": 0.5, "staleness": "constant"}))
    driver.join(0, 1)
    driver.answers([0, 0, 1])
    assert [stats.weight for stats in driver.state.ledger.per_worker.values()] == [1.0, 0.5]


def test_a_checkpoint_in_the_middle_of_a_round_keeps_what_is_in_the_slots():
    driver = Driver(make_state("minibatch", workers=3, step_size=0.3))
    driver.join(0, 1, 2)
    driver.answers([1, 0])
    ledger = driver.state.ledger
    driver.state.ledger = Ledger.from_dict(json.loads(json.dumps(ledger.to_dict())))
    assert driver.state.ledger == ledger is not driver.state.ledger
    driver.answer(2)
    assert [driver.state.ledger.per_worker[w].weight for w in range(3)] == pytest.approx([0.1] * 3)
