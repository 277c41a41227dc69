"""Orders of arrival: the largest delay is the one asked for, and the concurrency never changes."""

from __future__ import annotations

from itertools import pairwise

import pytest

from asgd.bench.claims.orders import ORDERS
from asgd.sim.problems import diagonal
from asgd.sim.study import run_study, study_config


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("max_delay", [20, 50])
def test_largest_delay_and_concurrency(name, max_delay):
    config = study_config("asynchronous", 8, rule="constant", budget={"versions": 6 * max_delay})
    order = ORDERS[name](8, max_delay)
    study = run_study(config, diagonal([1.0, 0.1]), [0.05], [0], order=order, keep_rows=True)
    delays = [row.delay for row in study.rows]
    # The adversary does as it likes below the limit; the others reach it.
    assert max(delays) <= max_delay and (name == "adversary" or max(delays) == max_delay)
    assert max_delay / 2 < max(delays), "late answers are late"
    assert {row.concurrency for row in study.rows} == {8}
    study.state.validate()


def test_a_burst_is_one_answer_of_everybody_but_the_first_in_a_row():
    config = study_config("asynchronous", 4, rule="constant", budget={"versions": 40})
    study = run_study(config, diagonal([1.0]), [0.05], [0], order=ORDERS["burst"](4, 12), keep_rows=True)
    late = [row.arrival for row in study.rows if row.worker]
    assert late[:3] == list(range(late[0], late[0] + 3))
    assert [row.delay for row in study.rows if row.worker][:3] == [10, 11, 12]


def test_stragglers_are_spread_evenly():
    config = study_config("asynchronous", 8, rule="constant", budget={"versions": 200})
    order = ORDERS["half are stragglers"](8, 40)
    study = run_study(config, diagonal([1.0]), [0.01], [0], order=order, keep_rows=True)
    slow = [row.arrival for row in study.rows if row.worker >= 4][4:]
    assert {later - earlier for earlier, later in pairwise(slow)} <= {9, 10, 11, 12}
