"""What a run leaves, from Python: its rows and summary, and its model as a plain torch module.

Legend of the suffixes: _S parameters and buffers in one flat vector with padding.
"""

from __future__ import annotations

import contextlib
import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from asgd.config import Config, load_config
from asgd.core.trace import TraceRow
from asgd.errors import ConfigError, RunError
from asgd.run.files import reason_of
from asgd.run.formats import MetricsRow, Summary
from asgd.run.paths import resolve_data_root
from asgd.run.records import CHECKPOINTS, CONFIG, RunDirectory

# Torch takes seconds to import: only what needs a model imports it, and reading a summary doesn't.
if TYPE_CHECKING:
    from torch import Tensor, nn

    from asgd.learn.flat import FlatModel
    from asgd.run.checkpoints import Checkpoint


class Run:
    """A run that has ended (or is going on), read from its directory; everything is read when it is first asked for.

    Arguments:
        path: the run's directory.
        data_root: where the task's data is; the environment variable ASGD_DATA, else `data/`, when None.

    Attributes: path; config; trace, metrics (typed rows in order); summary (an error before the run has ended); notes:
        sentences about what was odd, such as a torn last line or a damaged checkpoint.

    Errors: `RunError` when the directory is not a run's or something in it is damaged.

    Example:
        >>> import tempfile
        >>> from asgd.config import load_config, to_toml
        >>> path = Path(tempfile.mkdtemp()) / "first"
        >>> RunDirectory.create(path, to_toml(load_config({"seed": 3, "budget": {"versions": 10}}))).close()
        >>> run = Run(path)
        >>> run.config.seed, run.trace, run.is_finished
        (3, [], False)
    """

    def __init__(self, path: Path | str, data_root: Path | str | None = None) -> None:
        self._directory = RunDirectory.open(path)
        self.path = self._directory.path
        self._data_root = resolve_data_root(data_root)
        self.notes = self._directory.notes

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @cached_property
    def config(self) -> Config:
        """The configuration with every default, from config.toml."""
        return load_config(self.path / CONFIG)

    @cached_property
    def trace(self) -> list[TraceRow]:
        """One row per arrival, in order."""
        return self._directory.read_trace()

    @cached_property
    def metrics(self) -> list[MetricsRow]:
        """One row per evaluation."""
        return self._directory.read_metrics()

    @cached_property
    def summary(self) -> Summary:
        """The numbers of the whole run; `RunError` when it has not ended."""
        return self._directory.read_summary()

    @property
    def is_finished(self) -> bool:
        """Whether the run has ended and written its summary."""
        return self._directory.is_finished()

    def checkpoint(self, version: int | None = None) -> Checkpoint:
        """The checkpoint of a version, or the newest whole one.

        Errors: `RunError` when there is none, with the versions that there are.
        """
        from asgd.run import checkpoints

        directory = self.path / CHECKPOINTS
        kept = dict(checkpoints.list_checkpoints(directory))
        if version is None:
            newest, notes = checkpoints.newest_good(directory)
            self.notes.extend(notes)
            if newest is None:
                what = f"No checkpoint of {self.path} is whole" if kept else f"{self.path} has no checkpoint"
                raise RunError(" ".join([f"{what}.", *notes]))
            return newest
        if version not in kept:
            there = ", ".join(map(str, kept)) or "none"
            raise RunError(f"{self.path} has no checkpoint of version {version}; it has: {there}.")
        return checkpoints.load(kept[version])

    def model(self, version: int | None = None) -> nn.Module:
        """The trained model, in eval mode: the task's own module with parameters and buffers of a checkpoint.

        The module is plain: its tensors are its own, and nothing of this package is attached to it.

        Arguments:
            version: which checkpoint; the newest when None.

        Errors: `RunError` when there is no such checkpoint, or the task now makes another model than in the run;
        `ConfigError` when the task cannot be loaded.
        """
        return self._model_of(self.checkpoint(version))

    def _model_of(self, checkpoint: Checkpoint) -> nn.Module:
        from asgd.learn.gradient import build_model
        from asgd.learn.task import load_task

        task_config, seed = self.config.task, self.config.seed
        task = load_task(task_config.function, task_config.options, self._data_root, seed, task_config.download)
        flat = build_model(task, seed, "cpu")
        return plain_module(flat, fitting_state(checkpoint, flat, self.path, task_config.function))


def fitting_state(checkpoint: Checkpoint, flat: FlatModel, path: Path, function: str) -> Tensor:
    """The parameters and buffers of a checkpoint, for this model.

    Errors: RunError when the model, which task `function` makes now, has others than that of the run in `path`.
    """
    from asgd.run.checkpoints import STATE_S

    state_S = checkpoint.tensors.get(STATE_S)
    digest = checkpoint.state.get("layout", flat.layout.digest)
    if state_S is None or state_S.shape != (flat.layout.size_S,) or digest != flat.layout.digest:
        raise RunError(
            f"The checkpoint of version {checkpoint.version} of {path} does not fit the model that task "
            f"{function!r} makes now: the task has changed since the run."
        )
    return state_S


def plain_module(flat: FlatModel, state_S: Tensor) -> nn.Module:
    """The model's module with these values, in eval mode; its tensors are its own, so the flat model is used up."""
    tensors = flat.named_tensors(state_S)
    module = flat.module
    for parameter in module.parameters():
        parameter.data = parameter.data.clone()  # no longer a view of the flat vector
        parameter.grad = None
    for buffer in module.buffers():
        buffer.data = buffer.data.clone()
    module.load_state_dict(tensors)
    return module.eval()


def export(run: Run | Path | str, file: Path | str, version: int | None = None) -> Path:
    """Write a run's named parameters and buffers to a safetensors file, for `model.load_state_dict(load_file(file))`.

    Arguments:
        run: the run, or its directory.
        file: ends in .safetensors; replaced when it exists, in one step.
        version: which checkpoint; the newest when None.

    Errors: those of `Run.model`; `ConfigError` for another ending; `RunError` when the file cannot be written.
    """
    run, path = run if isinstance(run, Run) else Run(run), Path(file)
    _check_ending(path)
    checkpoint = run.checkpoint(version)
    # Cloned, because tied parameters share memory and the format has no word for that.
    tensors = {
        name: tensor.detach().clone().contiguous() for name, tensor in run._model_of(checkpoint).state_dict().items()
    }
    return write_named(path, tensors, run.config.task.function, checkpoint.version)


def _check_ending(path: Path) -> None:
    if path.suffix != ".safetensors":
        raise ConfigError(f"The file to export to is {str(path)!r}, and its name must end in .safetensors.")


def write_named(path: Path, tensors: dict[str, Tensor], task: str, version: int) -> Path:
    """Write named tensors that share no memory to a safetensors file, in one step; errors as of `export`."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    _check_ending(path)
    metadata = {"format": "pt", "task": task, "version": str(version)}
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        save_file(tensors, temporary, metadata=metadata)
        os.replace(temporary, path)
    except OSError as error:
        raise RunError(f"{path} cannot be written: {reason_of(error)}.") from error
    except SafetensorError as error:
        raise RunError(f"{path} cannot be written: {error}.") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return path
