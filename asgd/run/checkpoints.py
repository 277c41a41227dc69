"""Checkpoints: one safetensors file each, written beside and renamed into place, with a hash of all that it holds.

What can go wrong and what is left then: a crash or a full disk while writing leaves the earlier checkpoints as they
were (and after a crash a temporary file, which the next `save` removes); a file damaged later (cut short, a flipped
bit) does not match its hash, and `newest_good` falls back to the one before it and says so.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from asgd.errors import RunError
from asgd.run.files import reason_of, sync_directory

STATE_S = "state_S"  # the name of the tensor that holds parameters and buffers, flat
FORMAT = "asgd-checkpoint-1"
_NAME = re.compile(r"version-(\d{12})\.safetensors")
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


class Checkpoint(NamedTuple):
    """What `save` was given: the tensors, the state and the version."""

    tensors: dict[str, Tensor]
    state: dict[str, Any]
    version: int


def save(
    directory: Path | str, tensors: Mapping[str, Tensor], state: Mapping[str, Any], version: int, keep: int = 2
) -> Path:
    """Write a checkpoint so that it exists whole or not at all, then delete all but the newest `keep`.

    A checkpoint of the same version is replaced. Those of later versions are deleted: they belong to a history that was
    undone (they could not be read, so the run went on from an earlier one).

    Arguments:
        directory: the run's `checkpoints/`; made when it is not there.
        tensors: name -> tensor of any shape; not changed, and free to change again when this returns.
        state: what else is needed to go on, JSON-able, keys of every dict strings, numbers finite.
        version: the server's version, 0 to 10^12 - 1.
        keep: how many checkpoints stay, at least 1.

    Errors: `RunError` when it cannot be written (disk full, no permission) or the state is not JSON; the earlier
    checkpoints stay as they are.

    Example:
        >>> import tempfile
        >>> directory = tempfile.mkdtemp()
        >>> _ = save(directory, {"state_S": torch.ones(3)}, {"arrivals": 7}, version=5)
        >>> checkpoint, notes = newest_good(directory)
        >>> checkpoint.tensors["state_S"].tolist(), checkpoint.state, checkpoint.version, notes
        ([1.0, 1.0, 1.0], {'arrivals': 7}, 5, [])

    Source: the file format is https://github.com/huggingface/safetensors (8 bytes of header length, a JSON header, the
    tensors' bytes); it is written here, and not by its library, so that each vector goes to the file without a copy and
    is on the disk before the rename.
    """
    if keep < 1 or not 0 <= version < 10**12:
        raise RunError(f"A checkpoint has a version from 0 to 10^12 - 1 and keep is at least 1, not {version}, {keep}.")
    directory = Path(directory)
    path = directory / f"version-{version:012d}.safetensors"
    temporary = path.with_suffix(".tmp")
    text = _to_json(state, path)
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES:
            raise RunError(f"The checkpoint {path} cannot be written: tensor {name!r} has type {tensor.dtype}.")
    views = {name: _bytes_of(tensors[name]) for name in sorted(tensors)}
    header = _header(tensors, views, text, version)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for left_behind in directory.glob("version-*.tmp"):
            left_behind.unlink(missing_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(header)
                for view in views.values():
                    file.write(view)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_directory(directory)
        found = list_checkpoints(directory)
        for other, other_path in found:
            if other > version:
                other_path.unlink(missing_ok=True)
        for _, old_path in [item for item in found if item[0] <= version][:-keep]:
            old_path.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(
            f"The checkpoint {path} cannot be written: {reason_of(error)}; the earlier ones are as they were."
        ) from error
    return path


def newest_good(directory: Path | str) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is whole, or None, and a sentence about each newer one that is damaged.

    Arguments:
        directory: the run's `checkpoints/`; one that does not exist holds no checkpoint.
    """
    notes: list[str] = []
    for _, path in reversed(list_checkpoints(Path(directory))):
        try:
            return load(path), notes
        except RunError as error:
            notes.append(f"{error} It is skipped.")
    return None, notes


