"""CIFAR's files read without unpickling: their pickles are taken apart as data, and nothing in them is ever called.

A batch is a pickled dict of strings, lists of numbers and one numpy array of bytes. `pickletools` splits a pickle into
its instructions without following them. Here the few that such a dict needs are followed; where a pickle would call a
function, the function's name and its arguments are put down, and only those of a numpy array of bytes are understood.
"""

from __future__ import annotations

import hashlib
import pickletools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

BATCHES: Final[dict[str, dict[bool, dict[str, str]]]] = {  # data set -> training? -> file -> its MD5, as published
    "cifar10": {
        True: {
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        },
        False: {"test_batch": "40351d587109b95175f43aff81a1287e"},
    },
    "cifar100": {
        True: {"train": "16019d7e3df5f24257cddd939b257f8d"},
        False: {"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
    },
}
_LABELS: Final = {"cifar10": "labels", "cifar100": "fine_labels"}
_ARRAY: Final = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
_NUMBERS: Final = ("BININT", "BININT1", "BININT2", "LONG1")
_TEXTS: Final = ("BINSTRING", "SHORT_BINSTRING", "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES")
_CONSTANTS: Final = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_MAKERS: Final = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES: Final = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Mark:
    """Where a sequence begins on the stack."""


@dataclass
class Call:
    """A call that a pickle asks for, and that is not made: a function's name, its arguments, the state to set."""

    name: str
    arguments: Any = None
    state: Any = None


def take_apart(data: bytes) -> Any:
    """The value that a pickle holds, with `Call` in the place of whatever it would make by calling something.

    Errors: ValueError for instructions that no plain data needs, or that don't fit together.

    >>> take_apart(b"\\x80\\x02}X\\x01\\x00\\x00\\x00aK\\x07s.")
    {'a': 7}
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                (value,) = stack
                return value
            _follow(opcode.name, argument, stack, memo)
    except (IndexError, KeyError, TypeError, AttributeError, UnicodeError) as error:
        raise ValueError(f"it does not fit together ({type(error).__name__})") from None
    raise ValueError("it has no end")


def _follow(name: str, argument: Any, stack: list[Any], memo: dict[int, Any]) -> None:
    if name in _NUMBERS or name in _TEXTS:
        stack.append(argument)
    elif name in _CONSTANTS:
        stack.append(_CONSTANTS[name])
    elif name in _MAKERS:
        stack.append(_MAKERS[name]())
    elif name in ("BINPUT", "LONG_BINPUT"):
        memo[argument] = stack[-1]
    elif name in ("BINGET", "LONG_BINGET"):
        stack.append(memo[argument])
    elif name == "MARK":
        stack.append(_Mark)
    elif name == "GLOBAL":
        stack.append(Call(argument))
    elif name in ("REDUCE", "BUILD"):
        _put_down(name, stack)
    elif name in _TUPLES:
        stack[-_TUPLES[name] :] = [tuple(stack[-_TUPLES[name] :])]
    elif name != "PROTO":
        _gather(name, stack)


def _put_down(name: str, stack: list[Any]) -> None:
    """What a call would be made with, or what its result would be set to."""
    value, call = stack.pop(), stack[-1]
    if not isinstance(call, Call):
        raise ValueError("it calls what is no name")
    stack[-1] = Call(call.name, value) if name == "REDUCE" else Call(call.name, call.arguments, value)


def _gather(name: str, stack: list[Any]) -> None:
    """Take the values since the last mark, or the topmost, into a tuple, a list or a dict."""
    if name in ("APPEND", "SETITEM"):
        count = 1 if name == "APPEND" else 2
        values = stack[-count:]
        del stack[-count:]
    elif name in ("TUPLE", "APPENDS", "SETITEMS"):
        start = len(stack) - 1 - stack[::-1].index(_Mark)
        values = stack[start + 1 :]
        del stack[start:]
    else:
        raise ValueError(f"it has an instruction {name}, which no plain data needs")
    if name == "TUPLE":
        stack.append(tuple(values))
    elif name.startswith("APPEND"):
        stack[-1].extend(values)
    else:
        stack[-1].update(zip(values[::2], values[1::2], strict=True))


def bytes_of_array(call: Any) -> tuple[tuple[int, ...], bytes]:
    """Shape and content of a pickled numpy array of unsigned bytes in C order; ValueError for anything else."""
    if not (isinstance(call, Call) and call.name in _ARRAY and isinstance(call.state, tuple) and len(call.state) == 5):
        raise ValueError("its data are no numpy array")
    _, shape, kind, is_fortran, content = call.state
    if not (isinstance(kind, Call) and kind.name == "numpy dtype" and kind.arguments[:1] == ("u1",)) or is_fortran:
        raise ValueError("its data are no bytes in C order")
    if isinstance(content, str):  # what Python 2 wrote
        content = content.encode("latin-1")
    if not isinstance(content, bytes) or not all(isinstance(size, int) and size >= 0 for size in shape):
        raise ValueError("its data are no bytes in C order")
    return tuple(shape), content


def read_batches(name: str, folder: Path, train: bool) -> tuple[Tensor, Tensor]:
    """The images uint8 [N, 3, 32, 32] and classes int64 [N] of "cifar10" or "cifar100", as published.

    Errors: ValueError for a file that is not the published one, OSError for one that can't be read.

    Reference: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009; the python version of the
    files.
    """
    images, classes = [], []
    for file, md5 in BATCHES[name][train].items():
        data = (folder / file).read_bytes()
        if hashlib.md5(data, usedforsecurity=False).hexdigest() != md5:
            raise ValueError(f"{file} is not the published file")
        content = take_apart(data)
        shape, pixels = bytes_of_array(content["data"])
        if shape != (len(pixels) // 3072, 3072) or len(content[_LABELS[name]]) != shape[0]:
            raise ValueError(f"{file} has {len(pixels)} bytes of images and {len(content[_LABELS[name]])} labels")
        images.append(torch.frombuffer(bytearray(pixels), dtype=torch.uint8).view(-1, 3, 32, 32))
        classes += content[_LABELS[name]]
    return torch.cat(images), torch.tensor(classes, dtype=torch.int64)
