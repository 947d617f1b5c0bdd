"""Records made by hand, for the tests of this folder."""

import hashlib
import json
from dataclasses import fields, replace

import numpy as np
from randomized_defense_bench.leaderboard.paper.evidence import Evidence
from randomized_defense_bench.leaderboard.paper.grids import Cell, Layout, Training, scored
from randomized_defense_bench.leaderboard.records import Case, Facts, Record

from randomized_defense_bench.files import write_sealed

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


def same(first, second):
    """Whether two records are equal, arrays and all."""
    arrays = ("correct", "selecting", "examples")
    return all(
        np.array_equal(getattr(first, f.name), getattr(second, f.name))
        if f.name in arrays
        else getattr(first, f.name) == getattr(second, f.name)
        for f in fields(first)
    )


def spoil(path, **changes):
    """Change a file as somebody would who seals it again."""
    content = {**json.loads(path.read_text()), **changes}
    content.pop("seal")
    write_sealed(path, content)


def weights_sha256(defense, submodels=2, seed=0, parameters=CELL.defense_parameters):
    """What stands for a population's weights."""
    return hashlib.sha256(f"{defense}{submodels}{seed}{parameters}".encode()).hexdigest()


CLAIM = ("fgsm", "mifgsm", "pgd", "autoattack")
KINDS = {
    **dict.fromkeys((*CLAIM, "pgd-eot"), "authors"),
    **dict.fromkeys(("square-population", "square-oracle"), "queries"),
    **dict.fromkeys(("none", "noise"), "control"),
    "worst-case": "cascade",
    "interval-bounds": "certificate",
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
        selecting=None
        if case.draws == 1 or case.protocol == "known"
        else (np.arange(case.images) < right).astype(float),
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


def row(defense, minimum, *, attacks=COMPLETE, clean=None, **cell):
    """The records of one row; each attack leaves one image less, the last one `minimum`.

    Args:
        attacks: may say how many images each leaves instead.
    """
    rights = {attack: minimum + len(attacks) - k for k, attack in enumerate(attacks, 1)}
    rights |= attacks if isinstance(attacks, dict) else {}
    rights = {"none": clean or cell.get("images", 20) - 1, **rights}
    return [record(n, defense=defense, attack=attack, **cell) for attack, n in rights.items()]


def gated(defense, minimum, *, attacks=COMPLETE, clean=None, **cell):
    """A row with all that the gates look at; all of them pass."""
    measured = row(defense, minimum, attacks=attacks, clean=clean, **cell)
    return [*measured, *checks(defense, minimum, **cell)]


def masked(measured, *defenses):
    """The same where half of the images of these have no gradient, which fails a gate."""
    return [
        replace(one, zero_gradients=0.5)
        if one.case.attack == "none" and one.case.defense in defenses
        else one
        for one in measured
    ]


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


OF_A_STUDY = {
    **{name: getattr(CELL, name) for name in ("dataset", "source", "sha256", "budget", "seed")},
    "measured_at": "2026-01-02T03:04:05+00:00",
}


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
    parts = {
        **OF_A_STUDY,
        "kind": kind,
        "seed": seed,
        "parameters": {"images": 10, "eps": 0.3, "pair_eps": 0.1},
        "populations": {name: weights_sha256(name) for name in ("ulm", "clm")},
        "arrays": arrays[kind],
        "environment": {"device": "cpu"},
    }
    return Evidence(**{**parts, **changes})


def training(defense, shares, *, name="", standard=None, more=""):
    """A population of 100 of whose members as many answer each image right as `shares` says.

    Args:
        shares: by attack, or by attack and what is different about its run.
        standard: whether it is the suite's; None: if it has no name.
    """
    named = ((key if isinstance(key, tuple) else (key, ""), s) for key, s in shares.items())
    cells = tuple(
        Cell(attack=attack, run=run, standard=not run, right=bytes([round(100 * share)] * 10))
        for (attack, run), share in named
    )
    standard = not name if standard is None else standard
    return Training(
        defense=defense, name=name, standard=standard, more=more, submodels=100, cells=cells
    )


def told_apart(defense, by_attack):
    """A population by the member that was attacked and the one that answers: (n, n) by attack."""
    cells = tuple(
        Cell(attack=attack, accuracies=tuple(map(tuple, np.asarray(matrix).tolist())))
        for attack, matrix in by_attack.items()
    )
    return Training(defense=defense, submodels=len(cells[0].accuracies), cells=cells)


def grid(kind, *trainings, eps=0.3, **changes):
    """A grid of shares."""
    parts = {**OF_A_STUDY, "budget": "paper", "images": 10, "populations": {}, **changes}
    return scored(Layout(kind=kind, eps=eps, trainings=trainings, **parts), {})
