from __future__ import annotations

import doctest
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from asgd.errors import ConfigError
from asgd.learn import task as task_module
from asgd.learn.task import Data, Task, TensorData, depends_on_seed, load_task

GOOD = """
from __future__ import annotations
from dataclasses import dataclass
import torch
from torch import nn
from asgd.learn.task import Task, TensorData

@dataclass
class Options:
    width: int

def line(width: int = 2, seed: int = 5, data_root=None, download=None) -> Task:
    data = TensorData(torch.zeros(4, Options(width).width), torch.zeros(4, 1))
    task = Task(lambda: nn.Linear(width, 1), nn.functional.mse_loss, data)
    CALLS.append((width, seed, data_root, download))
    return task

CALLS = []
"""


def load(function: str, options: dict[str, object] | None = None, seed: int = 3) -> Task:
    return load_task(function, options or {}, Path("data"), seed=seed, download=True)


def write(directory: Path, text: str, name: str = "mine.py") -> str:
    (directory / name).write_text(text)
    return str(directory / name)


def sentence(function: str, options: dict[str, object] | None = None) -> str:
    """Return the message of the ConfigError that loading ends with; it must be one line."""
    with pytest.raises(ConfigError) as caught:
        load(function, options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_examples() -> None:
    assert doctest.testmod(task_module).failed == 0


def test_a_function_of_a_file_is_called_with_options_and_context(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    before = list(sys.path)
    task = load(f"{path}:line", {"width": 7})
    assert task.train.batch(torch.tensor([0]), None)[0].shape == (1, 7)
    (name,) = (name for name in sys.modules if name.startswith("asgd_task_mine_"))
    calls = sys.modules[name].CALLS
    assert calls == [(7, 3, Path("data"), True)]
    assert sys.path == before


def test_an_option_seed_replaces_the_runs_seed(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD.replace("return task", "object.__setattr__(task, 'metrics', seed)\n    return task"))
    assert load(f"{path}:line", {"seed": 11}).metrics == 11
    assert load(f"{path}:line").metrics == 3


def test_nothing_is_cached_and_nothing_is_written_beside_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)  # the environment may have switched it off
    path = write(tmp_path, GOOD.replace("width: int = 2", "width: int = 3"))
    first = load(f"{path}:line")
    write(tmp_path, GOOD.replace("width: int = 2", "width: int = 4"))  # same size, and most likely the same second
    second = load(f"{path}:line")
    widths = [task.train.batch(torch.tensor([0]), None)[0].shape[1] for task in (first, second)]
    assert widths == [3, 4]
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine.py"]


def test_files_of_the_same_name_are_different_modules(tmp_path: Path) -> None:
    paths = []
    for width in (3, 4):
        (tmp_path / str(width)).mkdir()
        paths.append(write(tmp_path / str(width), GOOD.replace("width: int = 2", f"width: int = {width}"), "same.py"))
    for path in paths:
        load(f"{path}:line")
    assert len([name for name in sys.modules if name.startswith("asgd_task_same_")]) == 2


def test_a_file_may_import_its_neighbours_and_a_path_may_be_relative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "WIDTH = 9\n", "neighbour_of_mine.py")
    write(tmp_path, GOOD.replace("import torch\n", "import torch\nfrom neighbour_of_mine import WIDTH\n", 1))
    monkeypatch.chdir(tmp_path)
    load("./mine.py:line")
    load("mine.py:line")
    assert str(tmp_path) not in sys.path


def test_a_function_of_a_module_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "package_of_mine").mkdir()
    write(tmp_path / "package_of_mine", "")
    write(tmp_path / "package_of_mine", GOOD, "tasks.py")
    monkeypatch.chdir(tmp_path)
    assert len(load("package_of_mine.tasks:line").train) == 4


@pytest.mark.parametrize(
    ("text", "function", "options", "parts"),
    [
        (GOOD, "lime", {}, ["lime", "there is none", "line"]),
        (GOOD, "CALLS", {}, ["CALLS", "list"]),
        (GOOD, "Options", {}, ["Options", "type"]),
        (GOOD, "line", {"with": 3}, ["task.options.with", "width, seed"]),
        (GOOD, "line", {"data_root": "x"}, ["task.options.data_root", "width, seed"]),
        (GOOD, "line", {"width": "x"}, ["line()", "mine.py", "(line 13)", "TypeError"]),
        ("def f(depth): return 1", "f", {}, ["needs a value for depth"]),
        ("def f(): return 1", "f", {}, ["f() in", "mine.py", "must return an asgd Task, not int"]),
        ("def f():\n    raise ValueError('a\\n b')", "f", {}, ["f()", "mine.py", "(line 2)", "ValueError: a b"]),
        ("def f():\n    import sys; sys.exit(4)", "f", {}, ["f()", "mine.py", "SystemExit: 4"]),
        ("def f():\n    raise KeyError", "f", {}, ["KeyError"]),
        ("import no_such_thing", "f", {}, ["mine.py", "(line 1)", "ModuleNotFoundError", "no_such_thing"]),
        ("def f(:", "f", {}, ["mine.py", "SyntaxError"]),
    ],
)
def test_what_goes_wrong_in_a_file_is_one_sentence(
    tmp_path: Path, text: str, function: str, options: dict[str, object], parts: list[str]
) -> None:
    path = write(tmp_path, text)
    message = sentence(f"{path}:{function}", options)
    assert [part for part in parts if part not in message] == [], message


