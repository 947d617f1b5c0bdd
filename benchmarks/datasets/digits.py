"""scikit-learn's handwritten digits: the dataset that needs no download."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ...attacks.seeding import generator
from ...defenses import Recipe
from ...defenses.architectures import lenet5
from ..experiment import standard
from .registry import Published, Raw, register_dataset

_EXPERIMENTS = standard(
    # 8 x 8 pixels hold less than MNIST's: at 0.3 too little is left to learn.
    radii={"Linf": (0.25,), "L2": (1.0,)},
    sweep_radii={"Linf": (0.05, 0.1, 0.15, 0.2, 0.3, 0.5)},
    step_size=0.01,
    recipe=Recipe(optimizer="adam", learning_rate=1e-3, epochs=100, batch_size=50),
    clm={"alpha": 0.1, "delta": 0.1, "period": 10},
    clm_adv={"alpha": 0.01, "delta": 0.005, "period": 1},
    pair_eps=0.05,
    shown_eps=(0.1, 0.2, 0.3, 0.4),
    # smoke, quick, paper
    train_images=(500, None, None),
    test_images=(50, 80, None),
    population_images=(1000, 1000, 1000),
    submodels=(2, 10, 10),
    epochs=(1, 8, 100),
    adversarial_epochs=(1, 4, 100),
    adversary_steps=(2, 4, 50),
    clm_epochs=(1, 8, 5),
    every_epoch=(True, True, False),
    quick_attacks={"queries": 500},
    # Of 80 images of ulm-adv three fall, on one network more, to APGD towards these classes alone.
    rivals=(0, 4, 9),
    figure_images=(50, 80, 200),
    watched_epochs=(1, 8, 20),
)


@register_dataset(
    "digits",
    channels=1,
    classes=10,
    network=lenet5,
    experiments=_EXPERIMENTS,
    published=Published(
        source="scikit-learn load_digits",
        train="fd486993632846d867081525b38cc8da7522565d3118f73c8dd80058117bebbc",
        test="b191b165634844b5858ae89996670410370a906e8fa88517bbb29c51788537c9",
    ),
)
def read(root: Path) -> Raw:  # noqa: ARG001
    """All 1,797, 8 x 8 pixels, four fifths for training."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    pixels = (images.reshape(-1, 8, 8) * (255 / 16)).round().astype(np.uint8)
    order = torch.randperm(len(pixels), generator=generator(0, "digits split")).numpy()
    train, test = np.split(order, [len(order) * 4 // 5])
    return Raw(pixels[train], labels[train], pixels[test], labels[test], "scikit-learn load_digits")
