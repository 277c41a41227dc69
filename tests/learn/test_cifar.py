"""CIFAR's pickles taken apart: the published files as torchvision reads them, and nothing called whatever is in one."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asgd.learn import cifar
from asgd.learn.cifar import Call, bytes_of_array, read_batches, take_apart
from asgd.learn.datasets import load_splits

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**31), 2**31 - 1) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=20,
)


@settings(max_examples=40)
@given(PLAIN)
def test_plain_data_come_out_as_they_went_in(value):
    assert take_apart(pickle.dumps(value, protocol=2)) == value


@given(st.integers(0, 5), st.integers(0, 7))
def test_an_array_of_bytes_is_understood(rows, columns):
    array = np.arange(rows * columns, dtype=np.uint8).reshape(rows, columns)
    pickled = pickle.dumps({"data": array}, protocol=2)
    # protocol 2 of Python 3 writes the bytes as a call of its own codec; Python 2 wrote a string, as in the files
    content = take_apart(pickled)["data"]
    assert isinstance(content, Call)
    assert content.state[1] == (rows, columns)
    text = Call(content.name, content.arguments, (*content.state[:4], array.tobytes().decode("latin-1")))
    assert bytes_of_array(text) == ((rows, columns), array.tobytes())


class Bomb:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_would_call_something_calls_nothing(tmp_path, protocol):
    pickled = pickle.dumps({"data": Bomb(str(tmp_path / "made")), "labels": [1]}, protocol=protocol)
    try:
        content = take_apart(pickled)
    except ValueError:
        pass  # instructions of a later protocol
    else:
        assert content["data"].name.endswith(" mkdir")
        with pytest.raises(ValueError, match="no numpy array"):
            bytes_of_array(content["data"])
    assert not (tmp_path / "made").exists()
    pickle.loads(pickled)  # it is a bomb
    assert (tmp_path / "made").exists()


@pytest.mark.parametrize("kind", ["float32", "O", "S1", "int8", ">u2"])
def test_arrays_of_other_things_are_refused(kind):
    content = take_apart(pickle.dumps(np.zeros(3, dtype=kind), protocol=2))
    with pytest.raises(ValueError, match="no bytes"):
        bytes_of_array(content)


@given(st.binary(max_size=200))
def test_garbage_is_a_value_error_or_a_value(data):
    with contextlib.suppress(ValueError):
        take_apart(data)


# A damaged name may hold a backslash: pickletools then warns, which here would be an error that is none.
@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")
@given(st.data())
def test_a_damaged_pickle_is_a_value_error_or_a_value(data):
    whole = bytearray(pickle.dumps({"labels": [1, 2, 3], "data": np.zeros(4, np.uint8), "x": ("a", None)}, protocol=2))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ValueError):
        take_apart(bytes(whole))


def write_batch(folder: Path, file: str, count: int, labels: str = "labels", width: int = 3072) -> str:
    """A file as Python 2 wrote it; returns its MD5."""
    rows = bytes(range(256)) * 12 * count
    raw = rows[: count * width]
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        + b"(K\x01K" + bytes([count]) + b"M" + width.to_bytes(2, "little") + b"\x86"
        + b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        + b"\x89T" + len(raw).to_bytes(4, "little") + raw + b"tb"
    )  # fmt: skip
    numbers = b"](" + b"".join(b"K" + bytes([label % 10]) for label in range(count)) + b"e"
    name = b"U" + bytes([len(labels)]) + labels.encode()
    data = b"\x80\x02}(U\x04data" + array + name + numbers + b"u."
    (folder / file).write_bytes(data)
    return hashlib.md5(data).hexdigest()


@pytest.mark.parametrize(("name", "labels"), [("cifar10", "labels"), ("cifar100", "fine_labels")])
def test_batches_are_joined_in_order(tmp_path, monkeypatch, name, labels):
    sums = {file: write_batch(tmp_path, file, count, labels) for file, count in (("one", 3), ("two", 2))}
    monkeypatch.setitem(cifar.BATCHES, name, {True: sums, False: {}})
    images_N, classes_N = read_batches(name, tmp_path, True)
    assert images_N.shape == (5, 3, 32, 32) and images_N.dtype == torch.uint8 and classes_N.tolist() == [0, 1, 2, 0, 1]
    assert images_N[0].flatten()[:300].tolist() == [*range(256), *range(44)]


def test_a_file_that_is_not_the_published_one_is_not_even_taken_apart(tmp_path, monkeypatch):
    write_batch(tmp_path, "one", 3)
    monkeypatch.setitem(cifar.BATCHES, "cifar10", {True: {"one": "0" * 32}, False: {}})
    monkeypatch.setattr(cifar, "take_apart", lambda data: pytest.fail("it was"))
    with pytest.raises(ValueError, match="one is not the published file"):
        read_batches("cifar10", tmp_path, True)


def test_images_of_another_size_are_refused(tmp_path, monkeypatch):
    sums = {"one": write_batch(tmp_path, "one", 3, width=3071)}
    monkeypatch.setitem(cifar.BATCHES, "cifar10", {True: sums, False: {}})
    with pytest.raises(ValueError, match="9213 bytes of images and 3 labels"):
        read_batches("cifar10", tmp_path, True)


@pytest.mark.slow
def test_the_published_files_are_read_as_torchvision_reads_them(data_root):
    from torchvision.datasets import CIFAR10

    for train, split in zip((True, False), load_splits("cifar10", data_root), strict=True):
        theirs = CIFAR10(str(data_root), train=train)
        assert torch.equal(split.images_N, torch.as_tensor(theirs.data).permute(0, 3, 1, 2))
        assert split.classes_N.tolist() == theirs.targets
