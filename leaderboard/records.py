"""Records: one measured cell a file, with all it takes to get the same number again."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from leaderboard import metrics
from leaderboard.files import read_sealed, write_sealed

SCHEMA_VERSION = 1

# What `correct` holds, by protocol.
PROTOCOLS = {
    "draw": "(n, N): the deployed population, one submodel drawn for each query",
    "doubled": "(n, N): the same under an attack with twice the steps",
    "alone": "(n, N): row i is submodel i deployed by itself, and attacked by itself",
    "average": "(1, N): the submodels deployed as an ensemble that averages probabilities",
    "transfer": "(n, n, N): crafted on submodel a, answered by submodel b",
}
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


File = TypeVar("File")


class RecordError(ValueError):
    """A record file that cannot be used; the message names it and says why."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What was measured: everything that determines the number, and nothing that does not.

    Attributes:
        source: where the images came from; sha256 is of the decoded pixels and labels.
        test_images: how many the budget has; images: how many of them, the first, were attacked.
        classes: K.
        defense_parameters, attack_parameters: keyword arguments, the training recipe included.
        images_per_draw: consecutive images perturbed with the same drawn submodel.
        batch_size: images perturbed at once; random starts depend on it.
        protocol: who is attacked and who answers, one of `PROTOCOLS`.
        budget: the budget's name.
        seed: of the population and the attack.
    """

    dataset: str
    source: str
    sha256: str
    test_images: int
    images: int
    classes: int
    defense: str
    defense_version: int
    defense_parameters: Mapping[str, Any]
    submodels: int
    attack: str
    attack_version: int
    attack_parameters: Mapping[str, Any]
    norm: str
    eps: float
    images_per_draw: int
    batch_size: int
    protocol: str
    budget: str
    seed: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of `correct`; see `PROTOCOLS`."""
        n = self.submodels
        leading = {"average": (1,), "transfer": (n, n)}.get(self.protocol, (n,))
        return (*leading, self.images)

    @property
    def key(self) -> str:
        """A readable name that is different for every different cell, fit for a file name."""
        canonical = json.dumps(asdict(self), sort_keys=True)
        digest = hashlib.sha256(canonical.encode()).hexdigest()[:10]
        names = f"{self.dataset}-{self.defense}-{self.attack}"
        if self.protocol != "draw":
            names += f"-{self.protocol}"
        return f"{names}-{self.norm.lower()}-{self.eps:.4g}-{self.budget}-s{self.seed}-{digest}"


@dataclass(frozen=True, kw_only=True)
class Record:
    """A cell and what came out.

    Attributes:
        cell: what was measured.
        correct: bool, submodel i classifies perturbed image j correctly; see `PROTOCOLS`.
        population_sha256: of the weights that were attacked.
        training_seconds: to train the population, excluding one it started from.
        attack_seconds: to craft the perturbed images.
        unperturbed: share of images that the attack left as they were.
        largest_distance: of a perturbed image from its clean one, in the cell's norm.
        zero_gradients: share of images at which the mean cross-entropy has no gradient at all;
            measured with the clean images only.
        repeatable: whether the same seed gave the same images twice; measured with one attack only.
        headline: whether this eps is one that defenses are ranked at, not only a point of a curve.
        measured_at: UTC, ISO 8601.
        environment: versions, device, commit.
        extra: what else the file held, from a version that knew more; kept, not used.
    """

    cell: Cell
    correct: metrics.Correct
    population_sha256: str
    training_seconds: float
    attack_seconds: float
    unperturbed: float
    largest_distance: float
    headline: bool
    measured_at: str
    zero_gradients: float | None = None
    repeatable: bool | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def mra(self) -> float:
        """Eq. 6."""
        return metrics.mra(self.correct)


def write(record: Record, folder: Path) -> Path:
    """Write a record under its key, in place of an older one, and return the file's path."""
    path = folder / f"{record.cell.key}.json"
    write_sealed(path, _encode(record))
    return path


def read(path: Path) -> Record:
    """Read one record.

    Raises:
        RecordError: not a record, of another schema version, changed since it was written, under
            another cell's name, or with parts that contradict each other.
    """
    try:
        record = _decode(read_sealed(path))
        if path.stem != record.cell.key:
            raise ValueError(f"it holds the cell {record.cell.key}")
    except (
        *(OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError),
        *(RecursionError, zlib.error),
    ) as error:
        raise RecordError(f"{path}: not a usable record ({error})") from error
    return record


def read_all(folder: Path) -> list[Record]:
    """All records of a folder, in the order of their file names.

    Raises:
        RecordError: some cannot be used; the message names each.
    """
    return read_each(sorted(folder.glob("*.json")), read)


def read_each(paths: Iterable[Path], read: Callable[[Path], File]) -> list[File]:
    """What `read` makes of each file.

    Raises:
        RecordError: of all files for which `read` raised one; the message has a line for each.
    """
    found, problems = [], []
    for path in paths:
        try:
            found.append(read(path))
        except RecordError as error:
            problems.append(str(error))
    if problems:
        raise RecordError("\n".join(problems))
    return found