def list_checkpoints(directory: Path | str) -> list[tuple[int, Path]]:
    """Version and file of each checkpoint in a directory, oldest first, damaged ones included."""
    directory = Path(directory)
    try:
        entries = list(directory.iterdir()) if directory.is_dir() else []
    except OSError as error:
        raise RunError(f"The checkpoints in {directory} cannot be listed: {reason_of(error)}.") from error
    matches = ((_NAME.fullmatch(entry.name), entry) for entry in entries)
    return sorted((int(match[1]), entry) for match, entry in matches if match)


def load(path: Path | str) -> Checkpoint:
    """Read one checkpoint and compare it with its hash; `RunError` when it is damaged or not a checkpoint."""
    path = Path(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise RunError(f"The checkpoint {path} cannot be read: {error}.") from error
    if metadata.get("format") != FORMAT or not {"state", "version", "sha256"} <= metadata.keys():
        raise RunError(f"{path} is not a checkpoint of this program ({FORMAT}).")
    views = {name: _bytes_of(tensor) for name, tensor in tensors.items()}
    if _sha256(tensors, views, metadata["state"], metadata["version"]) != metadata["sha256"]:
        raise RunError(f"The checkpoint {path} is damaged: its content does not match its hash.")
    match = _NAME.fullmatch(path.name)
    if match and int(match[1]) != int(metadata["version"]):
        raise RunError(f"The checkpoint {path} is not what its name says: it holds version {metadata['version']}.")
    return Checkpoint(tensors, json.loads(metadata["state"]), int(metadata["version"]))


def _bytes_of(tensor: Tensor) -> memoryview:
    """The tensor's bytes without a copy (with one when it is on a device or not contiguous)."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")


def _header(tensors: Mapping[str, Tensor], views: Mapping[str, memoryview], state: str, version: int) -> bytes:
    metadata = {"format": FORMAT, "state": state, "version": str(version)}
    metadata["sha256"] = _sha256(tensors, views, state, str(version))
    header: dict[str, object] = {"__metadata__": metadata}
    begin = 0
    for name, view in views.items():
        end = begin + len(view)
        header[name] = {"dtype": _DTYPES[tensors[name].dtype], "shape": list(tensors[name].shape),
                        "data_offsets": [begin, end]}  # fmt: skip
        begin = end
    content = json.dumps(header, separators=(",", ":")).encode()
    content += b" " * (-len(content) % 64 + 56)  # with the 8 bytes of its length: the tensors begin on a cache line
    return len(content).to_bytes(8, "little") + content


def _sha256(tensors: Mapping[str, Tensor], views: Mapping[str, memoryview], state: str, version: str) -> str:
    """Hash of names, types, shapes and bytes in the order of the names, and of state and version."""
    described = [[name, _DTYPES.get(tensors[name].dtype), list(tensors[name].shape)] for name in views]
    digest = hashlib.sha256(json.dumps([FORMAT, version, state, described]).encode())
    for view in views.values():
        digest.update(view)
    return digest.hexdigest()


def _to_json(state: Mapping[str, Any], path: Path) -> str:
    fault = next(_not_json(state, "state"), None)
    if fault is not None:
        raise RunError(f"The checkpoint {path} cannot be written: {fault}.")
    return json.dumps(state, allow_nan=False, separators=(",", ":"))


def _not_json(value: object, where: str) -> Iterator[str]:
    """What would come back from JSON as something else (a key that is a number) or not at all."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                yield f"{where} has the key {key!r}, and keys must be strings"
            yield from _not_json(inner, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            if type(inner) is not int:  # long lists are mostly of these
                yield from _not_json(inner, f"{where}[{index}]")
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield f"{where} is {value}, and numbers must be finite"
    elif not isinstance(value, str | int | None):
        yield f"{where} is a {type(value).__name__}, and only JSON types are allowed"
