"""Records made by hand, for the tests of this folder."""

import hashlib
from dataclasses import replace

import numpy as np

from leaderboard.paper.evidence import Evidence
from leaderboard.records import Case, Facts, Record

CELL = Case(
    dataset="mnist",
    source="torchvision MNIST",
    sha256="0123456789abcdef" * 4,
    test_images=20,
    images=20,
    classes=10,
    defense="ulm",
    defense_version=1,
    defense_parameters={"recipe": {"epochs": 3}},
    submodels=2,
    attack="pgd",
    attack_version=1,
    attack_parameters={"steps": 40},
    norm="Linf",
    eps=0.3,
    images_per_draw=1,
    batch_size=250,
    protocol="draw",
    budget="quick",
    seed=0,
)


def weights_sha256(defense, submodels=2, seed=0, parameters=CELL.defense_parameters):
    """What stands for a population's weights."""
    return hashlib.sha256(f"{defense}{submodels}{seed}{parameters}".encode()).hexdigest()


CLAIM = ("fgsm", "mifgsm", "pgd", "autoattack")
KINDS = {
    **dict.fromkeys((*CLAIM, "pgd-eot"), "authors"),
    **dict.fromkeys(("square-population", "square-oracle"), "queries"),
    **dict.fromkeys(("none", "noise"), "control"),
    "worst-case": "cascade",
}


def record(right=10, *, headline=True, measured_at="2026-01-02T03:04:05+00:00", **changes):
    """A record whose first submodel is right on `right` of the images, the others on one less."""
    case = replace(CELL, **{"test_images": changes.get("images", CELL.images), **changes})
    if case.attack == "none":
        case = replace(case, eps=0.0)
    correct = np.ones(case.shape, dtype=bool)
    correct &= np.arange(case.images) < right
    correct[..., 1:, :] &= np.arange(case.images) < right - 1
    return Record(
        case=case,
        correct=correct,
        selecting=None if case.draws == 1 else (np.arange(case.images) < right).astype(float),
        facts=Facts(
            attack_kind=KINDS.get(case.attack, "population"),
            claim=CLAIM,
            random="which network answers",
            reference="arXiv:2111.10272",
            eps_unit=1 / 255 if case.dataset.startswith("cifar") else 1.0,
        ),
        population_sha256=weights_sha256(
            case.defense, case.submodels, case.seed, case.defense_parameters
        ),
        training_seconds=12.0,
        attack_seconds=1.5,
        unperturbed=0.0,
        largest_distance=case.eps,
        zero_gradients=0.0 if case.attack == "none" else None,
        repeatable=True if case.attack == "pgd-clipped-margin" else None,
        findings=() if case.attack == "none" else None,
        headline=headline,
        measured_at=measured_at,
        environment={"device": "cpu", "torch": "2.0", "commit": "c0ffee" * 6},
    )


COMPLETE = ("fgsm", "mifgsm", "pgd", "autoattack", "pgd-eot", "worst-case")


def row(defense, minimum, *, attacks=COMPLETE, **cell):
    """The records of one row; each attack leaves one image less, the last one `minimum`."""
    rights = {attack: minimum + len(attacks) - k for k, attack in enumerate(attacks, 1)}
    measured = [record(rights[a], defense=defense, attack=a, **cell) for a in attacks]
    clean = cell.get("images", 20) - 1
    return [record(clean, defense=defense, attack="none", **cell), *measured]


def gated(defense, minimum, **cell):
    """A row with all that the gates look at; all of them pass."""
    return [*row(defense, minimum, **cell), *checks(defense, minimum, **cell)]


