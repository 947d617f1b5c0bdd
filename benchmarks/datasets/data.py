"""Datasets as tensors in [0, 1], with the name and the hash of where they came from."""

from __future__ import annotations

import gzip
import hashlib
import warnings
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from ...attacks.seeding import generator
from ...files import write_atomically
from .registry import DATASETS, DatasetEntry, Raw

if TYPE_CHECKING:
    from torchvision.datasets import ImageFolder

IMAGE_SIZE = 32
# Pillow's names of pixels that bytes hold: of one bit, grey, of a palette, coloured.
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")


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
        checksum = 0
        for tensor in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            checksum = zlib.crc32(tensor.numpy().data.cast("B"), checksum)
        return checksum

    @property
    def channels(self) -> int:
        """1 for grey, 3 for colour."""
        return self.train_images.shape[1]


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
    entry = DATASETS[name]
    raw = entry.read(root)
    _check(entry, "training", raw.train_images, raw.train_labels)
    _check(entry, "test", raw.test_images, raw.test_labels)
    train = _subset(raw.train_images, raw.train_labels, train_images, "train")
    test = _subset(raw.test_images, raw.test_labels, test_images, "test")
    source, sha256 = raw.source, _hash(raw)
    if entry.sha256 not in (None, sha256):
        source = f"not as published: {source}"
        warnings.warn(
            f"{name} under {root} ({raw.source}) is not the published data set, and the page says "
            f"so: its images, labels or their order differ (sha256 {sha256[:8]})",
            stacklevel=2,
        )
    return Dataset(name, *train, *test, classes=entry.classes, source=source, sha256=sha256)


def torchvision_or_folder(name: str, kind: Any, root: Path, files: str) -> Raw:
    """The original files under `root`; else a folder of images; else a download into `root`.

    A download that was broken off goes on where it stopped; its archives alone are enough.

    Args:
        name: of the registered dataset, and of the folder of images.
        kind: torchvision's class, which takes `train` and `download`, and keeps `files` in `root`.
    """
    for archive in (root / files).glob("*.gz"):
        # Damaged, or where nothing can be written, it is left to a download.
        with suppress(OSError, EOFError, zlib.error):
            if not archive.with_suffix("").exists():
                content = gzip.decompress(archive.read_bytes())
                write_atomically(archive.with_suffix(""), content)
    try:
        return _torchvision(name, kind, root, download=False)
    except DatasetMissingError as error:
        left = (root / files).glob("[!.]*")
        # What a download left lies beside its archive; anything else it would overwrite.
        if not all(f.suffix == ".gz" or f.with_name(f"{f.name}.gz").exists() for f in left):
            raise DatasetError(
                f"{root / files} is incomplete or corrupt ({error}); move it away to have it "
                "downloaded"
            ) from error
    # Listed, since to some file systems `mnist` is `MNIST`.
    if any(path.name == name and path.is_dir() for path in root.glob("*")):
        return _image_folder(name, root / name)
    try:
        return _torchvision(name, kind, root, download=True)
    except DatasetMissingError as error:
        raise DatasetMissingError(
            f"{name} is not under {root} and could not be downloaded ({error}). Put torchvision's "
            f"files into {root / files}, or images at {root / name}/{{train,test}}/<class>/*, or "
            f"name the folder that holds them with --data-root"
        ) from error


def _torchvision(name: str, kind: Any, root: Path, *, download: bool) -> Raw:
    try:
        train = kind(str(root), train=True, download=download)
        test = kind(str(root), train=False, download=download)
    # Files that are damaged and connections that are lost raise almost anything.
    except Exception as error:
        message = " ".join(str(error).split()) or repr(error)
        if download or "not found" in message:
            raise DatasetMissingError(message) from error
        raise DatasetError(f"{name} under {root} is corrupt or unreadable: {message}") from error
    images, labels = np.asarray(train.data), np.asarray(train.targets)
    source = f"torchvision {kind.__name__}"
    return Raw(images, labels, np.asarray(test.data), np.asarray(test.targets), source)


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
    except OSError as error:
        raise DatasetError(f"{folder}: expected <class>/* image files ({error})") from error
    progress = tqdm(listed.samples, f"reading {name} {folder.name}", leave=False, disable=None)
    images = [_pixels(path, DATASETS[name].channels) for path, _ in progress]
    shapes = {image.shape for image in images}
    if len(shapes) != 1:
        raise DatasetError(f"{folder}: images of different shapes {sorted(shapes)[:3]}")
    return np.stack(images), np.asarray(listed.targets), listed


def _pixels(path: str, channels: int) -> np.ndarray:
    """What an image file shows: (S, S) or (S, S, 3) bytes; DatasetError: bytes cannot tell it."""
    try:
        with Image.open(path) as image:
            image.load()
    # Decoders raise almost anything.
    except Exception as error:
        raise DatasetError(f"{path} cannot be read ({error})") from error
    problem = f"has pixels of type {image.mode}"
    if image.mode in MODES:
        *colors, alpha = np.moveaxis(np.asarray(image.convert("RGBA")), -1, 0)
        grey = all((color == colors[0]).all() for color in colors)
        if (alpha < 255).any():
            problem = "is transparent in places"
        elif channels == 1 and not grey:
            problem = "has colours"
        else:
            return colors[0] if channels == 1 else np.stack(colors, axis=-1)
    wanted = "grey" if channels == 1 else "RGB"
    raise DatasetError(f"{path} {problem}; save it as 8-bit {wanted}, without transparency")


def _check(entry: DatasetEntry, split: str, images: np.ndarray, labels: np.ndarray) -> None:
    # Grey images have no axis for channels.
    last = () if entry.channels == 1 else (entry.channels,)
    problem = None
    if len(images) == 0 or len(images) != len(labels):
        problem = f"{len(images)} images and {len(labels)} labels"
    elif images.dtype != np.uint8:
        problem = f"pixels of type {images.dtype}, expected uint8"
    elif images.shape[3:] != last or images.shape[1] != images.shape[2]:
        expected = ", ".join(map(str, ("N", "S", "S", *last)))
        problem = f"images of shape {images.shape}, expected ({expected})"
    elif sorted(np.unique(labels)) != list(range(entry.classes)):
        problem = f"{len(np.unique(labels))} classes, expected {entry.classes}"
    if problem:
        raise DatasetError(f"{entry.name} {split} split: {problem}")


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
        size = (IMAGE_SIZE, IMAGE_SIZE)
        tensor = F.interpolate(tensor, size, mode="bilinear", antialias=True).clamp(0, 1)
    return tensor.contiguous(), torch.from_numpy(labels[order]).long()
