"""What a run that goes on may change."""

from __future__ import annotations

import pytest

from asgd.config import load_config
from asgd.errors import ConfigError
from asgd.run.build import resumed

CONFIG = {"budget": {"versions": 10}, "cluster": {"num_workers": 4}}


@pytest.mark.parametrize("partition", ["by_size", "by_label", "dirichlet"])
def test_the_number_of_workers_stays_where_each_has_its_own_data(partition):
    old, new = (load_config(CONFIG, [f"task.partition={partition}", f"cluster.num_workers={n}"]) for n in (4, 5))
    with pytest.raises(ConfigError, match=r"cluster.num_workers = 5: the run was started with 4, and .* num_workers"):
        resumed(old, new)
    assert resumed(old, old).cluster.num_workers == 4


def test_the_number_of_workers_may_change_where_all_have_the_same_data():
    old, new = (load_config(CONFIG, [f"cluster.num_workers={n}"]) for n in (4, 5))
    assert resumed(old, new).cluster.num_workers == 5


def test_fixed_in_the_cluster():
    old, new = (load_config(CONFIG, [f"cluster.threads_per_worker={n}"]) for n in (1, 2))
    with pytest.raises(ConfigError, match=r"threads_per_worker = 2: .* \(without threads_per_worker, autocast\)"):
        resumed(old, new)


def test_what_a_run_goes_on_with_may_go_on_again():
    """The schedule's length is that of the first budget, and no change of the schedule."""
    old = load_config(CONFIG | {"schedule": {"name": "cosine", "over": "versions"}})
    longer = resumed(old, load_config(old, ["budget.versions=70"]))
    assert longer.schedule.total == old.budget.versions != 70
    assert resumed(old, longer) == longer == resumed(longer, longer)
