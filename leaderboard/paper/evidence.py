"""Evidence: what the paper's figures show beyond `correct[n, N]`, as arrays, one file each."""

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ...arrays import Array
from ...files import Name, Sealed

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


class Measured(Sealed, frozen=True, kw_only=True, eq=False):
    """What a file of a study says of itself.

    Attributes:
        source: where the images came from; sha256 is of the decoded pixels and labels.
        populations: the SHA-256 of the weights looked at, by defense and seed.
        measured_at: UTC, ISO 8601.
    """

    KINDS: ClassVar[Collection[str]]
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

    def check(self) -> None:
        """Raise ValueError for another kind."""
        if self.kind not in self.KINDS:
            raise ValueError(f"kind {self.kind!r}, known: {', '.join(self.KINDS)}")


class Evidence(Measured, frozen=True, kw_only=True, eq=False):
    """What one figure is drawn from.

    Attributes:
        kind: one of `KINDS`, which says what the arrays hold.
        parameters: what else determines the arrays: numbers of images, radii.
        environment: versions, device, commit.
        arrays: float32, uint8 or bool.
    """

    FOLDER, KINDS = "evidence", KINDS
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

    def check(self) -> None:
        """Raise ValueError for another kind, or arrays that are not what the kind says."""
        super().check()
        expected, lengths = KINDS[self.kind], dict(_LENGTHS)
        if self.arrays.keys() != expected.keys():
            raise ValueError(f"arrays {sorted(self.arrays)}, expected {sorted(expected)}")
        for name, axes in expected.items():
            array = self.arrays[name]
            if not np.isfinite(array).all():
                raise ValueError(f"{name} has a value that is no finite number")
            if array.ndim != len(axes):
                raise ValueError(f"{name} has shape {array.shape}, expected ({', '.join(axes)})")
            for axis, length in zip(axes, array.shape, strict=True):
                if lengths.setdefault(axis, length) != length:
                    raise ValueError(f"{name} has {length} {axis}, expected {lengths[axis]}")


def pairs(submodels: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The pairs (a, b) with a < b, in the order of the arrays."""
    a, b = np.triu_indices(submodels, 1)
    return a, b
