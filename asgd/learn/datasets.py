"""Image data sets: their files held in memory as bytes, normalised and augmented a batch at a time.

Legend of the suffixes: _N images of a split, _B images of a batch; [.., C, H, W] channels, rows, columns.

Each split is one contiguous uint8 tensor, so that processes that are forked after loading share its pages. torchvision
reads MNIST's files and downloads all of them; CIFAR's, which are pickles, are read by cifar.py, which unpickles
nothing. torchvision is imported by the functions that need it, and only by them: importing it costs seconds.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asgd.errors import ConfigError, RunError
from asgd.learn.cifar import BATCHES, read_batches
from asgd.learn.options import check_choice, check_integer

_NETWORK_TIMEOUT_S = 20.0  # of one silence of the network, not of the whole download


@dataclass(frozen=True)
class Source:
    """What is known of a data set before reading it: torchvision's class, its folder, and its pixels.

    mean, std: per channel, of the training images, in units of the full range 0..1.
    """

    title: str
    torchvision_class: str
    folder: str
    num_classes: int
    channels: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    padding: int  # of the random crop, pixels on each side
    flip: bool  # whether a mirror image is as good


SOURCES = {
    "cifar10": Source(
        "CIFAR-10",
        "CIFAR10",
        "cifar-10-batches-py",
        10,
        3,
        32,
        (0.4914, 0.4822, 0.4465),
        (0.2470, 0.2435, 0.2616),
        4,
        True,
    ),
    "cifar100": Source(
        "CIFAR-100",
        "CIFAR100",
        "cifar-100-python",
        100,
        3,
        32,
        (0.5071, 0.4866, 0.4409),
        (0.2673, 0.2564, 0.2762),
        4,
        True,
    ),
    "mnist": Source("MNIST", "MNIST", "MNIST/raw", 10, 1, 28, (0.1307,), (0.3081,), 2, False),
    "fashion_mnist": Source(
        "Fashion-MNIST", "FashionMNIST", "FashionMNIST/raw", 10, 1, 28, (0.2860,), (0.3530,), 2, True
    ),
}


@dataclass(frozen=True, eq=False)
class Split:
    """One half of a data set: images uint8 [N, C, H, W], contiguous, and classes int64 [N]."""

    images_N: Tensor
    classes_N: Tensor


class ImageTransform:
    """Bytes to normalised floats, after a random crop and a random mirroring of each image when training.

    y = (x / 255 - mean) / std per channel. The crop takes H x W pixels at a random place of the image with `padding`
    black pixels around it; the mirroring swaps left and right with probability 1/2.
    Arguments: mean, std: per channel, in units of 0..1, std > 0; padding: pixels, 0 for no crop; flip: mirror or not.
    Called with images uint8 [B, C, H, W] and the generator that all random numbers come from; with generator None
    (evaluation) it only normalises. Returns float32 [B, C, H, W].
    Errors: ConfigError.

    Example:
        >>> import torch
        >>> transform = ImageTransform((0.5,), (0.5,), padding=2, flip=True)
        >>> images_B = torch.zeros(8, 1, 28, 28, dtype=torch.uint8)
        >>> transform(images_B, torch.Generator().manual_seed(0)).mean().item()
        -1.0
    """

    def __init__(
        self, mean: tuple[float, ...], std: tuple[float, ...], *, padding: int = 0, flip: bool = False
    ) -> None:
        if len(mean) != len(std) or not mean or min(std) <= 0:
            raise ConfigError(
                f"ImageTransform: mean {mean} and std {std} must have one number per channel, std above 0"
            )
        check_integer("padding", padding, least=0)
        self.padding = padding
        self.flip = flip
        self._shift = (torch.tensor(mean) * 255).view(-1, 1, 1)
        self._scale = (1 / (torch.tensor(std) * 255)).view(-1, 1, 1)

    def __call__(self, images_B: Tensor, generator: torch.Generator | None) -> Tensor:
        if generator is not None and (self.padding or self.flip):
            images_B = self._augment(images_B, generator)
        return images_B.float().sub_(self._shift).mul_(self._scale)

    def _augment(self, images_B: Tensor, generator: torch.Generator) -> Tensor:
        """Return cropped and mirrored images: one look-up of bytes, whatever the batch."""
        count, channels, height, width = images_B.shape
        padding = self.padding
        tall, wide = height + 2 * padding, width + 2 * padding
        padded_B = images_B.new_zeros(count, channels, tall, wide)
        padded_B[:, :, padding : padding + height, padding : padding + width] = images_B
        top_B, left_B = torch.randint(0, 2 * padding + 1, (2, count, 1), generator=generator)
        columns_B = torch.arange(width).expand(count, width)
        if self.flip:
            mirrored_B = torch.randint(0, 2, (count, 1), generator=generator, dtype=torch.bool)
            columns_B = torch.where(mirrored_B, width - 1 - columns_B, columns_B)
        rows_B = (torch.arange(height) + top_B) * wide
        places_B = (rows_B.unsqueeze(2) + (columns_B + left_B).unsqueeze(1)).view(count, 1, height * width)
        pixels_B = padded_B.view(count, channels, tall * wide).gather(2, places_B.expand(-1, channels, -1))
        return pixels_B.view(count, channels, height, width)


def default_data_root() -> Path:
    """Return the data root when none is given: the environment variable ASGD_DATA, else data/ where we are."""
    return Path(os.environ.get("ASGD_DATA") or "data")


def load_splits(name: str, data_root: Path | str | None = None, *, download: bool = False) -> tuple[Split, Split]:
    """Return the training and the test images of a data set.

    Arguments: name: "cifar10", "cifar100", "mnist" or "fashion_mnist"; data_root: the folder that holds the data set's
    own folder (None: `default_data_root()`); download: get the files first if they aren't there.
    Errors: ConfigError when the files are missing or damaged, with what to do; RunError when a download fails.

    Example:
        train, test = load_splits("cifar10", "data", download=True)
    """
    check_choice("data set", name, tuple(SOURCES))
    source = SOURCES[name]
    root = Path(data_root) if data_root is not None else default_data_root()
    if download:
        _download(name, source, root)
    elif not (root / source.folder).is_dir():
        raise ConfigError(f"{source.title} is not at the data root {root}: {_absent(root, source)}; {_remedies(name)}")
    try:
        splits = tuple(_read(name, source, root, train) for train in (True, False))
    except Exception as error:  # torchvision reports damaged files with whatever reading them raised
        raise ConfigError(
            f"{source.title} in {root / source.folder} is incomplete or damaged ({_one_line(error)}); remove that "
            f"folder and get it anew, or {_remedies(name)}"
        ) from error
    return splits[0], splits[1]


def fetch(name: str, data_root: Path | str | None = None) -> Path:
    """Download a data set unless it is there already, check that it can be read, and return its folder.

    Arguments and errors: see `load_splits`.

    Example:
        fetch("mnist", "data")
    """
    root = Path(data_root) if data_root is not None else default_data_root()
    load_splits(name, root, download=True)
    return root / SOURCES[name].folder


def _read(name: str, source: Source, root: Path, train: bool) -> Split:
    if name in BATCHES:
        images_N, classes_N = read_batches(name, root / source.folder, train)
    else:
        from torchvision import datasets  # costs seconds: only for those who need it

        found: Any = getattr(datasets, source.torchvision_class)(str(root), train=train, download=False)
        images_N, classes_N = torch.as_tensor(found.data).unsqueeze(1), torch.as_tensor(found.targets).long()
    expected = (source.channels, source.image_size, source.image_size)
    if images_N.dtype != torch.uint8 or tuple(images_N.shape[1:]) != expected or len(images_N) != len(classes_N):
        raise ValueError(f"{len(classes_N)} labels for {images_N.dtype} images of shape {list(images_N.shape)}")
    if len(images_N) == 0 or not 0 <= int(classes_N.min()) <= int(classes_N.max()) < source.num_classes:
        raise ValueError(f"no images, or labels outside 0 to {source.num_classes - 1}")
    return Split(images_N.contiguous(), classes_N)


def _download(name: str, source: Source, root: Path) -> None:
    from torchvision import datasets

    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"the data root {root} can't be made ({_one_line(error)}): give a folder that can be written with "
            "--data-root or ASGD_DATA"
        ) from error
    # what torchvision prints must not get into a program's own output
    try:
        with contextlib.redirect_stdout(sys.stderr), _network_timeout(_NETWORK_TIMEOUT_S):
            if name not in BATCHES:
                getattr(datasets, source.torchvision_class)(str(root), download=True)
            elif not _has_batches(name, root / source.folder):  # not by its constructor, which unpickles
                kind = getattr(datasets, source.torchvision_class)
                datasets.utils.download_and_extract_archive(kind.url, str(root), md5=kind.tgz_md5, remove_finished=True)
    except PermissionError as error:
        raise ConfigError(f"{source.title} can't be written to the data root {root} ({_one_line(error)})") from error
    except Exception as error:
        raise RunError(
            f"{source.title} could not be downloaded to {root} ({_one_line(error)}); try `asgd fetch {name}` again "
            "where there is a network, or put the files there and name the folder with --data-root or ASGD_DATA"
        ) from error


def _has_batches(name: str, folder: Path) -> bool:
    """Whether the published files are there; whether they are whole is seen when they are read."""
    return all((folder / file).is_file() for split in BATCHES[name].values() for file in split)


@contextlib.contextmanager
def _network_timeout(seconds: float) -> Iterator[None]:
    """Give sockets that are opened meanwhile a time limit: torchvision's downloads set none of their own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _absent(root: Path, source: Source) -> str:
    folder = source.folder.split("/")[0]
    if not root.exists():
        return "there is no such folder"
    if not root.is_dir():
        return "it is a file"
    if root.name == folder or (root.name == "raw" and root.parent.name == folder):
        parent = root.parent if root.name == folder else root.parent.parent
        return f"it is the data set's own folder, the data root is the one above, {parent.absolute()}"
    return f"it has no folder {source.folder}"


def _remedies(name: str) -> str:
    return (
        "name the folder that holds it with --data-root or the environment variable ASGD_DATA, or download it with "
        f"task.download = true or `asgd fetch {name}`"
    )


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}{'...' if len(text) > 300 else ''}"
