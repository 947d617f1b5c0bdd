"""Records: one measured case a file, with all it takes to get the same number again."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from .. import metrics
from ..arrays import Array, Count, pack, unpack
from ..files import Name, read_each, read_named, write_sealed
from ..files import RecordError as RecordError
from . import committed

SCHEMA_VERSION = 2

# So many draws of each random member are shown to an attacker.
KNOWN_DRAWS = 4
# In so many steps the probability is told that a random member is right wherever in the ball.
LEVELS = 100
# What `correct` holds, by protocol. The rows of a random member are its draws.
PROTOCOLS = {
    "draw": "(n * draws, N): the deployed defense, one member drawn for each query",
    "doubled": "(n * draws, N): the same under an attack with twice the steps",
    "alone": "(n * draws, N): row i is member i deployed by itself, and attacked by itself",
    "known": f"(n * {KNOWN_DRAWS}, N): row i is a draw of a random member that the attacker sees",
    "average": "(draws, N): the members deployed as an ensemble that averages probabilities",
    "transfer": "(n, n * draws, N): crafted on member a, answered by member b",
    "certified": "(n * levels, N): no image of the ball is misclassified by member i; of a random "
    f"one level k of {LEVELS} says that a share of k / {LEVELS} of its draws does not, or more",
}
# Attacks: by authors of defenses, on one draw; by gradients on the whole law; without gradients;
# combining others; none at all; and what bounds them all.
Kind = Literal["authors", "population", "queries", "cascade", "control", "certificate"]
KINDS: tuple[Kind, ...] = get_args(Kind)

Norm = Literal["Linf", "L2"]
Protocol = Literal["draw", "doubled", "alone", "known", "average", "transfer", "certified"]
Sha256 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
Amount = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True)
class Case:
    """Everything that determines the number, and nothing that does not.

    Attributes:
        sha256: of the decoded pixels and labels.
        test_images: how many the budget has; images: how many of them, the first, are attacked.
        defense_parameters: keyword arguments, the training recipe included.
        submodels: n; draws: of each member that is random in itself; 1: it is deterministic.
        probabilities: with which members are drawn; None: uniform.
        attack_parameters: keyword arguments as they run.
        eps: radius in the norm, in units of pixels in [0, 1].
        images_per_draw: consecutive images perturbed with the same draw; batch_size: at once.
        seed: of the population and the attack.
    """

    dataset: Name
    source: str
    sha256: Sha256
    test_images: Count
    images: Count
    classes: Count
    defense: Name
    defense_version: int | Name
    defense_parameters: Mapping[str, Any]
    submodels: Count
    draws: Count = 1
    probabilities: tuple[float, ...] | None = None
    attack: Name
    attack_version: int | Name
    attack_parameters: Mapping[str, Any]
    norm: Norm
    eps: Amount
    images_per_draw: Count
    batch_size: Count
    protocol: Protocol
    budget: Name
    seed: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of `correct`; see `PROTOCOLS`."""
        n, rows = self.submodels, self.submodels * self.draws
        other = {"average": (self.draws,), "transfer": (n, rows), "known": (n * KNOWN_DRAWS,)}
        other["certified"] = (n * LEVELS if self.draws > 1 else n,)
        leading = other.get(self.protocol, (rows,))
        return (*leading, self.images)

    @property
    def key(self) -> str:
        """A readable name that is different for every different case, fit for a file name."""
        canonical = json.dumps(vars(self), sort_keys=True)
        digest = hashlib.sha256(canonical.encode()).hexdigest()[:10]
        names = f"{self.dataset}-{self.defense}-{self.attack}"
        if self.protocol != "draw":
            names += f"-{self.protocol}"
        return f"{names}-{self.norm.lower()}-{self.eps:.4g}-{self.budget}-s{self.seed}-{digest}"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the registries know of a case, so that the page need not know names.

    Attributes:
        attack_kind: one of `KINDS`.
        claim: the attacks by which the defense's authors measure it; their lowest is *claimed*.
        random: what is random in an answer, in words.
        reference: the defense's paper.
        eps_unit: what radii are written in multiples of.
    """

    attack_kind: Kind
    claim: tuple[Name, ...]
    random: str
    reference: str
    eps_unit: Annotated[float, Meta(gt=0)]


@dataclass(frozen=True, kw_only=True, eq=False)
class Record:
    """A case and what came out.

    Attributes:
        correct: bool, draw or member i classifies perturbed image j correctly; see `PROTOCOLS`.
        selecting: (N,) s_j on other draws, to compare attacks by; None: members are deterministic.
        population_sha256: of the weights; of networks that are in no registry also of their code.
        training_seconds: to train the population, excluding one it started from.
        unperturbed: share of images that the attack left as they were.
        largest_distance: of a perturbed image from its clean one, in the case's norm.
        headline: whether defenses are ranked at this radius; else it is a point of a curve.
        measured_at: UTC, ISO 8601.
        zero_gradients: share of clean images at which the mean cross-entropy has no gradient.
        repeatable: whether the same seed gave the same twice; measured with one attack only.
        findings: what was odd before anything was spent; with the clean images only.
        examples: (2, E, C, H, W) the first images as they are and perturbed, in 8 bits, of one
            channel or three; with the cascade at the first radius only.
        local: of a run on this machine, and not committed; by where the file lies, not in it.
        confirmed: committed, and a run on this machine gave the same answers; likewise.
        extra: what else the file held, from a version that knew more; kept, not used.
    """

    case: Case
    correct: metrics.Correct
    facts: Facts
    population_sha256: Sha256
    training_seconds: Amount
    attack_seconds: Amount
    unperturbed: Share
    largest_distance: Amount
    headline: bool
    measured_at: str
    selecting: npt.NDArray[np.float64] | None = None
    zero_gradients: Share | None = None
    repeatable: bool | None = None
    findings: tuple[str, ...] | None = None
    examples: npt.NDArray[np.uint8] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    local: bool = False
    confirmed: bool = False

    @cached_property
    def answers(self) -> metrics.Answers:
        """`correct` as scores take it; of "transfer" all pairs alike."""
        case, lawful = self.case, ("draw", "doubled", "known", "certified")
        rows, draws = self.correct.reshape(-1, case.images), {"known": KNOWN_DRAWS, "certified": 1}
        if case.protocol == "certified":
            # Levels are no draws: together they are one bound.
            rows = rows.reshape(case.submodels, -1, case.images).mean(axis=1)
        return metrics.Answers(
            rows,
            probabilities=case.probabilities if case.protocol in lawful else None,
            draws=draws.get(case.protocol, case.draws),
            block=case.images_per_draw,
            selecting=None if case.protocol == "transfer" else self.selecting,
        )

    @property
    def score(self) -> metrics.Score:
        """Accuracy, the expectation over draws (the paper's MRA, Eq. 6), with its interval."""
        return metrics.score([self.answers])


def write(record: Record, folder: Path) -> Path:
    """Write a record under its key, in place of an older one, and return the file's path.

    The file's `mra` and `interval` are shown to people.
    """
    path, score, content = folder / f"{record.case.key}.json", record.score, asdict(record)
    shares = None if record.selecting is None else record.selecting.tolist()
    shown = {"mra": score.value, "interval": [score.low, score.high], "selecting": shares}
    packed = {"schema_version": SCHEMA_VERSION, **shown, "correct": pack(record.correct, bits=True)}
    if (examples := content.pop("examples")) is not None:
        packed["examples"] = pack(examples)
    del content["local"], content["confirmed"]
    write_sealed(path, {**content.pop("extra"), **content, **packed})
    return path


def read(path: Path) -> Record:
    """Read one record.

    Raises:
        RecordError: not a record, of another schema version, changed since it was written, under
            another case's name, or with parts that contradict each other.
    """
    return read_named(path, decode, lambda record: record.case.key)


def read_all(folder: Path) -> list[Record]:
    """All records of a folder, in the order of their file names; see `read_each`.

    Of the local folder the committed ones first, those marked that it confirms; then, marked, all
    of those populations of which it holds anything that they do not.
    """
    here = {record.case.key: record for record in read_each(sorted(folder.glob("*.json")), read)}
    if not (beside := committed(folder)):
        return [*here.values()]
    known = {record.case.key: record for record in read_all(beside)}
    same = {
        key
        for key in known.keys() & here.keys()
        if np.array_equal(here[key].correct, known[key].correct)
        if here[key].headline <= known[key].headline
    }
    new = {record.population_sha256 for key, record in here.items() if key not in same}
    told = (record for record in (known | here).values() if record.population_sha256 in new)
    pictures = {key: here[key].examples for key in same if known[key].examples is None}
    listed = (
        replace(record, confirmed=key in same, examples=pictures.get(key, record.examples))
        for key, record in known.items()
    )
    return [*listed, *(replace(record, local=True) for record in told)]


def decode(data: dict[str, Any]) -> Record:
    """The record that a file's content is; raises one of `UNUSABLE` where it is none."""
    if (version := data["schema_version"]) != SCHEMA_VERSION:
        raise ValueError(f"schema version {version}, this version reads {SCHEMA_VERSION}")
    if unknown := data["case"].keys() - {f.name for f in fields(Case)}:
        raise ValueError(f"a case has no {', '.join(sorted(unknown))}")
    known = {*(f.name for f in fields(Record)), "schema_version", "mra", "interval"}
    extra = {name: value for name, value in data.items() if name not in known}
    content = {**data, "extra": extra, "local": False, "confirmed": False}
    record = msgspec.convert(content, Record, dec_hook=_array)
    case, selecting, law = record.case, record.selecting, record.case.probabilities
    if record.correct.shape != case.shape:
        raise ValueError(f"correct has shape {record.correct.shape}, the case says {case.shape}")
    selected = case.draws > 1 and case.protocol not in ("known", "certified")
    if (None if selecting is None else len(selecting)) != (case.images if selected else None):
        raise ValueError("selecting has one share an image where members are random, else nothing")
    if law is not None and (len(law) != case.submodels or abs(sum(law) - 1) > 1e-9):
        raise ValueError(f"probabilities are {law}, expected {case.submodels} of sum 1")
    if (examples := record.examples) is not None:
        pair, count, channels = (*examples.shape, 0, 0, 0)[:3]
        fits = examples.ndim == 5 and pair == 2 and channels in (1, 3)
        if examples.dtype != np.uint8 or not fits or count > case.images:
            raise ValueError(f"examples are {examples.dtype} of shape {examples.shape}")
    mra = float(record.answers.s.mean())
    if not abs(mra - data["mra"]) <= 1e-12:
        raise ValueError(f"mra is {data['mra']}, its own data give {mra}")
    return record


def _array(_: object, value: Any) -> Array:
    """What was packed, or the shares of `selecting`."""
    shares = isinstance(value, list)
    return np.array(msgspec.convert(value, list[Share])) if shares else unpack(value)