# Computed from `correct` for people; never read back as scores.
_SHOWN = ("mra", "interval", "submodel_accuracies")
_ENCODED = ("cell", "correct", "extra")
# More than any experiment has submodels' answers.
_MOST_ANSWERS = 2**28


def _encode(record: Record) -> dict[str, Any]:
    score = metrics.score([record.correct])
    packed = zlib.compress(np.packbits(record.correct).tobytes(), 9)
    others = {f.name: getattr(record, f.name) for f in fields(record) if f.name not in _ENCODED}
    return {
        **record.extra,
        "schema_version": SCHEMA_VERSION,
        "cell": asdict(record.cell),
        "mra": score.value,
        "interval": [score.low, score.high],
        "submodel_accuracies": metrics.submodel_accuracies(record.correct).tolist(),
        **others,
        "correct": {
            "shape": list(record.correct.shape),
            "encoding": "base64(zlib(numpy.packbits))",
            "data": base64.b64encode(packed).decode(),
        },
    }


def _decode(data: dict[str, Any]) -> Record:
    if data["schema_version"] != SCHEMA_VERSION:
        raise ValueError(
            f"schema version {data['schema_version']}, this version reads {SCHEMA_VERSION}"
        )
    cell = Cell(**data["cell"])
    _check(cell)
    if tuple(data["correct"]["shape"]) != cell.shape:
        raise ValueError(
            f"correct has shape {data['correct']['shape']}, the cell says {cell.shape}"
        )
    count = math.prod(cell.shape)
    if count > _MOST_ANSWERS:
        raise ValueError(f"{count:,} answers, more than the {_MOST_ANSWERS:,} that are read")
    packed = base64.b64decode(data["correct"]["data"], validate=True)
    unpacked = zlib.decompressobj().decompress(packed, -(-count // 8) + 1)
    bits = np.unpackbits(np.frombuffer(unpacked, np.uint8))
    if len(unpacked) != -(-count // 8) or bits[count:].any():
        raise ValueError(f"correct does not hold {count:,} answers")
    known = {f.name for f in fields(Record)} - {*_ENCODED}
    record = Record(
        cell=cell,
        correct=bits[:count].reshape(cell.shape).astype(bool),
        extra={
            name: value
            for name, value in data.items()
            if name not in known and name not in (*_SHOWN, *_ENCODED, "schema_version")
        },
        **{name: data[name] for name in known},
    )
    check_types(record)
    if not _SHA256.fullmatch(record.population_sha256):
        raise ValueError(f"population_sha256 is {record.population_sha256!r}")
    for name in ("training_seconds", "attack_seconds", "unperturbed", "largest_distance"):
        if not 0 <= getattr(record, name) < math.inf:
            raise ValueError(f"{name} is {getattr(record, name)}")
    if not abs(record.mra - data["mra"]) <= 1e-12:
        raise ValueError(f"mra is {data['mra']}, its own data give {record.mra}")
    return record


# What JSON may hold for a field, by its annotation.
_NUMBER = (int, float)
_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": _NUMBER,
    "float | None": (*_NUMBER, type(None)),
    "bool": (bool,),
    "bool | None": (bool, type(None)),
    "Mapping[str, Any]": (dict,),
    "Mapping[str, str]": (dict,),
    "Mapping[str, float]": (dict,),
}
_VALUES: dict[str, tuple[type, ...]] = {"Mapping[str, str]": (str,), "Mapping[str, float]": _NUMBER}


def check_types(part: Any) -> None:
    """Refuse a field of a dataclass that is not what it is annotated as.

    Raises:
        ValueError: the message names it.
    """
    for each in fields(part):
        value, kinds = getattr(part, each.name), _KINDS.get(str(each.type))
        if kinds is None:
            continue
        wrong = not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)
        if each.type in _VALUES and not wrong:
            wrong = not all(isinstance(one, _VALUES[str(each.type)]) for one in value.values())
        if wrong:
            raise ValueError(f"{each.name} is {value!r}, expected {each.type}")


def _check(cell: Cell) -> None:
    """Refuse what no cell can be."""
    check_types(cell)
    for name in (cell.dataset, cell.defense, cell.attack, cell.budget):
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name: a-z, 0-9 and hyphens")
    if cell.protocol not in PROTOCOLS:
        raise ValueError(f"protocol {cell.protocol!r}, known: {', '.join(PROTOCOLS)}")
    for what in ("test_images", "images", "classes", "submodels", "images_per_draw", "batch_size"):
        value = getattr(cell, what)
        if value < 1:
            raise ValueError(f"{what} is {value}, expected 1 or more")
    if not 0 <= cell.eps < math.inf:
        raise ValueError(f"eps is {cell.eps!r}")
    if cell.norm not in ("Linf", "L2"):
        raise ValueError(f"norm {cell.norm!r}, known: Linf, L2")
    if not _SHA256.fullmatch(cell.sha256):
        raise ValueError(f"sha256 is {cell.sha256!r}, expected 64 hexadecimal digits")
