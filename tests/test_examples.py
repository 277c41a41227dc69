"""The examples in the docstrings are true."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import asgd

MODULES = [
    module.name
    for module in pkgutil.walk_packages(asgd.__path__, "asgd.")
    if module.name not in ("asgd.__main__", "asgd.run.launcher")  # programs
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


def test_the_core_has_examples():
    """They are only counted here; each module's own test runs them."""
    finder = doctest.DocTestFinder()
    counts = {
        name: sum(len(test.examples) for test in finder.find(importlib.import_module(name), name)) for name in MODULES
    }
    assert sum(counts[name] for name in counts if name.startswith("asgd.core.")) > 20
    assert sum(counts.values()) > 60
