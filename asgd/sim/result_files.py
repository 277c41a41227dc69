"""Result files of long computations (`--out FILE`): read back to go on with, refused where they are another's, written
whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from asgd.errors import ConfigError, RunError
from asgd.run.files import reason_of, write_atomically

T = TypeVar("T")


def read_result(file: Path, kind: type[T], command: str) -> T:
    """What an earlier call of `command` has left in `file`, strictly typed.

    Errors: ConfigError for a device or a directory, which may have no end, and for anything that is no such result.
    """
    if not file.is_file():
        raise ConfigError(f"--out {file}: it is there and is no file; allowed is a file, or one that is to be made")
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"--out {file}: it is no result of {command}, and is left alone ({error})") from error


def refuse_another(file: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to extend a result file that was made with something else; ConfigError naming the first key that differs.

    Example:
        >>> refuse_another(Path("out.json"), {"config": {"seed": 0}}, {"config": {"seed": 1}})
        Traceback (most recent call last):
        asgd.errors.ConfigError: --out out.json: it was made with seed = 0, and here it is 1; give another file
    """
    old, new = flattened(dict(before)), flattened(dict(now))
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            raise ConfigError(
                f"--out {file}: it was made with {key} = {old.get(key)!r}, and here it is {new.get(key)!r}; "
                "give another file"
            )


def flattened(value: Any, key: str = "") -> dict[str, Any]:
    """A nested table as one with dotted keys."""
    if isinstance(value, msgspec.Struct):
        value = msgspec.to_builtins(value)
    if not isinstance(value, dict):
        return {key.removeprefix("config."): value}
    return {k: v for name, item in value.items() for k, v in flattened(item, f"{key}.{name}" if key else name).items()}


def encode_result(result: msgspec.Struct) -> bytes:
    """The JSON text of a result file."""
    return msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n"


def write_result(file: Path, result: msgspec.Struct) -> None:
    """Replace a result file in one step; RunError when that fails."""
    try:
        write_atomically(file, encode_result(result))
    except OSError as error:
        raise RunError(f"{file} cannot be written: {reason_of(error)}") from error
