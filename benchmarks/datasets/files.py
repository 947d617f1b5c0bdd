"""The files that a dataset is read from: torchvision's, parquet files, or a folder of images."""

from __future__ import annotations

import gzip
import re
import zlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...files import write_atomically
from .images import decode
from .parquet import read_parquet
from .registry import DATASETS, DatasetError, DatasetMissingError, Raw

if TYPE_CHECKING:
    from torchvision.datasets import ImageFolder


def read_files(name: str, kind: Any, root: Path, files: str, parquet: str | None = None) -> Raw:
    """torchvision's files under `root`; else parquet files; else images; else a download.

    A download that was broken off goes on where it stopped; its archives alone are enough.

    Args:
        name: of the registered dataset, and of the folder of images.
        kind: torchvision's class, which takes `train` and `download`, and keeps `files` in `root`.
        parquet: the folder of parquet files, in `root` or in its folder `name`; None: nobody has
            them.

    Raises:
        DatasetMissingError: there is nothing, and no download.
        DatasetError: what is there is damaged, or something else.
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
    named = [path for path in root.glob("*") if path.name == name and path.is_dir()]
    for folder in (root, *named):
        if parquet and any((folder / parquet).glob("*.parquet")):
            return read_parquet(name, folder / parquet)
    if named:
        return _image_folder(name, *named)
    try:
        return _torchvision(name, kind, root, download=True)
    except DatasetMissingError as error:
        raise DatasetMissingError(
            f"{name} is not under {root} and could not be downloaded ({error}). Put torchvision's "
            f"files into {root / files}, or "
            + (f"{{train,test}}-*.parquet into {root / name / parquet}, or " if parquet else "")
            + f"images at {root / name}/{{train,test}}/<class>/*, or name the folder that holds "
            "them with --data-root"
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
    """Pixels and labels, and the listing they came from.

    Where each file has one number in its name, as `00017.png`, and no two the same, they come in
    the order of these numbers; else class by class.
    """
    from torchvision.datasets import ImageFolder
    from torchvision.datasets.folder import is_image_file

    class Visible(ImageFolder):  # type: ignore[misc]
        """Without what is hidden, where notebooks keep copies of what was looked at."""

        def find_classes(self, directory: str) -> tuple[list[str], dict[str, int]]:
            found, _ = super().find_classes(directory)
            visible = [name for name in found if not name.startswith(".")]
            if not visible:
                raise FileNotFoundError(f"no folder in {directory}")
            return visible, {name: number for number, name in enumerate(visible)}

    def shown(path: str) -> bool:
        hidden = any(part.startswith(".") for part in Path(path).relative_to(folder).parts)
        return is_image_file(path) and not hidden

    try:
        listed = Visible(str(folder), is_valid_file=shown)
    except OSError as error:
        raise DatasetError(f"{folder}: expected <class>/* image files ({error})") from error
    samples = dict(listed.samples)
    numbers = {path: re.findall(r"\d+", Path(path).stem) for path in samples}
    if all(len(found) == 1 for found in numbers.values()):
        by_number = {int(number): path for path, (number,) in numbers.items()}
        if len(by_number) == len(samples):
            samples = {path: samples[path] for _, path in sorted(by_number.items())}
    files = {path: Path(path) for path in samples}
    images = decode(files, DATASETS[name].channels, str(folder))
    return images, np.asarray([*samples.values()]), listed