@pytest.mark.parametrize("text", ["raise ValueError('no')", "def f(): raise ValueError('no')"])
def test_the_cause_is_chained(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(f"{path}:f")
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_module_that_failed_is_not_kept(tmp_path: Path) -> None:
    sentence(write(tmp_path, "raise ValueError('no')", "fails_at_import.py") + ":f")
    assert not [name for name in sys.modules if name.startswith("asgd_task_fails_at_import_")]


def test_a_config_error_of_a_task_passes_unchanged(tmp_path: Path) -> None:
    path = write(tmp_path, "from asgd.errors import ConfigError\ndef f(): raise ConfigError('no data in x')")
    assert sentence(f"{path}:f") == "no data in x"


@pytest.mark.parametrize(
    ("function", "part"),
    [
        ("nowhere/at_all.py:f", "there is no file"),
        ("no_such_package.tasks:f", "there is no module named no_such_package"),
        ("json.no_such_part:f", "there is no module named json.no_such_part"),
        ("json:no_such_function", "there is none"),
        ("mine.py:", "path/to/file.py:function"),
        (":f", "path/to/file.py:function"),
        ("no-such-task", "not a built-in task; allowed: "),
        ("", "not a built-in task"),
    ],
)
def test_what_cannot_be_found_is_one_sentence(function: str, part: str) -> None:
    message = sentence(function)
    assert part in message
    assert repr(function) in message


def test_an_unknown_built_in_names_those_that_there_are() -> None:
    message = sentence("shape")
    assert "shapes" in message.split("allowed:")[1]
    assert "load_task" not in message


def test_tensor_data_transforms_whole_batches() -> None:
    seen: list[torch.Generator | None] = []

    def transform(inputs_B: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        seen.append(generator)
        return inputs_B.float() / 2

    data = TensorData(torch.arange(5, dtype=torch.uint8), torch.arange(5) * 10, transform)
    generator = torch.Generator()
    inputs_B, targets_B = data.batch(torch.tensor([3, 1]), generator)
    assert (inputs_B.tolist(), targets_B.tolist(), len(data)) == ([1.5, 0.5], [30, 10], 5)
    data.batch(torch.tensor([0]), None)
    assert seen == [generator, None]
    assert isinstance(data, Data)


@pytest.mark.parametrize("targets", [torch.zeros(3), torch.zeros(0), torch.tensor(1.0), [1, 2]])
def test_tensor_data_refuses_targets_that_do_not_fit(targets: torch.Tensor) -> None:
    with pytest.raises(ConfigError, match="targets"):
        TensorData(torch.zeros(4), targets)


class NoSamples:
    def __len__(self) -> int:
        return 0

    def batch(self, indices_B: torch.Tensor, generator: torch.Generator | None) -> None: ...


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", nn.Linear(1, 1)),
        ("model", None),
        ("loss", 3),
        ("train", None),
        ("train", [1, 2]),
        ("train", NoSamples()),
        ("test", torch.zeros(3)),
        ("metrics", {"accuracy": 0.5}),
        ("metrics", {"loss": nn.functional.mse_loss}),
    ],
)
def test_a_task_refuses_a_field_of_the_wrong_kind(field: str, value: object) -> None:
    data = TensorData(torch.zeros(4, 1), torch.zeros(4, 1))
    fields = {"model": lambda: nn.Linear(1, 1), "loss": nn.functional.mse_loss, "train": data}
    Task(**fields)  # as it is, it is accepted
    with pytest.raises(ConfigError, match=field.removesuffix("s")):
        Task(**{**fields, field: value})


def test_whether_a_task_depends_on_the_runs_seed(tmp_path):
    (tmp_path / "mine.py").write_text("def fixed(width=1): ...\ndef drawn(*, seed): ...\n")
    assert not depends_on_seed(f"{tmp_path / 'mine.py'}:fixed")
    assert depends_on_seed(f"{tmp_path / 'mine.py'}:drawn")
    with pytest.raises(ConfigError, match="must have a function other, but there is none"):
        depends_on_seed(f"{tmp_path / 'mine.py'}:other")
