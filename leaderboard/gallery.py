"""Galleries: test images as they are and as the cascade leaves them."""

import json
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from .drawing import FOREGROUND, Figure, panels, plain
from .records import Record
from .rows import Row


@dataclass(frozen=True, eq=False)
class Gallery:
    """A row's first test images under its cascade, by two records of one population and seed."""

    label: str
    clean: Record
    attacked: Record

    @property
    def file(self) -> str:
        """Where it is drawn, under `figures/`."""
        record = self.attacked
        return f"gallery-{record.case.key}-{record.population_sha256[:8]}.svg"

    @property
    def shares(self) -> list[npt.NDArray[np.float64]]:
        """(E,) twice: s_j of each image that is shown, as it is and attacked."""
        shown = self.images.shape[1]
        return [record.answers.s[:shown] for record in (self.clean, self.attacked)]

    @property
    def images(self) -> npt.NDArray[np.uint8]:
        """(2, E, H, W, 3): as they are, and attacked."""
        assert self.attacked.examples is not None
        images = np.moveaxis(self.attacked.examples, 2, -1)
        return np.broadcast_to(images, (*images.shape[:-1], 3))

    @property
    def figure(self) -> Figure:
        """Three lines of images: as they are, attacked, and the difference."""
        told = json.dumps([self.label, *(shares.tolist() for shares in self.shares)])
        return Figure(self.file, told.encode() + self.images.tobytes(), partial(_draw, self))


def gallery(row: Row) -> Gallery | None:
    """Of the row's first seed that holds images; None: none does."""
    clean = row.by_attack.get("none", {})
    for seed, record in sorted(row.cascade.items()):
        if record.examples is not None and seed in clean:
            return Gallery(row.label, clean[seed], record)
    return None


def _draw(shown: Gallery, figure: Any) -> None:
    plain_images, attacked = shown.images
    difference = attacked.astype(float) - plain_images
    # Grey where nothing is changed, black and white where most is.
    magnified = (difference / max(1.0, np.abs(difference).max()) + 1) / 2
    clean, worst = ([f"{share:.0%}" for share in shares] for shares in shown.shares)
    lines = (
        ("as it is", plain_images, clean),
        ("attacked", attacked, worst),
        ("difference", magnified, [""] * len(clean)),
    )
    right = " → ".join(f"{shares.mean():.0%}" for shares in shown.shares)
    figure.suptitle(f"Correct answers of {plain(shown.label)} to these images: {right}")
    count = len(clean)
    for place, panel in enumerate(panels(figure, 1.1 * count + 0.9, 4.2, 3, count)):
        name, images, texts = lines[place // count]
        # As pixels, which a viewer enlarges.
        panel.imshow(images[place % count], interpolation="none")
        panel.set(xticks=[], yticks=[])
        panel.grid(visible=False)
        panel.spines[:].set_visible(False)
        panel.set_title(texts[place % count], fontsize=9)
        if place % count == 0:
            panel.set_ylabel(name, color=FOREGROUND)
