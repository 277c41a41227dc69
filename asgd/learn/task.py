"""What is trained: a task (model, loss, data, metrics), and finding the one that a configuration names.

Legend of the suffixes: _B samples of a batch, _N samples of a data set, _P parameters.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from asgd.errors import AsgdError, ConfigError

BUILT_IN = "asgd.learn.tasks"


@runtime_checkable
class Data(Protocol):
    """Samples that can be taken by index; every batch is a pure function of the arguments of `batch`."""

    def __len__(self) -> int: ...

    def batch(self, indices_B: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Return (inputs_B, targets_B) of these indices; augment with `generator` only, not at all when it is None."""
        ...


@dataclass(frozen=True, eq=False)
class TensorData:
    """Data held in memory as two tensors, with an optional transform of whole batches.

    Arguments: inputs_N and targets_N: tensors with the same first dimension N >= 1, of any type (images as uint8 save
    memory); transform: called as transform(inputs_B, generator) -> inputs_B, for training (with a generator, to draw
    all its random numbers from) and for evaluation (generator None: normalise, but do not augment).
    Errors: ConfigError when the lengths differ or are 0.

    Example:
        >>> import torch
        >>> data = TensorData(torch.arange(6.0).reshape(3, 2), torch.tensor([0, 1, 0]))
        >>> data.batch(torch.tensor([2, 0]), None)[0].tolist()
        [[4.0, 5.0], [0.0, 1.0]]
    """

    inputs_N: Tensor
    targets_N: Tensor
    transform: Callable[[Tensor, torch.Generator | None], Tensor] | None = None

    def __post_init__(self) -> None:
        for name, tensor in (("inputs", self.inputs_N), ("targets", self.targets_N)):
            if not isinstance(tensor, Tensor) or tensor.ndim == 0 or len(tensor) == 0:
                shape = list(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
                raise ConfigError(f"TensorData: {name} must be a tensor of at least one sample, not {shape}")
        if len(self.inputs_N) != len(self.targets_N):
            raise ConfigError(
                f"TensorData: {len(self.inputs_N)} inputs but {len(self.targets_N)} targets; allowed: as many"
            )

    def __len__(self) -> int:
        return len(self.inputs_N)

    def batch(self, indices_B: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Return the inputs (transformed) and targets of these indices."""
        inputs_B = self.inputs_N[indices_B]
        if self.transform is not None:
            inputs_B = self.transform(inputs_B, generator)
        return inputs_B, self.targets_N[indices_B]


@dataclass(frozen=True, eq=False)
class Known:
    """What a problem knows about itself; None where it does not.

    Arguments: smoothness: L, the Lipschitz constant of the gradient of f (the mean loss over the training data);
    sigma2: sigma^2, the variance E||grad F(x, xi) - grad f(x)||^2 of a stochastic gradient of ONE sample, at the
    minimiser or as a bound (batches of B divide it by B); optimum_value: f*, the least value of f; minimiser_P: a
    minimiser, the parameters in the model's order, flattened and joined without the padding of the flat layout.
    """

    smoothness: float | None = None
    sigma2: float | None = None
    optimum_value: float | None = None
    minimiser_P: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Task:
    """Everything that training needs: a model, a loss, data, metrics.

    Arguments: model: makes a fresh model; called under a fixed seed, so that every process gets the same one;
    loss: (outputs_B, targets_B) -> scalar tensor, the MEAN over the batch; train, test: Data (test None: nothing to
    evaluate on); metrics: name -> function (outputs_B, targets_B) -> scalar tensor, means over the batch
    (classification tasks have "accuracy"); known: constants of the problem, if it knows them.
    Errors: ConfigError that names the field.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> points_N, targets_N = torch.randn(64, 3), torch.randn(64, 1)
        >>> task = Task(lambda: nn.Linear(3, 1), nn.functional.mse_loss, TensorData(points_N, targets_N))
        >>> len(task.train)
        64
    """

    model: Callable[[], nn.Module]
    loss: Callable[[Tensor, Tensor], Tensor]
    train: Data
    test: Data | None = None
    metrics: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = field(default_factory=dict)
    known: Known | None = None

    def __post_init__(self) -> None:
        if isinstance(self.model, nn.Module):
            raise ConfigError("Task: model must be a function that makes a model (write `lambda: ...`), not a model")
        for name in ("model", "loss"):
            if not callable(getattr(self, name)):
                raise ConfigError(f"Task: {name} must be a function, not {type(getattr(self, name)).__name__}")
        for name in ("train", "test"):
            data = getattr(self, name)
            if data is None and name == "test":
                continue
            if not isinstance(data, Data):
                raise ConfigError(
                    f"Task: {name} must have __len__() and batch(indices_B, generator), as TensorData has; "
                    f"{type(data).__name__} has not"
                )
            if len(data) < 1:
                raise ConfigError(f"Task: {name} has no samples; it needs at least one")
        if not isinstance(self.metrics, Mapping) or not all(callable(metric) for metric in self.metrics.values()):
            raise ConfigError("Task: metrics must map names to functions of (outputs_B, targets_B)")
        if "loss" in self.metrics:
            raise ConfigError("Task: a metric can't be named 'loss': the loss is always reported under that name")


def load_task(function: str, options: Mapping[str, Any], data_root: Path, seed: int, download: bool) -> Task:
    """Find the function that a configuration names, call it, and return the task it makes.

    Arguments: function: a built-in task's name, `path/to/file.py:function` (relative to the working directory) or
    `package.module:function`; options: keyword arguments for it; data_root, seed, download: passed to functions that
    have parameters of these names (an option `seed` replaces the run's seed).
    Nothing is cached: a file is executed anew at every call; its module stays in sys.modules under a name of its own.
    Errors: ConfigError in one sentence for whatever goes wrong, in the task's own code too; the cause is chained.

    Example:
        task = load_task("my_task.py:images", {"width": 32}, Path("data"), seed=0, download=False)
    """
    name, where, directory = _split(function)
    with _importable(directory):
        maker = _maker(function, name, where)
        arguments = _arguments(function, maker, options, {"data_root": data_root, "seed": seed, "download": download})
        try:
            task = maker(**arguments)
        except AsgdError:
            raise  # already one sentence, for instance a data root without data
        except (Exception, SystemExit) as error:
            raise _failed(f"task.function = {function!r}: {name}() in {where} failed", where, error) from error
    if not isinstance(task, Task):
        raise ConfigError(
            f"task.function = {function!r}: {name}() in {where} must return an asgd Task, not {type(task).__name__}"
        )
    return task


def depends_on_seed(function: str) -> bool:
    """Whether the task that a configuration names may differ between seeds: its function has a parameter `seed`.

    Errors: ConfigError in one sentence when there is no such function; a file is executed, as by `load_task`.

    Example:
        >>> depends_on_seed("quadratic")
        False
    """
    name, where, directory = _split(function)
    with _importable(directory):
        return "seed" in inspect.signature(_maker(function, name, where)).parameters


def _split(function: str) -> tuple[str, Path | str, Path | None]:
    """Return (the function's name, its file or module, the directory that its imports may come from)."""
    where, colon, name = function.rpartition(":")
    if not colon:
        makers = _functions(importlib.import_module(BUILT_IN))
        if function not in makers:
            raise ConfigError(
                f"task.function = {function!r} is not a built-in task; allowed: {', '.join(makers)}, "
                "path/to/file.py:function or package.module:function"
            )
        return function, BUILT_IN, None
    if not where or not name.isidentifier():
        raise ConfigError(
            f"task.function = {function!r}: write it as path/to/file.py:function or package.module:function"
        )
    if where.endswith(".py") or "/" in where or "\\" in where:
        path = Path(where).expanduser().absolute()
        if not path.is_file():
            raise ConfigError(f"task.function = {function!r}: there is no file {path}")
        return name, path, path.parent
    return name, where, Path.cwd()


@contextmanager
def _importable(directory: Path | None) -> Iterator[None]:
    """Let imports find the modules of a directory, as for a script started there, and only for this long."""
    if directory is None:
        yield
        return
    entry = str(directory)
    importlib.invalidate_caches()
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        if entry in sys.path:
            sys.path.remove(entry)


def _maker(function: str, name: str, where: Path | str) -> Callable[..., Any]:
    """Return the function of that name in a file or module; refuse anything else."""
    module = _load_module(function, where)
    maker = getattr(module, name, None)
    if not inspect.isfunction(maker) and not (callable(maker) and not isinstance(maker, type)):
        found = "there is none" if maker is None else f"it is a {type(maker).__name__}"
        raise ConfigError(
            f"task.function = {function!r}: {where} must have a function {name}, but {found}; "
            f"functions there: {', '.join(_functions(module)) or 'none'}"
        )
    return maker


def _load_module(function: str, where: Path | str) -> ModuleType:
    """Import a module by name, or execute a file as a module with a name that no other file has."""
    try:
        if isinstance(where, str):
            try:
                return importlib.import_module(where)
            except ModuleNotFoundError as error:
                if error.name is None or not f"{where}.".startswith(f"{error.name}."):
                    raise  # the module is there; something that it imports is not
                raise ConfigError(f"task.function = {function!r}: there is no module named {error.name}") from error
        unique = f"asgd_task_{where.stem}_{hashlib.sha256(str(where).encode()).hexdigest()[:12]}"
        spec = importlib.util.spec_from_file_location(unique, where)
        if spec is None:
            raise ConfigError(f"task.function = {function!r}: {where} is not a Python file (*.py)")
        module = importlib.util.module_from_spec(spec)
        # Registered before it runs, as the import system does: dataclasses and typing look their module up there.
        sys.modules[unique] = module
        try:
            # Compiled here and not by the loader, whose bytecode cache can miss an edit within the same second.
            exec(compile(where.read_bytes(), str(where), "exec"), module.__dict__)
        except BaseException:
            sys.modules.pop(unique, None)
            raise
        return module
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        raise _failed(f"task.function = {function!r}: {where} failed when it was imported", where, error) from error


def _functions(module: ModuleType) -> list[str]:
    """Return the public functions that a module defines itself: those annotated to return a Task, if any are."""
    members = inspect.getmembers(module, inspect.isfunction)
    own = {n: member for n, member in members if not n.startswith("_") and member.__module__ == module.__name__}
    makers = [name for name, member in own.items() if member.__annotations__.get("return") in (Task, "Task")]
    return makers or list(own)


def _arguments(
    function: str, maker: Callable[..., Any], options: Mapping[str, Any], context: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the keyword arguments to call a task's function with; refuse what it does not take."""
    parameters = inspect.signature(maker).parameters.values()
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    allowed = [name for name in named if name not in ("data_root", "download")]
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for name in options:
        if name in ("data_root", "download") or (name not in allowed and not open_ended):
            raise ConfigError(
                f"task.options.{name}: {function!r} has no such option; allowed: {', '.join(allowed) or 'none'}"
            )
    arguments = {name: value for name, value in context.items() if name in named} | dict(options)
    required = [p.name for p in parameters if p.name in allowed and p.default is p.empty and p.name not in arguments]
    if required:
        raise ConfigError(f"task.options: {function!r} needs a value for {', '.join(required)}")
    return arguments


def _failed(what: str, where: Path | str, error: BaseException) -> ConfigError:
    """Return the sentence for an exception in a task's own code, with the line of the file that was running."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(where)]
    at = f" (line {lines[-1]})" if lines else ""
    message = " ".join(str(error).split())
    if len(message) > 400:
        message = f"{message[:400]}..."
    return ConfigError(f"{what}{at}: {type(error).__name__}{': ' if message else ''}{message}")
