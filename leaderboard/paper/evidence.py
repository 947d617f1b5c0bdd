"""Evidence: what the paper's figures show beyond `correct[n, N]`, as arrays, one file each."""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

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
    return {f"{d} {name.replace('_', ' ')}": arrays[name] for d in COMPARED for name in arrays}


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
# Axes of one length in all evidence.
_LENGTHS = {"measures": len(DIVERSITY), "quantiles": len(QUANTILES)}
# More than any figure shows.
_MOST_BYTES = 2**28


class Measured(Sealed, frozen=True, kw_only=True, eq=False):
    """What a file of a study says of itself.

    Attributes:
        source: where the images came from; sha256 is of the decoded pixels and labels.
        populations: the SHA-256 of the weights looked at, by defense and seed.
        measured_at: UTC, ISO 8601.
    """

    kind: Name
    dataset: Name
    source: str
    sha256: str
    budget: Name
    seed: int
    populations: Mapping[str, str]
    measured_at: str

    @property
    def determined_by(self) -> list[Any]:
        """What else the content depends on, as JSON."""
        raise NotImplementedError

    @property
    def key(self) -> str:
        """A readable name, different where the data, budget, seed or numbers are."""
        identity = json.dumps([self.source, self.sha256, *self.determined_by], sort_keys=True)
        digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
        return f"{self.kind}-{self.dataset}-{self.budget}-s{self.seed}-{digest}"


class Evidence(Measured, frozen=True, kw_only=True, eq=False):
    """What one figure is drawn from.

    Attributes:
        kind: one of `KINDS`, which says what the arrays hold.
        parameters: what else determines the arrays: numbers of images, radii.
        environment: versions, device, commit.
        arrays: float32, uint8 or bool.
    """

    parameters: Mapping[str, Any]
    environment: Mapping[str, str]
    arrays: Mapping[str, Array]

    @property
    def determined_by(self) -> list[Any]:
        """Its parameters."""
        return [dict(self.parameters)]

    @property
    def eps(self) -> float | None:
        """The radius of its attacks, if defenses are ranked there."""
        return self.parameters.get("eps")


File = TypeVar("File", bound=Measured)


def read_measured(
    path: Path, parse: Callable[[Mapping[str, Any]], File], kinds: Collection[str]
) -> File:
    """Read one file, of one of several kinds.

    Raises:
        RecordError: it cannot be parsed, or is not of this version.
    """
    try:
        measured = parse(read_sealed(path))
        if measured.kind not in kinds:
            raise ValueError(f"kind {measured.kind!r}, known: {', '.join(kinds)}")
        if path.stem != measured.key:
            raise ValueError(f"it holds {measured.key}")
    except (OSError, ValueError, zlib.error) as error:
        raise RecordError(f"{path}: not usable ({error})") from error
    return measured


def folder_of(results: Path) -> Path:
    """Where the evidence of a folder of records lies."""
    return results / "evidence"


def write(evidence: Evidence, results: Path) -> Path:
    """Write evidence under its key, in place of an older one, and return the file's path.

    Raises:
        ValueError: arrays that are not what the kind says.
    """
    path = folder_of(results) / f"{evidence.key}.json"
    _check(evidence)
    content = msgspec.to_builtins(evidence, enc_hook=_encode)
    _parse(content)
    write_sealed(path, content)
    return path


def read(path: Path) -> Evidence:
    """Read one file.

    Raises:
        RecordError: it is no evidence, or not of this version.
    """
    return read_measured(path, _parse, KINDS)


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


def _parse(content: Mapping[str, Any]) -> Evidence:
    evidence = msgspec.convert(content, Evidence, dec_hook=_decode)
    _check(evidence)
    return evidence


class _Packed(msgspec.Struct, forbid_unknown_fields=True):
    """An array in JSON, where msgspec writes bytes in base64."""

    shape: list[int]
    dtype: Literal["float32", "uint8", "bool"]
    encoding: str
    data: bytes


def _encode(array: Array) -> dict[str, Any]:
    raw = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    encoding = "base64(zlib(little endian))"
    packed = {"dtype": array.dtype.name, "encoding": encoding, "data": zlib.compress(raw, 9)}
    return {"shape": list(array.shape), **packed}


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
    expected = KINDS.get(evidence.kind, {})
    if evidence.kind in KINDS and evidence.arrays.keys() != expected.keys():
        raise ValueError(f"arrays {sorted(evidence.arrays)}, expected {sorted(expected)}")
    lengths = dict(_LENGTHS)
    for name, axes in expected.items():
        array = evidence.arrays[name]
        if array.dtype.name not in ("float32", "uint8", "bool"):
            raise ValueError(f"{name} is of {array.dtype}, expected float32, uint8 or bool")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} has a value that is no finite number")
        if array.ndim != len(axes) or 0 in array.shape:
            raise ValueError(f"{name} has shape {array.shape}, expected ({', '.join(axes)})")
        for axis, length in zip(axes, array.shape, strict=True):
            if lengths.setdefault(axis, length) != length:
                raise ValueError(f"{name} has {length} {axis}, expected {lengths[axis]}")
