"""The floors of the house: who may import whom, and what a floor must not even load."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "asgd"
FORBIDDEN_IN_CORE = {"time", "random", "secrets", "logging", "os", "io", "socket", "threading", "datetime", "pathlib"}


def imported(source: str) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted module) of every import, at the top or inside functions, in this package or another's."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import; write the module's full name"
            yield node.lineno, node.module or ""
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("__import__", "importlib.import_module"):
            assert not isinstance(node.args[0], ast.Constant), f"line {node.lineno}: write a plain import"


def imports_of(floor: str) -> list[tuple[str, str]]:
    """Return ("core/state.py:12", "asgd.errors") for every import of a package or a module of asgd."""
    path = PACKAGE / floor
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    assert files and all(file.is_file() for file in files), f"asgd/{floor} is gone; change this test with it"
    return [
        (f"{file.relative_to(PACKAGE)}:{line}", module) for file in files for line, module in imported(file.read_text())
    ]


def top(module: str) -> str:
    return module.partition(".")[0]


def test_import_contracts_hold():
    """The contracts are in pyproject.toml; import-linter also follows imports through other modules."""
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_core_and_errors_use_the_standard_library_alone():
    wrong = [
        f"{where} imports {module}"
        for where, module in imports_of("core") + imports_of("errors")
        if top(module) not in sys.stdlib_module_names and not module.startswith(("asgd.core", "asgd.errors"))
    ]
    assert not wrong


def test_core_has_no_clock_no_input_and_no_random_numbers():
    wrong = [f"{where} imports {module}" for where, module in imports_of("core") if top(module) in FORBIDDEN_IN_CORE]
    assert not wrong


def test_learn_has_no_clock():
    assert not [f"{where} imports {module}" for where, module in imports_of("learn") if top(module) == "time"]


def test_only_net_imports_zmq():
    wrong = [where for where, module in imports_of("") if top(module) == "zmq" and not where.startswith("net/")]
    assert not wrong


UNPICKLING = {"pickle", "cPickle", "_pickle", "shelve", "dill", "cloudpickle", "joblib", "marshal"}
# The one place where code is loaded: the task that the local configuration names.
LOADS_CODE = {("learn/task.py", "exec"), ("learn/task.py", "compile")}


def unsafe_calls(source: str) -> list[str]:
    """Calls that run what is in data, or may unpickle it: by name, whatever they are given."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if name in ("eval", "exec", "compile", "__import__", "builtins.eval", "builtins.exec"):
                found.append(name)
            elif name.endswith("torch.load") and keywords.get("weights_only") != "True":
                found.append("torch.load")
            elif name.split(".")[-1] in ("read_pickle", "loads_pickle", "unpickle") or "allow_pickle" in keywords:
                found.append(name)
    return found


def test_nothing_unpickles():
    """Neither what comes from a network nor what lies in a file is ever executed."""
    wrong = [f"{where} imports {module}" for where, module in imports_of("") if top(module) in UNPICKLING]
    for path in sorted(PACKAGE.rglob("*.py")):
        where = str(path.relative_to(PACKAGE))
        wrong += [f"{where} calls {name}" for name in unsafe_calls(path.read_text()) if (where, name) not in LOADS_CODE]
    assert not wrong


@pytest.mark.parametrize(
    "source",
    [
        "eval(x)",
        "exec(x, {})",
        "import torch\ntorch.load(f)",
        "torch.load(f, weights_only=False)",
        "numpy.load(f, allow_pickle=True)",
        "__import__(name)",
    ],
)
def test_every_form_of_unsafe_call_is_seen(source):
    assert unsafe_calls(source)
    assert not unsafe_calls("torch.load(f, weights_only=True); model.eval(); re.compile(x)")


@pytest.mark.parametrize(
    "source",
    ["import time", "import time as t", "from time import monotonic", "def f():\n    import time", "import time.x"],
)
def test_every_form_of_import_is_seen(source):
    assert "time" in {top(module) for _, module in imported(source)}


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("asgd", ("torch", "torchvision", "zmq")),
        ("asgd.core", ("torch", "numpy", "zmq", "msgspec")),
        ("asgd.config", ("torch", "numpy", "zmq")),
        ("asgd.net", ("torch", "numpy", "asgd.learn")),
        ("asgd.learn", ("zmq", "msgspec", "torchvision", "asgd.core", "asgd.net")),
    ],
)
def test_importing_a_floor_loads_nothing_of_others(module, unwanted):
    """In a process of its own: every module of the floor, so that what they bring along counts too."""
    path = PACKAGE.joinpath(*module.split(".")[1:])
    files = [] if module == "asgd" else sorted(path.rglob("*.py"))
    names = [module, *(".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files)]
    code = f"import importlib, sys\nfor n in {names!r}: importlib.import_module(n)\nprint(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.split()
    assert module in loaded
    assert [name for name in unwanted if name in loaded] == []
