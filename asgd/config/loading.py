"""From a file, a dict or a struct to a checked `Config`, and back to TOML.

The order: read, put the overrides in, look for unknown keys, convert to the structs, check the values. The first
problem ends it with one sentence.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import tomli_w

from asgd.config.checks import find_problems
from asgd.config.plain import plain_table, plain_value
from asgd.config.schema import Config
from asgd.config.sentences import Origin, is_text, type_problem, unknown_key
from asgd.errors import ConfigError

_KEPT = (datetime.datetime, datetime.date, datetime.time)  # what TOML has and JSON has not


def load_config(source: str | Path | Mapping[str, Any] | Config, overrides: Sequence[str] = ()) -> Config:
    """Return a checked configuration, every default filled in.

    A relative file in `task.function` is looked for beside the configuration file, then in the working directory; the
    result holds its absolute path, as it does of `security.keys`.

    Args:
        source: path of a TOML file, a nested dict of the same keys, or a `Config`.
        overrides: "a.b=value" each; the value as in TOML, or else taken as a string. Later ones win.

    Errors: ConfigError, one sentence naming the file (or override), the key, what was given and what is allowed.

    Example:
        >>> load_config({"budget": {"versions": 100}}, ["optimizer.momentum=0.9"]).optimizer.momentum
        0.9
    """
    data, origin, folder = _plain(source, overrides)
    return _checked(data, origin, folder)


def load_with_table(
    source: str | Path | Mapping[str, Any] | Config, table: str, overrides: Sequence[str] = ()
) -> tuple[Config, dict[str, Any], str]:
    """Return a checked configuration, and one more table that stood beside its own: that of a study, say.

    Args:
        source, overrides: as for `load_config`; overrides may be of the table's keys, "table.key=value".
        table: its name; an empty one if it isn't there. Nothing in it is checked.

    Returns: the configuration, the table, and where they came from, to begin sentences about the table with.
    Errors: those of `load_config`.

    Example:
        >>> plain = {"budget": {"versions": 100}, "study": {"seeds": 3}}
        >>> load_with_table(plain, "study", ["study.seeds=5"])[1:]
        ({'seeds': 5}, 'configuration')
    """
    data, origin, folder = _plain(source, overrides)
    extra = data.pop(table, {})
    if not isinstance(extra, dict):
        raise ConfigError(f"{origin.of(table)}: {table}: allowed is a table, [{table}]")
    return _checked(data, origin, folder), extra, origin.where


def _plain(
    source: str | Path | Mapping[str, Any] | Config, overrides: Sequence[str]
) -> tuple[dict[str, Any], Origin, Path]:
    """Return the plain values with the overrides put in, where they are from, and the folder to look for files in."""
    if isinstance(source, str | Path):
        path = Path(source)
        data, origin, folder = _read(path), Origin(str(path)), path.parent
    elif isinstance(source, Config | Mapping):
        origin, folder = Origin("configuration"), Path()
        data = plain_table(source, origin.where)
    else:
        raise ConfigError(f"a configuration is a path, a dict or a Config, not {type(source).__name__}")
    for override in overrides:
        _put(data, override, origin)
    return data, origin, folder


def _checked(data: dict[str, Any], origin: Origin, folder: Path) -> Config:
    unknown = unknown_key(data, origin)
    if unknown:
        raise unknown
    try:
        config = msgspec.convert(data, Config)
    except msgspec.ValidationError as error:
        raise type_problem(str(error), data, origin) from None
    problem = next(find_problems(config), None)
    if problem:
        values = msgspec.to_builtins(config, builtin_types=_KEPT)
        raise origin.problem(problem.key, problem.why, values if problem.needs_value else None)
    return _resolve_keys(_resolve_task(config, folder, origin), folder)


def to_toml(config: Config) -> str:
    """Return the configuration as TOML with every default written out; `load_config` of it gives an equal object.

    Example:
        >>> print(to_toml(load_config({"seed": 3, "budget": {"versions": 10}})).splitlines()[0])
        seed = 3
    """
    return tomli_w.dumps(msgspec.to_builtins(config, builtin_types=_KEPT))


def task_digest(config: Config) -> str:
    """Return what a server and its workers must agree on for their jobs to be the same work: a hex SHA-256.

    It covers the seed, the name of the task's function (not the file it stands in, which differs between machines), the
    task's options, the batch size, and the partition, to which the number of workers belongs.
    """
    agreed: dict[str, Any] = {
        "seed": config.seed,
        "function": config.task.function.rpartition(":")[2],
        "options": config.task.options,
        "batch_size": config.task.batch_size,
        "micro_batches": config.task.micro_batches,
        "local_steps": [config.method.local_steps, config.method.local_step_size],
        "autocast": config.cluster.autocast,
    }
    if config.task.partition != "iid":
        agreed["partition"] = [config.task.partition, config.task.partition_options, config.cluster.num_workers]
    text = json.dumps(agreed, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file; a configuration is a TOML file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: this is a directory; a configuration is a TOML file") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}, line {line}: byte {error.object[error.start]:#x} is not UTF-8 text") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: it can't be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        return tomllib.loads(text)
    except ValueError as error:  # also of a number with thousands of digits
        raise ConfigError(_syntax_problem(str(path), str(error), text)) from None


def _syntax_problem(path: str, message: str, text: str) -> str:
    """Return tomllib's complaint, "Invalid value (at line 3, column 8)", as a sentence with the line in front."""
    found = re.fullmatch(r"(?s)(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", message)
    if not found:
        return f"{path}: not TOML: {message.split(': ')[0]}"
    what = found[1][:1].lower() + found[1][1:]
    hint = " (a string needs quotes)" if what == "invalid value" else ""
    place = f"line {found[2]}, column {found[3]}" if found[2] else f"line {len(text.splitlines()) or 1}, at the end"
    return f"{path}, {place}: not TOML: {what}{hint}"


