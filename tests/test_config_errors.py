"""Configurations: one sentence for everything that can be wrong: where, the key, what was given, what is allowed."""

from __future__ import annotations

import math

import msgspec
import pytest
from helpers.config_cases import END, sentence, written

from asgd.config import Config, load_config
from asgd.config.checks import RULES, value_at
from asgd.config.schema import Section
from asgd.errors import ConfigError


def leaves(section: type[Section] = Config, prefix: str = "") -> list[str]:
    keys = []
    for field in msgspec.structs.fields(section):
        nested = isinstance(field.type, type) and issubclass(field.type, Section)
        keys += leaves(field.type, f"{prefix}{field.name}.") if nested else [prefix + field.name]
    return keys


def test_every_key_has_a_rule_and_every_rule_a_key():
    assert sorted(RULES) == sorted(leaves())


WRONG_TYPES = {
    int: [1.0, 1.5, True, "1", [1], {"a": 1}],
    float: [True, "0.5", [0.5], {"a": 1}, 10**400],
    bool: [0, 1, "true", []],
    str: [1, 0.5, False, ["a"], {"a": 1}],
    dict: [1, "a", [1]],
    list: [1, "a", ["a"], [1.5], {"a": 1}],
    tuple: [1, "ab", [0.9], [0.9, 0.9, 0.9], ["a", 0.9], {"a": 1}],
}


@pytest.mark.parametrize("key", sorted(RULES))
def test_wrong_type_of_every_key(key):
    """msgspec's complaint never shows through: the key, the value and what is allowed instead."""
    default = value_at(Config(), key)
    for value in WRONG_TYPES[type(default)]:
        data = value
        for part in reversed(key.split(".")):
            data = {part: data}
        text = sentence(data)
        assert text.startswith(f"configuration: {key} = ") and text.endswith(f"allowed is {RULES[key].allowed}")


