"""Every configuration that is shipped loads, and names a method, a rule and speeds that exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from asgd.bench.minibatch.plan import load_plan
from asgd.config import load_config
from asgd.core.methods import METHODS
from asgd.run.build import validate

EVERY = sorted((Path(__file__).parents[1] / "configs").rglob("*.toml"))
BENCHMARKS = [path for path in EVERY if path.name.startswith("benchmark_")]
CONFIGS = [path for path in EVERY if path not in BENCHMARKS]


def test_there_are_some():
    assert len(CONFIGS) >= 15


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_loads(path):
    validate(load_config(path))


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_benchmark_loads(path):
    load_plan(path)


def test_every_method_has_a_configuration():
    named = {load_config(path).method.name for path in CONFIGS if path.parent.name == "methods"}
    assert named == set(METHODS)
