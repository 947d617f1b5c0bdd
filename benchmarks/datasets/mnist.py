"""MNIST, as in the paper."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ...defenses import Recipe
from ...defenses.architectures import lenet5
from ..experiment import Variation, going_on, standard
from .files import read_files
from .registry import Published, Raw, register_dataset

# One epoch of 20,000 images instead of five of 60,000.
_IMAGES = 20_000
# ULM-Adv trained for longer, and then retrained, also with weights examined less often.
_ON, _LINKED, _ = going_on(1e-4, _IMAGES)
_BY_3 = replace(_ON, name="trained on for 3 epochs", recipe={"epochs": 3}, images=None)
_BY_6 = replace(_BY_3, name="trained on for 6 epochs", start=_BY_3)
_LINKED = replace(_LINKED, name=f"{_LINKED.name} {_BY_6.name}", start=_BY_6)
_RARELY = replace(_LINKED, name=f"{_LINKED.name}, examined every 10 steps", changes={"period": 10})
_LONGER = (_BY_3, _BY_6, _LINKED, _RARELY)
_RETRAININGS = (
    Variation(name="examined every 50 steps", defense="clm", changes={"period": 50}),
    Variation(name="examined every 200 steps", defense="clm", changes={"period": 200}),
    Variation(name="at a learning rate of 1e-3", defense="clm", changes={"learning_rate": 1e-3}),
)

_EXPERIMENTS = standard(
    radii={"Linf": (0.3, 0.4), "L2": (2.0,)},
    sweep_radii={"Linf": (0.05, 0.1, 0.15, 0.2, 0.25, 0.35, 0.5)},
    step_size=0.01,
    # The paper gives no number of epochs.
    recipe=Recipe(optimizer="adam", learning_rate=1e-3, epochs=10, batch_size=100),
    clm={"alpha": 0.1, "delta": 0.1, "period": 10},
    clm_adv={"alpha": 0.01, "delta": 0.005, "period": 1},
    pair_eps=0.1,
    shown_eps=(0.1, 0.2, 0.3, 0.4),
    continued_images=_IMAGES,
    # smoke, quick, paper
    train_images=(1000, None, None),
    test_images=(50, 1000, None),
    population_images=(1000, None, 1000),
    submodels=(2, 10, 10),
    epochs=(1, 3, 10),
    adversarial_epochs=(1, 2, 4),
    adversary_steps=(2, 7, 100),
    clm_epochs=(1, 5, 5),
    every_epoch=(True, True, True),
    quick_attacks={"arc_steps": 6},
    figure_images=(50, 500, 1000),
    watched_epochs=(1, 1, 5),
    retrainings=((), (), _RETRAININGS),
    continued=(_LONGER, (), _LONGER),
)
# Fewer points: one ranked radius, and a coarser curve.
_QUICK = _EXPERIMENTS["quick"]
_EXPERIMENTS["quick"] = replace(
    _QUICK,
    radii={**_QUICK.radii, "Linf": (0.3,)},
    sweep_radii={**_QUICK.sweep_radii, "Linf": (0.1, 0.15, 0.2, 0.25, 0.4, 0.5)},
)


@register_dataset(
    "mnist",
    channels=1,
    classes=10,
    network=lenet5,
    experiments=_EXPERIMENTS,
    published=Published(
        source="torchvision MNIST",
        train="ed0381352b54773179af709047cb993533730dfdf232926b342a0b2ff0dc9e49",
        test="9cf5219643f8ebd6fb6a3844407c3a340f6b106fd828441a52edaac87a2f6795",
        images="03a8a048601ebb4610dcd79cd759c718bed893982a4c153c4f33a41885101c0b",
    ),
)
def read(root: Path) -> Raw:
    """torchvision's files, or a folder of images."""
    from torchvision.datasets import MNIST

    return read_files("mnist", MNIST, root, "MNIST/raw")