BAD_VALUES = [
    ({"seed": -1}, "seed = -1: allowed is a whole number of at least 0"),
    ({"seed": 2**63}, "seed = 9223372036854775808: allowed is"),
    ({"task": {"function": ""}}, 'task.function = "": allowed is a built-in task\'s name, path/to/file.py:function or'),
    ({"task": {"function": "my_task.py"}}, 'task.function = "my_task.py": allowed is'),
    ({"task": {"function": "a.py:"}}, 'task.function = "a.py:": allowed is'),
    ({"task": {"function": ":f"}}, 'task.function = ":f": allowed is'),
    ({"task": {"function": "a.py:2"}}, 'task.function = "a.py:2": allowed is'),
    ({"task": {"micro_batches": 0}}, "task.micro_batches = 0: allowed is a whole number of at least 1"),
    ({"task": {"batch_size": 0}}, "task.batch_size = 0: allowed is a whole number of at least 1"),
    (
        {"task": {"partition": "random"}},
        'task.partition = "random": allowed is "iid", "dirichlet", "by_label" or "by_size"',
    ),
    (
        {"task": {"partition_options": {"alpha": 1}}},
        'task.partition_options = {alpha = 1}: task.partition = "iid" has no options; allowed is {}',
    ),
    ({"method": {"name": " "}}, 'method.name = " ": allowed is a name'),
    ({"method": {"rule": ""}}, 'method.rule = "": allowed is a name'),
    ({"method": {"step_size": 0.0}}, "method.step_size = 0.0: allowed is a finite number above 0"),
    ({"method": {"step_size": math.nan}}, "method.step_size = nan: allowed is a finite number above 0"),
    ({"method": {"jobs_per_worker": 0}}, "method.jobs_per_worker = 0: allowed is a whole number of at least 1"),
    (
        {"method": {"name": "minibatch", "jobs_per_worker": 2}},
        'method.jobs_per_worker = 2: method.name = "minibatch" gives each worker one job a round; allowed is 1',
    ),
    ({"optimizer": {"name": "lion"}}, 'optimizer.name = "lion": allowed is "sgd", "adam" or "adamw"'),
    ({"optimizer": {"momentum": 1}}, "optimizer.momentum = 1.0: allowed is a number from 0 to below 1"),
    ({"optimizer": {"nesterov": True}}, "optimizer.nesterov = true: it needs optimizer.momentum above 0"),
    (
        {"optimizer": {"name": "adam", "momentum": 0.9}},
        'optimizer.momentum = 0.9: only "sgd" has momentum, "adam" has betas; allowed is 0',
    ),
    ({"optimizer": {"name": "adam", "nesterov": True}}, 'optimizer.nesterov = true: only "sgd" has it'),
    ({"optimizer": {"weight_decay": -0.1}}, "optimizer.weight_decay = -0.1: allowed is a finite number of at least 0"),
    ({"optimizer": {"betas": [0.9, 1.0]}}, "optimizer.betas = [0.9, 1.0]: allowed is two numbers from 0 to below 1"),
    ({"optimizer": {"eps": 0}}, "optimizer.eps = 0.0: allowed is a finite number above 0"),
    ({"optimizer": {"clip_norm": -1}}, "optimizer.clip_norm = -1.0: allowed is a finite number of at least 0"),
    ({"schedule": {"name": "linear"}}, 'schedule.name = "linear": allowed is "constant", "cosine" or "step"'),
    ({"schedule": {"over": "epochs"}}, 'schedule.over = "epochs": allowed is "versions" or "samples"'),
    ({"schedule": {"gamma": 0}}, "schedule.gamma = 0.0: allowed is a number above 0 to 1"),
    ({"schedule": {"final_factor": 1.5}}, "schedule.final_factor = 1.5: allowed is a number from 0 to 1"),
    (
        {"schedule": {"name": "cosine"}, "budget": {"versions": 10}},
        'schedule.total = 0: "cosine" must know where it ends; set it, or budget.samples, to a number above 0',
    ),
    (
        {"schedule": {"name": "cosine", "total": 5, "warmup": 5}},
        'schedule.warmup = 5: "cosine" needs a warm-up shorter than its total; allowed is below schedule.total = 5',
    ),
    (
        {"schedule": {"name": "cosine", "warmup": 50, "over": "versions"}, "budget": {"versions": 10}},
        'schedule.warmup = 50: "cosine" needs a warm-up shorter than its total; allowed is below budget.versions = 10',
    ),
    ({"schedule": {"name": "step"}}, 'schedule.milestones = []: "step" needs at least one milestone, in samples'),
    ({"schedule": {"milestones": [5]}}, 'schedule.milestones = [5]: only schedule.name = "step" has milestones'),
    ({"schedule": {"name": "step", "milestones": [5, 5]}}, "schedule.milestones = [5, 5]: allowed is a list of rising"),
    ({"schedule": {"name": "step", "milestones": [0, 5]}}, "schedule.milestones = [0, 5]: allowed is a list of rising"),
    (
        {"schedule": {"name": "step", "milestones": [5], "total": 5}},
        "schedule.milestones = [5]: they must lie below schedule.total = 5",
    ),
    ({"cluster": {"num_workers": 0}}, "cluster.num_workers = 0: allowed is a whole number of at least 1"),
    ({"cluster": {"device": "gpu"}}, 'cluster.device = "gpu": allowed is "auto", "cpu", "cuda" or "cuda:N"'),
    ({"cluster": {"device": "cuda:"}}, 'cluster.device = "cuda:": allowed is'),
    ({"cluster": {"start_timeout_s": 0}}, "cluster.start_timeout_s = 0.0: allowed is a finite number above 0"),
    (
        {"cluster": {"min_lease_s": 5.0, "max_lease_s": 4.0}},
        "cluster.max_lease_s = 4.0: allowed is at least cluster.min_lease_s = 5",
    ),
    (
        {"cluster": {"max_server_restarts": -1}},
        "cluster.max_server_restarts = -1: allowed is a whole number of at least 0",
    ),
    ({"cluster": {"min_lease_s": math.inf}}, "cluster.min_lease_s = inf: allowed is a finite number above 0"),
    ({"cluster": {"speeds": {"factor": 0.5}}}, "cluster.speeds.factor = 0.5: allowed is a finite number of at least 1"),
    ({"cluster": {"speeds": {"alpha": 1}}}, "cluster.speeds.alpha = 1.0: allowed is a finite number above 1"),
    (
        {"cluster": {"speeds": {"profile": "outages", "outage_s": 10}}},
        "cluster.speeds.outage_s = 10.0: allowed is less than cluster.speeds.period_s = 10",
    ),
    ({"budget": {"versions": -1}}, "budget.versions = -1: allowed is a whole number of at least 0"),
    ({"budget": {"time_s": math.inf}}, "budget.time_s = inf: allowed is a finite number of at least 0"),
    ({"budget": {}}, "budget: a run needs an end; set at least one of versions, samples, gradients and time_s above 0"),
    ({"evaluation": {"evaluate": "always"}}, 'evaluation.evaluate = "always": allowed is "during", "after" or "never"'),
    ({"evaluation": {"batch_size": 0}}, "evaluation.batch_size = 0: allowed is a whole number of at least 1"),
    ({"checkpoints": {"keep": 0}}, "checkpoints.keep = 0: allowed is a whole number of at least 1"),
    ({"task": 3}, "task = 3: allowed is a table, [task]"),
    ({"task": [{}]}, "task = [{}]: allowed is a table, [task]"),
    ({"cluster": {"speeds": "real"}}, 'cluster.speeds = "real": allowed is a table, [cluster.speeds]'),
    ({"budget": {"versions": None}}, "budget.versions = None: TOML has no null; leave the key out for its default"),
    ({"task": {"options": {"a": [object()]}}}, "task.options.a[0] is of type object: allowed are booleans, numbers"),
    ({"task": {"options": {1: 2}}}, "the key 1 in task.options: allowed are strings"),
    ({"task": {"function": "x" * 500 + "!"}}, 'task.function = "xxxx'),
]