def _put(data: dict[str, Any], override: str, origin: Origin) -> None:
    """Put the value of "a.b=value" at its place in `data`, making the tables on the way to it."""
    left, equals, right = override.partition("=")
    parts = _parts(left) if equals else []
    if not parts:
        raise ConfigError(f'override "{override}": allowed is key=value, such as optimizer.momentum=0.9')
    key = ".".join(parts)
    table = data
    for part in parts[:-1]:
        if not isinstance(table.get(part), dict):
            table[part] = {}
        table = table[part]
    origin.add(key, override)
    table[parts[-1]] = plain_value(_parsed(right.strip(), is_text(key)), origin.of(key), key)


def _parts(dotted: str) -> list[str]:
    """Return the parts of a dotted TOML key, quoted ones too; an empty list if it isn't one."""
    value: Any
    try:
        value = tomllib.loads(f"{dotted.strip()} = 0")
    except ValueError:
        return []
    parts = []
    while isinstance(value, dict):
        ((part, value),) = value.items()
        parts.append(part)
    return parts


def _parsed(text: str, wants_text: bool) -> Any:
    """Return the value of an override: as TOML if it is that, else the text itself."""
    try:
        table = tomllib.loads(f"value = {text}")
    except ValueError:
        return text
    value = table["value"]
    if len(table) > 1 or (wants_text and not isinstance(value, str)):
        return text
    return value


def _resolve_task(config: Config, folder: Path, origin: Origin) -> Config:
    """Return the configuration with an absolute path in `task.function`, if that names a file.

    Whether a file with an absolute path exists is not looked at: a run's own configuration must stay readable.
    """
    where, colon, name = config.task.function.rpartition(":")
    if not colon or not (where.endswith(".py") or "/" in where or "\\" in where):
        return config
    given = os.path.expanduser(where)
    candidates = [os.path.abspath(base / given) for base in (folder, Path.cwd())]
    found = [path for path in candidates if os.path.isabs(given) or os.path.isfile(path)]
    if not found:
        looked = " and ".join(dict.fromkeys(candidates))
        raise origin.problem(
            "task.function", f"there is no such file; looked for {looked}", {"task": {"function": config.task.function}}
        )
    task = msgspec.structs.replace(config.task, function=f"{found[0]}:{name}")
    return msgspec.structs.replace(config, task=task)


def _resolve_keys(config: Config, folder: Path) -> Config:
    """Return the configuration with an absolute path in `security.keys`, if there is one."""
    if not config.security.keys:
        return config
    path = os.path.abspath(folder / os.path.expanduser(config.security.keys))
    return msgspec.structs.replace(config, security=msgspec.structs.replace(config.security, keys=path))
