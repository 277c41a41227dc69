"""What a run warns of before it begins."""

from __future__ import annotations

import pytest

from asgd.config import load_config
from asgd.core.methods import METHODS
from asgd.learn.tasks import quadratic
from asgd.run.misfits import data_warning, optimizer_warning
from asgd.run.opening import opening_lines


def configured(*overrides):
    return load_config({"budget": {"versions": 10}}, overrides)


@pytest.mark.parametrize(
    ("name", "method", "rule", "causes"),
    [
        ("iid", "asynchronous", "scale", ()),
        ("dirichlet", "asynchronous", "scale", ("method asynchronous", "rule scale")),
        ("by_label", "asynchronous", "drop", ("method asynchronous", "rule drop")),
        ("by_size", "asynchronous", "constant", ("method asynchronous",)),
        ("dirichlet", "minibatch", "scale", ()),
        ("dirichlet", "random_assignment", "scale", ("rule scale",)),
        ("dirichlet", "random_assignment", "constant", ()),
        ("dirichlet", "rescaled", "staleness_aware", ("rule staleness_aware",)),
        ("dirichlet", "clipped", "scale", ("method clipped",)),
        ("dirichlet", "ringleader", "scale", ()),
    ],
)
def test_different_data(name, method, rule, causes):
    warning = data_warning(configured(f"task.partition={name}", f"method.name={method}", f"method.rule={rule}"))
    assert (warning is None) == (not causes)
    for cause in (f"method {method}", f"rule {rule}"):
        assert (cause in causes) == (cause in (warning or ""))


def test_all_of_m_synchronous_is_mini_batch():
    of_all = configured("task.partition=by_size", "method.name=m_synchronous")
    of_two = configured("task.partition=by_size", "method.name=m_synchronous", "method.options={m = 2}")
    assert data_warning(of_all) is None
    assert "method m_synchronous" in data_warning(of_two)


@pytest.mark.parametrize(
    ("method", "optimizer", "causes"),
    [
        ("throttle", (), ()),
        ("throttle", ("momentum=0.9",), ("optimizer.momentum = 0.9",)),
        (
            "throttle",
            ("momentum=0.9", "weight_decay=0.01"),
            ("optimizer.momentum = 0.9", "optimizer.weight_decay = 0.01"),
        ),
        ("throttle", ("name=adam",), ('optimizer.name = "adam"',)),
        ("rescaled", ("momentum=0.9", "weight_decay=0.01"), ()),
        ("rescaled", ("name=adamw",), ('optimizer.name = "adamw"',)),
        ("asynchronous", ("name=adam",), ()),
    ],
)
def test_optimizers_that_do_not_go_by_the_weights(method, optimizer, causes):
    config = configured(f"method.name={method}", *(f"optimizer.{option}" for option in optimizer))
    warning = optimizer_warning(config)
    assert (warning or "").startswith(f"warning: {', '.join(causes)}: method {method}" if causes else "")
    assert opening_lines(config, quadratic(), None) == ([warning] if causes else [])


def test_every_method_says_by_what_it_favours_fast_workers():
    assert all(set(info.favours_fast) <= {"method", "rule"} for info in METHODS.values())