@pytest.mark.parametrize(("data", "expected"), BAD_VALUES)
def test_bad_value(data, expected):
    text = sentence({"budget": {"versions": 10, "samples": 0}, **data})
    assert text.startswith(f"configuration: {expected}")
    assert len(text) < 300


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            {"optimizer": {"momentun": 0.9}},
            "optimizer.momentun: there is no such key (did you mean optimizer.momentum?); allowed in [optimizer] are",
        ),
        (
            {"optimiser": {}},
            "[optimiser]: there is no such table (did you mean [optimizer]?); allowed at the top are seed,",
        ),
        ({"Seed": 1}, "Seed: there is no such key (did you mean seed?)"),
        ({"cluster": {"speed": {}}}, "[cluster.speed]: there is no such table (did you mean [cluster.speeds]?)"),
        (
            {"cluster": {"speeds": {"profil": "real"}}},
            "cluster.speeds.profil: there is no such key (did you mean cluster",
        ),
        ({"momentum": 0.9}, "momentum: there is no such key (did you mean optimizer.momentum?)"),
        ({"step_sise": 0.1}, "step_sise: there is no such key (did you mean method.step_size?)"),
        ({"optimizer": {"lr": 0.1}}, "optimizer.lr: there is no such key (did you mean method.step_size?)"),
        ({"xyzzy": 1}, "xyzzy: there is no such key; allowed at the top are seed, [task], [method], [optimizer]"),
        ({"method": {"options": {}, "seed": 1}}, "method.seed: there is no such key (did you mean seed?)"),
    ],
)
def test_unknown_key(data, expected):
    assert sentence({**data, **END}).startswith(f"configuration: {expected}")


def test_options_may_hold_any_key():
    options = {"whatever": 1, "seed": {"deep": True}}
    config = load_config({"task": {"options": options}, "method": {"rule_options": {"k": 2.0}}, **END})
    assert config.task.options == options and config.method.rule_options == {"k": 2.0}


@pytest.mark.parametrize(
    ("address", "good"),
    [
        ("ipc", True),
        ("ipc:///tmp/a b", True),
        ("tcp://127.0.0.1:5555", True),
        ("tcp://*:0", True),
        ("tcp://some-host.example:65535", True),
        ("tcp://[::1]:5555", True),
        ("tcp://host:65536", False),
        ("tcp://host", False),
        ("tcp://:5555", False),
        ("tcp://::1:5555", False),
        ("tcp://host:port", False),
        ("host:5555", False),
        ("ipc://", False),
        ("inproc://x", False),
        ("", False),
    ],
)
def test_address(address, good):
    data = {"cluster": {"address": address}, **END}
    if good:
        assert load_config(data).cluster.address == address
    else:
        assert sentence(data).endswith('allowed is "ipc", ipc://path or tcp://host:port with a port of at most 65535')


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[optimizer]\nname = adam\n", ", line 2, column 8: not TOML: invalid value (a string needs quotes)"),
        ("[optimizer", ", line 1, at the end: not TOML: expected ']' at the end of a table declaration"),
        ("seed = 1\nseed = 2\n", ", line 2, column 9: not TOML: cannot overwrite a value"),
        ("seed 1", ", line 1, column 6: not TOML: expected '=' after a key in a key/value pair"),
        (f"seed = {'9' * 5000}", ": not TOML: Exceeds the limit (4300 digits) for integer string conversion"),
        ("seed = -1\n", ": seed = -1: allowed is a whole number of at least 0"),
        ("", ": budget: a run needs an end"),
    ],
)
def test_bad_file_is_named_with_the_line(tmp_path, text, expected):
    path = written(tmp_path, text)
    assert sentence(path).startswith(f"{path}{expected}")


def test_unreadable_files(tmp_path):
    path = tmp_path / "run.toml"
    assert sentence(path) == f"{path}: there is no such file; a configuration is a TOML file"
    assert sentence(tmp_path) == f"{tmp_path}: this is a directory; a configuration is a TOML file"
    assert sentence("a\0b").startswith("a\0b: it can't be read: ")
    path.write_bytes(b"seed = 1\n# \xff\n")
    assert sentence(path) == f"{path}, line 2: byte 0xff is not UTF-8 text"
    assert sentence(7) == "a configuration is a path, a dict or a Config, not int"


def test_wrong_usage_ends_with_status_2():
    with pytest.raises(ConfigError) as caught:
        load_config({})
    assert caught.value.exit_status == 2
