"""Datasets as tensors in [0, 1], with the name and the hash of where they came from."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

if TYPE_CHECKING:
    from torchvision.datasets import ImageFolder

from attacks.registry import Registry
from attacks.seeding import generator

IMAGE_SIZE = 32


class DatasetError(RuntimeError):
    """Data that cannot be used; the message says what was expected where."""


class DatasetMissingError(DatasetError):
    """Data that is not there and could not be downloaded."""


@dataclass(frozen=True)
class Dataset:
    """Training and test images of one dataset.

    Attributes:
        train_images, test_images: (N, C, 32, 32) float32 in [0, 1].
        train_labels, test_labels: (N,) int64 in [0, classes).
        source: the library or the kind of folder the images came from.
        sha256: of the decoded pixels and labels before resizing, both splits.
    """

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: int
    source: str
    sha256: str

    _digest: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_digest", self._checksum())

    def unchanged(self) -> bool:
        """Whether the tensors are what they were when they were loaded."""
        return self._digest == self._checksum()

    def _checksum(self) -> int:
        tensors = (self.train_images, self.train_labels, self.test_images, self.test_labels)
        checksum = 0
        for tensor in tensors:
            checksum = zlib.crc32(tensor.numpy().data.cast("B"), checksum)
        return checksum

    @property
    def channels(self) -> int:
        """1 for grey, 3 for colour."""
        return self.train_images.shape[1]


@dataclass(frozen=True)
class Raw:
    """Decoded arrays: images (N, H, W) or (N, H, W, C) uint8 and labels (N,), for both splits."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    source: str


DATASETS: Registry[Callable[[Path], Raw]] = Registry("dataset")


def load(name: str, root: Path, train_images: int | None, test_images: int | None) -> Dataset:
    """Load a dataset, resized to the networks' input.

    The same subset is taken whatever the seed, and a smaller one lies inside a larger one, so that
    all rows of a table were measured on the same images.

    Args:
        root: the folder that holds the data, or that it is downloaded into.
        train_images, test_images: how many to use; None for all.

    Raises:
        LookupError: unknown dataset.
        DatasetMissingError: not under `root`, and not downloadable.
        DatasetError: corrupt, or not the dataset its name says.
    """
    raw = DATASETS[name](root)
    colour = name.startswith("cifar")
    for split, images, labels in (
        ("training", raw.train_images, raw.train_labels),
        ("test", raw.test_images, raw.test_labels),
    ):
        _check(name, split, images, labels, colour=colour)
    train = _subset(raw.train_images, raw.train_labels, train_images, "train")
    test = _subset(raw.test_images, raw.test_labels, test_images, "test")
    return Dataset(name, *train, *test, classes=10, source=raw.source, sha256=_hash(raw))


def _register(name: str) -> Callable[[Callable[[Path], Raw]], Callable[[Path], Raw]]:
    def register(read: Callable[[Path], Raw]) -> Callable[[Path], Raw]:
        DATASETS.add(name, read)
        return read

    return register


