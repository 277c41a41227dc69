"""Configurations: what is allowed is written out in full, and reads back as an equal object."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import get_args

import hypothesis.strategies as st
import pytest
from helpers.config_cases import written
from hypothesis import given

from asgd.config import load_config, to_toml
from asgd.config.checks import LARGEST, RULES
from asgd.config.schema import Evaluate, OptimizerName, ScheduleName, ScheduleUnit

counts = st.integers(0, LARGEST)
positive = st.integers(1, LARGEST)
numbers = st.floats(0, allow_nan=False, allow_infinity=False)
positive_numbers = st.floats(0, exclude_min=True, allow_nan=False, allow_infinity=False)
below_1 = st.floats(0, 1, exclude_max=True)
names = st.text(min_size=1).filter(str.strip)
text = st.text()
plain = st.one_of(
    st.booleans(), st.integers(), st.floats(allow_nan=False), text, st.dates(), st.datetimes(), st.times()
)
options = st.dictionaries(
    text, st.recursive(plain, lambda inner: st.lists(inner) | st.dictionaries(text, inner), max_leaves=6), max_size=4
)
flags = st.booleans()


@dataclass(frozen=True)
class Optional:
    """A table of which any keys may be missing."""

    keys: dict

    def strategy(self):
        made = {k: v.strategy() if isinstance(v, Optional) else v for k, v in self.keys.items()}
        return st.fixed_dictionaries({}, optional=made)


TABLES = Optional(
    {
        "seed": counts,
        "task": Optional(
            {
                "function": st.sampled_from(["shapes", "cifar10", "/a b/c.py:make", "x.y:make"]),
                "options": options,
                "batch_size": positive,
                "micro_batches": positive,
                "download": flags,
            }
        ),
        "method": Optional(
            {
                "name": names.filter(lambda name: name != "minibatch"),
                "step_size": positive_numbers,
                "rule": names,
                "rule_options": options,
                "options": options,
                "jobs_per_worker": positive,
                "local_steps": counts,
                "local_step_size": positive_numbers,
            }
        ),
        "optimizer": Optional(
            {
                "momentum": below_1,
                "weight_decay": numbers,
                "betas": st.tuples(below_1, below_1),
                "eps": positive_numbers,
                "clip_norm": numbers,
            }
        ),
        "schedule": Optional(
            {
                "over": st.sampled_from(get_args(ScheduleUnit)),
                "total": counts,
                "warmup": counts,
                "gamma": st.floats(0, 1, exclude_min=True),
                "final_factor": st.floats(0, 1),
            }
        ),
        "cluster": Optional(
            {
                "num_workers": positive,
                "address": st.sampled_from(["ipc", "ipc://a/ü", "tcp://*:1"]),
                "device": st.sampled_from(["auto", "cpu", "cuda", "cuda:3"]),
                "threads_per_worker": positive,
                "autocast": flags,
                "max_restarts": counts,
                "max_server_restarts": counts,
                "start_timeout_s": positive_numbers,
                "server_timeout_s": positive_numbers,
                "min_lease_s": st.floats(0, 3600, exclude_min=True),
                "max_lease_s": st.floats(3600, allow_infinity=False),
                "speeds": Optional(
                    {
                        "profile": names.filter(lambda name: name != "outages"),
                        "seconds": positive_numbers,
                        "factor": st.floats(1, 1e9),
                        "communication_s": numbers,
                        "period_s": positive_numbers,
                        "outage_s": numbers,
                        "alpha": st.floats(1, 1e9, exclude_min=True),
                    }
                ),
            }
        ),
        "evaluation": Optional(
            {
                "evaluate": st.sampled_from(get_args(Evaluate)),
                "every_versions": counts,
                "every_samples": counts,
                "every_s": numbers,
                "batch_size": positive,
            }
        ),
        "checkpoints": Optional({"every_versions": counts, "every_s": numbers, "keep": positive}),
        "records": Optional({"report": st.booleans()}),
    }
)


@given(TABLES.strategy(), counts, positive, positive_numbers)
def test_toml_and_back(data, versions, samples, time_s):
    """Whatever is allowed is written out in full and read back as an equal object."""
    config = load_config({**data, "budget": {"versions": versions, "samples": samples, "time_s": time_s}})
    text = to_toml(config)
    assert load_config(tomllib.loads(text)) == config
    table = tomllib.loads(text)
    for key in RULES:
        value = table
        for part in key.split("."):
            assert part in value, f"{key} is not written out"
            value = value[part]


@pytest.mark.parametrize("optimizer", get_args(OptimizerName))
@pytest.mark.parametrize("schedule", get_args(ScheduleName))
def test_toml_and_back_of_every_optimizer_and_schedule(tmp_path, optimizer, schedule):
    milestones = [10, 20] if schedule == "step" else []
    data = {
        "optimizer": {"name": optimizer},
        "schedule": {"name": schedule, "milestones": milestones},
        "budget": {"samples": 5},
    }
    config = load_config(data)
    assert load_config(written(tmp_path, to_toml(config))) == config
    assert (config.optimizer.name, config.schedule.name) == (optimizer, schedule)