def checks(defense, minimum, **cell):
    """What the gates look at beside what a rank needs, for a row with `minimum` images left."""
    eps = cell.get("eps", 0.3)
    size = cell.get("images", 20)
    curve = ((eps, minimum + 1), (eps + 0.05, minimum), (eps + 0.2, 0))
    cells = {k: v for k, v in cell.items() if k != "eps"}
    curve_records = [
        record(
            right, defense=defense, attack="pgd-clipped-margin", eps=at, headline=at == eps, **cells
        )
        for at, right in curve
    ]
    others = [
        record(right, defense=defense, attack=attack, protocol=protocol, **cell)
        for attack, protocol, right in (
            ("apgd-population", "draw", minimum),
            ("pgd-mean-ce", "draw", minimum + 1),
            ("pgd-mean-probability", "draw", minimum + 1),
            ("arc", "draw", minimum + 1),
            ("square-population", "draw", minimum + 1),
            ("square-oracle", "draw", minimum + 3),
            ("noise", "draw", size - 2),
            ("worst-case", "doubled", minimum),
            ("pgd", "transfer", minimum + 4),
        )
    ]
    return [*curve_records, *others]


def evidence(kind, *, seed=0, **changes):
    """Evidence of two submodels, ten images and round numbers."""
    n = 2
    ramp = np.linspace(0.1, 0.5, 5, dtype=np.float32)
    arrays = {
        "masks": {"mask": np.eye(3, dtype=bool)[None]},
        "weights": {
            name: spread * np.linspace(-1, 1, n * 2 * 9, dtype=np.float32).reshape(n, 2, 9)
            for name, spread in (("ulm", 0.1), ("clm", 0.3))
        },
        "trajectory": {
            "step": np.arange(3, dtype=np.float32),
            "linked": np.array([[0.0, 0.1, 0.2], [0.05, -0.1, -0.2]], np.float32),
            "free": np.array([[0.0, 0.0, 0.0], [0.1, 0.1, 0.1]], np.float32),
        },
        "saliency": {
            "ulm quantiles": ramp[None],
            "clm quantiles": ramp[None] / 2,
            "ulm mean": np.array([0.3], np.float32),
            "clm mean": np.array([0.15], np.float32),
            "ulm absolute": np.linspace(0.3, 0.32, 10, dtype=np.float32),
            "clm absolute": np.linspace(0.15, 0.17, 10, dtype=np.float32),
        },
        "size": {
            "sizes": np.array([1, 2], np.float32),
            **{
                f"{name} {column} s": np.outer([low, high], np.ones(10)).astype(np.float32)
                for name, column, low, high in (
                    *(("ulm", "claimed", 0, 0.25), ("clm", "claimed", 0, 0.5)),
                    *(("ulm", "worst", 0, 0), ("clm", "worst", 0, 0)),
                )
            },
        },
        "conformity": {
            "seeds": np.arange(2, dtype=np.float32),
            "clean": np.array([[0.98, 0.99], [0.985, 0.975]], np.float32),
            "claimed": np.array([[0.4, 0.5], [0.5, 0.6]], np.float32),
        },
        "examples": {
            "images": np.arange(2 * 2 * 16, dtype=np.uint8).reshape(2, 2, 1, 4, 4),
            "eps": np.array([0, 0.3], np.float32),
            "s": np.array([[1, 0.5], [0, 0.5]], np.float32),
            "labels": np.array([0, 1], np.uint8),
            "answers": np.array([[0, 1], [7, 1]], np.uint8),
        },
        "diversity": {
            f"{name} {what}": values
            for name in ("ulm", "clm")
            for what, values in (
                ("measures", np.array([[0.5], [0.1], [0.0], [0.2]], np.float32)),
                ("transfer", np.array([0.6], np.float32)),
                ("claimed", np.array([0.5], np.float32)),
                ("worst", np.array([0.25], np.float32)),
            )
        },
    }
    fields = {
        "kind": kind,
        "dataset": CELL.dataset,
        "source": CELL.source,
        "sha256": CELL.sha256,
        "budget": CELL.budget,
        "seed": seed,
        "parameters": {"images": 10, "eps": 0.3, "pair_eps": 0.1},
        "populations": {name: weights_sha256(name) for name in ("ulm", "clm")},
        "arrays": arrays[kind],
        "measured_at": "2026-01-02T03:04:05+00:00",
        "environment": {"device": "cpu"},
    }
    return Evidence(**{**fields, **changes})
