"""Grids of trainings x attacks that tell why a number may differ from the paper's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ...attacks import Attack, ThreatModel
from ...leaderboard.paper import grids
from ...leaderboard.paper.grids import AT_LARGEST_RADIUS, GRIDS, Cell, Layout, Training
from ...leaderboard.paper.names import CASCADE, CLAIM_ATTACKS
from ...leaderboard.records import Protocol, Record
from ..experiment import Variant, Variation
from ..populations import Prepared
from ..session import Extras, Session
from .evidence import about

# Clean, under the paper's attacks, and under what the worst case is taken over with them.
SHOWN = ("none", *CLAIM_ATTACKS, CASCADE)


def measure_grid(session: Session, dataset: str, kind: str) -> tuple[Layout, int, int]:
    """Measure a grid's cases, or re-use their records, and write the grid.

    Returns:
        The grid, how many records were measured, and how many re-used.

    Raises:
        As `Session.prepare` and `Session.measure`.
    """
    figures = session.experiment(dataset).figures
    radii = [threat_model.eps for threat_model in session.radii(dataset)]
    at = ThreatModel("Linf", max(radii) if kind in AT_LARGEST_RADIUS else min(radii))
    beside = {defense: session.prepare(dataset, defense) for defense in GRIDS[kind]}
    columns: Sequence[str | Variant] = (*SHOWN, *figures.combined)
    if kind in ("variants", "variants-adv"):
        columns = figures.variants
    elif kind == "networks":
        columns = CLAIM_ATTACKS
    protocol: Protocol = "transfer" if kind == "networks" else "draw"
    trainings, measured = [], []
    for prepared, words in _trained(session, dataset, kind, beside):
        row = [_measured(session, prepared, column, at, protocol) for column in columns]
        training = Training(
            defense=prepared.defense,
            submodels=len(prepared.population),
            population_sha256=prepared.sha256,
            cells=tuple(cell for cell, _, _ in row),
            **words,
        )
        trainings.append(training)
        measured += row
    said = about(session, dataset, kind, beside)
    # The same records give the same file.
    said["measured_at"] = max(record.measured_at for _, record, _ in measured)
    said["images"] = measured[-1][1].case.images
    layout = Layout(**said, eps=at.eps, trainings=tuple(trainings))
    layout.write(session.options.results)
    count = sum(reused for _, _, reused in measured)
    return layout, len(measured) - count, count


def _trained(
    session: Session, dataset: str, kind: str, beside: Mapping[str, Prepared]
) -> Iterator[tuple[Prepared, dict[str, Any]]]:
    """A grid's populations, one at a time, with what their `Training` says in words."""
    figures = session.experiment(dataset).figures
    if kind in ("retraining", "retraining-adv"):
        for variation in figures.retrainings if kind == "retraining" else figures.continued:
            standard = replace(variation, name="") == Variation(defense=variation.defense)
            prefix = "" if standard or kind == "retraining-adv" else "retrained, "
            words = {
                "name": prefix + variation.name,
                "standard": standard,
                "more": how_long(variation),
            }
            yield session.prepare_varied(dataset, variation), words
    elif kind == "epochs":
        for prepared in beside.values():
            after = session.after_epochs(prepared)
            for epoch, prepared in enumerate(after, start=1):
                yield prepared, {"name": f"after epoch {epoch}", "standard": epoch == len(after)}
    else:
        yield from ((prepared, {}) for prepared in beside.values())


def _measured(
    session: Session,
    prepared: Prepared,
    column: str | Variant,
    at: ThreatModel,
    protocol: Protocol,
) -> tuple[Cell, Record, bool]:
    """A cell and its record, and whether that was on disk already."""
    if isinstance(column, str):
        how: dict[str, Any] = {"attack": column}
        attack, case = None, session.case(prepared, column, at, protocol)
    else:
        how = {"attack": column.attack, "run": column.name, "standard": column.standard}
        attack = as_published(column)
        case = replace(
            session.case(prepared, column.attack, at),
            attack=attack.name,
            attack_version=attack.version,
            attack_parameters=column.parameters,
            images_per_draw=column.images_per_draw,
        )
    images = session.experiment(prepared.dataset.name).figures.images
    case = replace(case, images=min(case.images, images))
    extras = Extras(folder=grids.folder_of(session.options.results))
    record, kept = session.measure_case(prepared, case, extras, attack=attack)
    return Cell(record=record.case.key, **how), record, kept


def as_published(variant: Variant) -> Attack:
    """A torchattacks attack without what the suite adds to it.

    MI-FGSM returns NaN where a gradient is zero: such an image stays as it was. FAB needs colour
    images with the channels first.
    """
    import torchattacks

    tool = getattr(torchattacks, variant.tool)

    def run(
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        threat_model: ThreatModel,
        **chosen: Any,
    ) -> Tensor:
        if variant.tool == "AutoAttack":
            # Left to itself it takes the time of day.
            chosen["seed"] = int(torch.randint(2**31, ()))
        elif "steps" in chosen:
            chosen.setdefault("alpha", threat_model.eps / chosen["steps"])
        attack = tool(model, eps=threat_model.eps, **chosen)
        attack.set_device(images.device)
        perturbed: Tensor = attack(images.contiguous(), labels).detach()
        return torch.where(perturbed.isfinite(), perturbed, images)

    name = f"torchattacks-{variant.tool.lower()}"
    return Attack(name, run, "authors", "submodel", ("Linf",), gradient_only=False, version=1)


def how_long(variation: Variation) -> str:
    """For how long, on what and at what learning rate a population was trained on, in words."""
    if not variation.start:
        return ""
    epochs = variation.recipe.get("epochs")
    how = "as many epochs" if epochs is None else f"{epochs} epoch{'s' if epochs > 1 else ''}"
    if variation.images:
        how += f" of {variation.images:,} images"
    if "learning_rate" in variation.recipe:
        how += f" at {variation.recipe['learning_rate']:g}"
    earlier = how_long(variation.start)
    return f"{earlier}, then {how}" if earlier else how
