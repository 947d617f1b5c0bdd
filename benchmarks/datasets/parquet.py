"""Datasets in the layout of Hugging Face: each split in parquet files, an image a row."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np

from .images import decode
from .registry import DATASETS, DatasetError, Raw

# As `uoft-cs/cifar10` has them; `bytes` is an image file.
COLUMNS = {"img": "struct<bytes: binary, path: string>", "label": "int64"}


def read_parquet(name: str, folder: Path) -> Raw:
    """`<folder>/{train,test}-<k>-of-<n>.parquet`, with an image and its label in each row.

    Raises:
        DatasetError: pyarrow is not installed; files are missing, damaged, or hold something else.
    """
    train, test = (_read_split(name, folder, split) for split in ("train", "test"))
    return Raw(*train, *test, "Hugging Face parquet")


def _read_split(name: str, folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and labels."""
    files: dict[str, Path | BytesIO] = {}
    labels = []
    for path in _shards(folder, split):
        encoded, right = _rows(path)
        files |= {f"{path}, row {row}": BytesIO(image) for row, image in enumerate(encoded)}
        labels.append(right)
    images = decode(files, DATASETS[name].channels, f"{folder}/{split}-*")
    return images, np.concatenate(labels)


def _shards(folder: Path, split: str) -> list[Path]:
    """The files of a split, in their order."""
    found = sorted(path.name for path in folder.glob(f"{split}-*.parquet"))
    of = found[-1].removesuffix(".parquet").rpartition("-of-")[2] if found else ""
    count = int(of) if of.isdecimal() and len(of) == 5 else 1
    expected = [f"{split}-{k:05d}-of-{count:05d}.parquet" for k in range(count)]
    if odd := sorted({*found} ^ {*expected}):
        problem = "missing" if odd[0] in expected else f"not expected beside {found[-1]}"
        raise DatasetError(f"{folder / odd[0]} is {problem}; download the folder again")
    return [folder / name for name in expected]


def _rows(path: Path) -> tuple[list[bytes], np.ndarray]:
    """Image files, and their labels."""
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise DatasetError(f"{path} is read with pyarrow ({error}): pip install pyarrow") from error
    try:
        with ParquetFile(path) as file:
            columns = {column.name: str(column.type) for column in file.schema_arrow}
            table = file.read([*COLUMNS]) if COLUMNS.items() <= columns.items() else None
    # Damaged files raise almost anything.
    except Exception as error:
        problem = " ".join(str(error).split())
        raise DatasetError(f"{path} is damaged ({problem}); download it again") from error
    if table is None:
        raise DatasetError(f"{path} has the columns {_words(columns)}; expected {_words(COLUMNS)}")
    return table["img"].combine_chunks().field("bytes").to_pylist(), table["label"].to_numpy()


def _words(columns: dict[str, str]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in columns.items())
