"""Evidence: what the paper's figures show beyond `correct[n, N]`, as arrays, one file each."""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from leaderboard.files import Name, Sealed, read_sealed, write_sealed
from leaderboard.records import RecordError, read_each

Array = npt.NDArray[Any]

# The defenses that the paper's figures compare.
COMPARED = ("ulm", "clm")
# Their adversarially trained counterparts.
ADVERSARIAL = ("ulm-adv", "clm-adv")
# How two submodels may differ; the rows of the "diversity" measures.
DIVERSITY = (
    "saliency (1 - cosine)",
    "first-layer weights (mean distance)",
    "answers to clean images (share that differ)",
    "answers to noise (share that differ)",
)
# Accuracies of two submodels: `transfer`, of one on images crafted on the other, mean of both ways;
# and MRA of the pair as a population.
OUTCOMES = {
    "transfer": "accuracy of one when the other is attacked",
    "claimed": "MRA of the pair under PGD on one",
    "worst": "MRA of the pair in the worst case",
}
# The quantiles of the "saliency" arrays.
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def _of_each(**arrays: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    return {
        f"{defense} {name.replace('_', ' ')}": axes
        for defense in COMPARED
        for name, axes in arrays.items()
    }


# The arrays of each kind, with the meaning of their axes. n submodels, N images; pairs (a, b) with
# a < b as in `pairs`; s is s_j, the share of submodels that answer image j right.
KINDS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "masks": {"mask": ("channels", "height", "width")},
    "weights": dict.fromkeys(COMPARED, ("n", "filters", "elements")),
    "trajectory": {"step": ("steps",), "linked": ("n", "steps"), "free": ("n", "steps")},
    # Cosines: quantiles over images and their mean; and for each image the mean of |cosine|.
    "saliency": _of_each(quantiles=("pairs", "quantiles"), mean=("pairs",), absolute=("N",)),
    "size": {"sizes": ("k",), **_of_each(claimed_s=("k", "N"), worst_s=("k", "N"))},
    "conformity": {"seeds": ("k",), "clean": ("k", "n"), "claimed": ("k", "n")},
    "examples": {
        "images": ("eps", "columns", "channels", "height", "width"),
        "eps": ("eps",),
        "s": ("eps", "columns"),
        "labels": ("columns",),
        "answers": ("eps", "columns"),
    },
    "diversity": _of_each(measures=("measures", "pairs"), **dict.fromkeys(OUTCOMES, ("pairs",))),
}
# More than any figure shows.
_MOST_BYTES = 2**28


# An array in JSON, where msgspec writes bytes in base64.
class _Packed(msgspec.Struct, forbid_unknown_fields=True):
    shape: list[int]
    dtype: Literal["float32", "uint8", "bool"]
    encoding: str
    data: bytes


class Evidence(Sealed, frozen=True, kw_only=True, eq=False):
    """What one figure is drawn from.

    Attributes:
        kind: one of `KINDS`, which says what the arrays hold.
        source: where the images came from; sha256 is of the decoded pixels and labels.
        budget: the budget's name.
        parameters: what else determines the arrays: numbers of images, radii.
        populations: the SHA-256 of the weights looked at, by defense and seed.
        arrays: float32, uint8 or bool.
        measured_at: UTC, ISO 8601.
        environment: versions, device, commit.
    """

    kind: str
    dataset: Name
    source: str
    sha256: str
    budget: Name
    seed: int
    parameters: Mapping[str, Any]
    populations: Mapping[str, str]
    arrays: Mapping[str, Array]
    measured_at: str
    environment: Mapping[str, str]

    @property
    def key(self) -> str:
        """A readable name, different where the data, budget, seed or parameters are."""
        identity = json.dumps([self.source, self.sha256, dict(self.parameters)], sort_keys=True)
        digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
        return f"{self.kind}-{self.dataset}-{self.budget}-s{self.seed}-{digest}"


def folder_of(results: Path) -> Path:
    """Where the evidence of a folder of records lies."""
    return results / "evidence"


def write(evidence: Evidence, results: Path) -> Path:
    """Write evidence under its key, in place of an older one, and return the file's path.

    Raises:
        ValueError: arrays that are not what the kind says.
    """
    _check(evidence)
    path = folder_of(results) / f"{evidence.key}.json"
    content = msgspec.to_builtins(evidence, enc_hook=_encode)
    content["arrays"] = content.pop("arrays")
    _parse(content)
    write_sealed(path, content)
    return path


def read(path: Path) -> Evidence:
    """Read one file.

    Raises:
        RecordError: it is no evidence, or not of this version.
    """
    try:
        evidence = _parse(read_sealed(path))
        _check(evidence)
        if path.stem != evidence.key:
            raise ValueError(f"it holds {evidence.key}")
    except (OSError, ValueError, zlib.error) as error:
        raise RecordError(f"{path}: not usable evidence ({error})") from error
    return evidence


def _parse(content: Mapping[str, Any]) -> Evidence:
    return msgspec.convert(content, Evidence, dec_hook=_decode)


def read_all(results: Path) -> list[Evidence]:
    """All evidence, in the order of the file names.

    Raises:
        RecordError: some cannot be used; the message names each.
    """
    return read_each(sorted(folder_of(results).glob("*.json")), read)


def pairs(submodels: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The pairs (a, b) with a < b, in the order of the arrays."""
    a, b = np.triu_indices(submodels, 1)
    return a, b


def _encode(array: Array) -> dict[str, Any]:
    raw = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    return {
        "shape": list(array.shape),
        "dtype": array.dtype.name,
        "encoding": "base64(zlib(little endian))",
        "data": zlib.compress(raw, 9),
    }


def _decode(_array: type, content: Any) -> Array:
    packed = msgspec.convert(content, _Packed)
    dtype = np.dtype(packed.dtype).newbyteorder("<")
    size = math.prod(packed.shape) * dtype.itemsize
    if not 0 <= size <= _MOST_BYTES:
        raise ValueError(f"an array of {size:,} bytes")
    raw = zlib.decompressobj().decompress(packed.data, size + 1)
    if len(raw) != size:
        raise ValueError(f"an array that does not hold {size:,} bytes")
    return np.frombuffer(raw, dtype).reshape(packed.shape)


def _check(evidence: Evidence) -> None:
    if evidence.kind not in KINDS:
        raise ValueError(f"kind {evidence.kind!r}, known: {', '.join(KINDS)}")
    expected = KINDS[evidence.kind]
    if evidence.arrays.keys() != expected.keys():
        raise ValueError(f"arrays {sorted(evidence.arrays)}, expected {sorted(expected)}")
    lengths = {
        "measures": len(DIVERSITY),
        "quantiles": len(QUANTILES),
    }
    for name, axes in expected.items():
        array = evidence.arrays[name]
        shape = array.shape
        if array.dtype.name not in ("float32", "uint8", "bool"):
            raise ValueError(f"{name} is of {array.dtype}, expected float32, uint8 or bool")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} has a value that is no finite number")
        if len(shape) != len(axes) or 0 in shape:
            raise ValueError(f"{name} has shape {shape}, expected ({', '.join(axes)})")
        for axis, length in zip(axes, shape, strict=True):
            if lengths.setdefault(axis, length) != length:
                raise ValueError(f"{name} has {length} {axis}, expected {lengths[axis]}")