@_register("digits")
def _digits(root: Path) -> Raw:
    """scikit-learn's 1,797 handwritten digits, 8 x 8, four fifths for training."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    pixels = (images.reshape(-1, 8, 8) * (255 / 16)).round().astype(np.uint8)
    order = torch.randperm(len(pixels), generator=generator(0, "digits split")).numpy()
    train, test = np.split(order, [len(order) * 4 // 5])
    return Raw(pixels[train], labels[train], pixels[test], labels[test], "scikit-learn load_digits")


@_register("mnist")
def _mnist(root: Path) -> Raw:
    from torchvision.datasets import MNIST

    return _torchvision_or_folder("mnist", MNIST, root, "MNIST/raw")


@_register("cifar10")
def _cifar10(root: Path) -> Raw:
    from torchvision.datasets import CIFAR10

    return _torchvision_or_folder("cifar10", CIFAR10, root, "cifar-10-batches-py")


def _torchvision_or_folder(name: str, kind: Any, root: Path, files: str) -> Raw:
    """The original files under `root`; else a folder of images; else a download into `root`."""
    try:
        return _torchvision(name, kind, root, download=False)
    except DatasetMissingError as error:
        if (root / files).is_dir():
            raise DatasetError(f"{root / files} is incomplete or corrupt ({error})") from error
        if (root / name).is_dir():
            return _image_folder(name, root / name)
    try:
        return _torchvision(name, kind, root, download=True)
    except (DatasetMissingError, OSError) as error:
        raise DatasetMissingError(
            f"{name} is not under {root} and could not be downloaded ({error}). Put torchvision's "
            f"files into {root / files}, or images at {root / name}/{{train,test}}/<class>/*, or "
            f"name the folder that holds them with --data-root"
        ) from error


def _torchvision(name: str, kind: Any, root: Path, *, download: bool) -> Raw:
    try:
        train = kind(str(root), train=True, download=download)
        test = kind(str(root), train=False, download=download)
    except RuntimeError as error:
        message = str(error).splitlines()[0]
        if "not found" in message or "downloading" in message:
            raise DatasetMissingError(message) from error
        raise DatasetError(f"{name} under {root} is corrupt: {message}") from error
    except (ValueError, AssertionError, EOFError, IndexError, KeyError) as error:
        raise DatasetError(f"{name} under {root} is corrupt: {error!r}") from error
    return Raw(
        np.asarray(train.data),
        np.asarray(train.targets),
        np.asarray(test.data),
        np.asarray(test.targets),
        f"torchvision {kind.__name__}",
    )


def _image_folder(name: str, folder: Path) -> Raw:
    """`<folder>/{train,test}/<class>/*`, classes in alphabetical order."""
    train_images, train_labels, train = _read_split(name, folder / "train")
    test_images, test_labels, test = _read_split(name, folder / "test")
    if train.classes != test.classes:
        differing = sorted({*train.classes} ^ {*test.classes})
        raise DatasetError(f"{folder}: train and test differ in the classes {differing}")
    paths = [path for path, _ in train.samples + test.samples]
    kinds = sorted({Path(path).suffix.lower().lstrip(".") for path in paths})
    source = f"image folder ({', '.join(kinds)})"
    return Raw(train_images, train_labels, test_images, test_labels, source)


def _read_split(name: str, folder: Path) -> tuple[np.ndarray, np.ndarray, ImageFolder]:
    """Pixels and labels, and the listing they came from."""
    from torchvision.datasets import ImageFolder

    try:
        listed = ImageFolder(str(folder))
        progress = tqdm(listed.samples, f"reading {name} {folder.name}", leave=False, disable=None)
        images = [np.asarray(listed.loader(path)) for path, _ in progress]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DatasetError(f"{folder}: expected <class>/* image files ({error})") from error
    except OSError as error:
        raise DatasetError(f"{folder}: an image cannot be read ({error})") from error
    shapes = {image.shape for image in images}
    if len(shapes) != 1:
        raise DatasetError(f"{folder}: images of different shapes {sorted(shapes)[:3]}")
    pixels = np.stack(images)
    # ImageFolder decodes to RGB; grey images have three equal channels.
    if not name.startswith("cifar"):
        pixels = pixels[..., 0]
    return pixels, np.asarray(listed.targets), listed


def _check(name: str, split: str, images: np.ndarray, labels: np.ndarray, *, colour: bool) -> None:
    problem = None
    if len(images) == 0 or len(images) != len(labels):
        problem = f"{len(images)} images and {len(labels)} labels"
    elif images.dtype != np.uint8:
        problem = f"pixels of type {images.dtype}, expected uint8"
    elif images.shape[3:] != ((3,) if colour else ()) or images.shape[1] != images.shape[2]:
        expected = "(N, S, S, 3)" if colour else "(N, S, S)"
        problem = f"images of shape {images.shape}, expected {expected}"
    elif sorted(np.unique(labels)) != list(range(10)):
        problem = f"{len(np.unique(labels))} classes, expected 10"
    if problem:
        raise DatasetError(f"{name} {split} split: {problem}")


def _hash(raw: Raw) -> str:
    digest = hashlib.sha256()
    for array in (raw.train_images, raw.train_labels, raw.test_images, raw.test_labels):
        digest.update(str((array.shape, array.dtype.kind)).encode())
        digest.update(np.ascontiguousarray(array, array.dtype if array.ndim > 1 else "<i8").data)
    return digest.hexdigest()


def _subset(
    images: np.ndarray, labels: np.ndarray, count: int | None, split: str
) -> tuple[Tensor, Tensor]:
    """The first `count` images of a fixed random order, as tensors of the networks' input size."""
    order = torch.randperm(len(images), generator=generator(0, "subset", split))[:count].numpy()
    pixels = torch.from_numpy(images[order])
    pixels = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
    tensor = pixels.float() / 255
    if tensor.shape[-1] != IMAGE_SIZE:
        tensor = F.interpolate(
            tensor, size=(IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", antialias=True
        )
        tensor = tensor.clamp(0, 1)
    return tensor.contiguous(), torch.from_numpy(labels[order]).long()
