"""Pixels of image files, as they are shown."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image
from tqdm import tqdm

from .registry import DatasetError

# Pillow's names of pixels that bytes hold: of one bit, grey, of a palette, coloured.
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")


def decode(files: Mapping[str, Path | BytesIO], channels: int, what: str) -> np.ndarray:
    """Image files of one shape, (N, S, S) or (N, S, S, 3) bytes.

    Args:
        files: by the name that errors call them.
        channels: 1 for grey, 3 for colour.
        what: all of them, in words.

    Raises:
        DatasetError: one cannot be read, or bytes cannot tell what it shows.
    """
    progress = tqdm(files.items(), f"reading {what}", leave=False, disable=None)
    images = [_pixels(name, file, channels) for name, file in progress]
    shapes = {image.shape for image in images}
    if len(shapes) != 1:
        raise DatasetError(f"{what}: images of different shapes {sorted(shapes)[:3]}")
    return np.stack(images)


def _pixels(name: str, file: Path | BytesIO, channels: int) -> np.ndarray:
    try:
        with Image.open(file) as image:
            image.load()
    # Decoders raise almost anything.
    except Exception as error:
        raise DatasetError(f"{name} cannot be read ({error})") from error
    # Viewers turn it, most readers do not: which of them the networks saw cannot be known.
    if (turned := image.getexif().get(ExifTags.Base.Orientation, 1)) != 1:
        raise DatasetError(
            f"{name} has an EXIF orientation of {turned}, by which viewers turn it: save it as the "
            "networks saw it in training, without the tag"
        )
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
    raise DatasetError(f"{name} {problem}; save it as 8-bit {wanted}, without transparency")
