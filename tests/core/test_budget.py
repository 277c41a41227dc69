"""When a run is over: the limits that are set, one by one and together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgd.core.budget import Budget
from asgd.errors import ConfigError

counts = st.integers(0, 20)
times = st.floats(0.0, 20.0)


@given(st.tuples(counts, counts, counts, times).filter(any), st.tuples(counts, counts, counts, times))
def test_used_up_is_a_fraction_of_one_or_more(limits, spent):
    budget = Budget(*limits)
    assert budget.is_used_up(*spent) == (budget.fraction(*spent)[0] >= 1.0)


def test_the_nearest_limit_has_the_name():
    assert Budget(versions=10, time_s=4.0).fraction(5, 10**6, 10**6, 3.0) == (0.75, "time_s")
    assert not Budget(versions=10, time_s=4.0).is_used_up(9, 10**6, 10**6, 3.99)


@pytest.mark.parametrize("limits", [{}, {"versions": -1}, {"time_s": -0.5, "samples": 3}], ids=str)
def test_refuses(limits):
    with pytest.raises(ConfigError, match="one of versions, samples, gradients, time_s must be above 0"):
        Budget(**limits)
