"""Datasets as tensors in [0, 1], with the name and the hash of where they came from."""

from __future__ import annotations

import hashlib
import warnings
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...attacks.seeding import generator
from .registry import DATASETS, DatasetEntry, DatasetError, Published, Raw

IMAGE_SIZE = 32


@dataclass(frozen=True)
class Dataset:
    """Training and test images of one dataset.

    Attributes:
        train_images, test_images: (N, C, 32, 32) float32 in [0, 1].
        train_labels, test_labels: (N,) int64 in [0, classes).
        source: what was published, or else the kind of files that the images came from.
        sha256: of the decoded pixels and labels before resizing, of both splits; of the test split
            only the images that are used, if they are used in their order.
        train_sha256, test_sha256: of each split; see `Published`.
        in_order: whether the test images are the first ones; see `Published`.
    """

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: int
    source: str
    sha256: str
    train_sha256: str
    test_sha256: str
    in_order: bool

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
    known = entry.published
    first = known.first if known else None
    train_sha256 = sha256_of(raw.train_images, raw.train_labels)
    test_sha256 = sha256_of(raw.test_images[:first], raw.test_labels[:first])
    source, in_order = raw.source, False
    if known and _is_published(known, raw, train_sha256, test_sha256, f"{name} under {root}"):
        source, in_order = known.source, first is not None
    elif known:
        source = f"not as published: {raw.source}"
        warnings.warn(
            f"{name} under {root} ({raw.source}) is not the published data set, and the page says "
            "so: its images, labels or their order differ "
            f"(sha256 {train_sha256[:8]}, {test_sha256[:8]})",
            stacklevel=2,
        )
    train = _subset(raw.train_images, raw.train_labels, train_images, "train")
    if in_order:
        test = raw.test_images[:test_images], raw.test_labels[:test_images]
        source += f", first {len(test[0]):,} test images"
        sha256 = sha256_of(raw.train_images, raw.train_labels, *test)
    else:
        test = _subset(raw.test_images, raw.test_labels, test_images, "test")
        sha256 = sha256_of(raw.train_images, raw.train_labels, raw.test_images, raw.test_labels)
    return Dataset(
        name,
        *_tensors(*train),
        *_tensors(*test),
        classes=entry.classes,
        source=source,
        sha256=sha256,
        train_sha256=train_sha256,
        test_sha256=test_sha256,
        in_order=in_order,
    )


def sha256_of(*arrays: np.ndarray) -> str:
    """SHA-256 of images (N, S, S) or (N, S, S, C) and labels (N,), one after the other."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(str((array.shape, array.dtype.kind)).encode())
        digest.update(np.ascontiguousarray(array, array.dtype if array.ndim > 1 else "<i8").data)
    return digest.hexdigest()


def sha256_in_any_order(images: np.ndarray) -> str:
    """SHA-256 of images, the same in whatever order they are and whatever their labels."""
    digests = sorted(hashlib.sha256(np.ascontiguousarray(image).data).digest() for image in images)
    return hashlib.sha256(b"".join(digests)).hexdigest()


def _is_published(known: Published, raw: Raw, train: str, test: str, what: str) -> bool:
    """Whether both splits are as published; False: they hold other images.

    Args:
        train, test: the hashes of the splits of `raw`.
        what: the dataset, and where it is.

    Raises:
        DatasetError: they hold the published images, but not all as they should be.
    """
    same = {"training": train == known.train, "test": test == known.test}
    if any(same.values()) or known.images == sha256_in_any_order(raw.train_images):
        if wrong := " and ".join(split for split in same if not same[split]):
            raise DatasetError(
                f"{what} ({raw.source}) is the published data set with images missing, changed, "
                f"reordered or mislabelled in the {wrong} split; get it anew, or name the files of "
                "a folder of images by their place in it, such as 00017.png"
            )
        return True
    return False


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


def _subset(
    images: np.ndarray, labels: np.ndarray, count: int | None, split: str
) -> tuple[np.ndarray, np.ndarray]:
    """The first `count` images of a fixed random order, with their labels."""
    order = torch.randperm(len(images), generator=generator(0, "subset", split))[:count].numpy()
    return images[order], labels[order]


def _tensors(images: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
    """Images and labels as networks take them."""
    pixels = torch.from_numpy(images)
    pixels = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
    tensor = pixels.float() / 255
    if tensor.shape[-1] != IMAGE_SIZE:
        size = (IMAGE_SIZE, IMAGE_SIZE)
        tensor = F.interpolate(tensor, size, mode="bilinear", antialias=True).clamp(0, 1)
    return tensor.contiguous(), torch.from_numpy(labels).long()
