"""Random classifiers whose accuracy is known, from `judge` to records, rows and the page."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from randomized_defense_bench.attacks import ATTACKS, ThreatModel, register_attack
from randomized_defense_bench.benchmarks.case import build_case
from randomized_defense_bench.benchmarks.evaluation import numbers_for, subject_of
from randomized_defense_bench.benchmarks.measure import measure
from randomized_defense_bench.benchmarks.verdict import judge
from randomized_defense_bench.defenses import Population
from randomized_defense_bench.leaderboard import records, rows
from randomized_defense_bench.leaderboard.__main__ import main
from stand_ins import Chance
from torch import nn

LINF = ThreatModel("Linf", 0.001)
EQUALS = ("equal-one", "equal-two", "equal-three")


class Member(nn.Module):
    """Right where its pixel is white."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def forward(self, images):
        right = images.flatten(1)[:, self.number]
        return torch.stack([right, 0.5 + 0 * right], dim=1)


LAW = (0.5, 0.3, 0.2)


@pytest.fixture
def equals(monkeypatch):
    """Three attacks that leave images as they are, and so are equally strong."""
    monkeypatch.setattr(ATTACKS, "_entries", {"none": ATTACKS["none"]})
    for name, kind in zip(EQUALS, ("authors", "population", "cascade"), strict=True):
        register_attack(name, kind=kind, norms=("Linf", "L2"))(
            lambda model, images, labels, *, threat_model: images
        )


def chance(generator, *, shared):
    """A population of one, 60 images with s_j of all sizes, and their mean over all images."""
    images = torch.rand(60, 1, 2, 2, generator=generator)
    return Population([Chance(shared=shared)], draws=16), images, 0.5


def finite(generator):
    """Three members under a law; images on which they are right with 0.9, 0.6 and 0.3."""
    right = torch.rand(60, 3, generator=generator) < torch.tensor([0.9, 0.6, 0.3])
    images = torch.cat([right.float(), torch.zeros(60, 1)], dim=1).view(60, 1, 2, 2)
    population = Population([Member(k) for k in range(3)], probabilities=LAW)
    return population, images, 0.5 * 0.9 + 0.3 * 0.6 + 0.2 * 0.3


MAKE = {
    "a draw an image": lambda generator: chance(generator, shared=False),
    "a draw a batch": lambda generator: chance(generator, shared=True),
    "a finite population": finite,
}


@pytest.mark.parametrize("make", list(MAKE))
def test_the_worst_case_of_equal_attacks_is_unbiased_and_its_interval_holds(equals, make):
    values, covered = [], []
    population, images, truth = MAKE[make](torch.Generator().manual_seed(0))
    labels, numbers = torch.zeros(60, dtype=torch.int64), numbers_for("own", "smoke", LINF, 60)
    looked_at = subject_of(population, images, labels, LINF, batch_size=60)
    for repetition in range(400):
        _, images, _ = MAKE[make](torch.Generator().manual_seed(repetition))
        subject, measured = replace(looked_at, images=images), []
        for attack in EQUALS:
            case = build_case(subject, attack, LINF, numbers, budget="smoke", seed=repetition)
            measured.append(measure(case, subject, headline=True)[0])
        (row,) = rows.rows(rows.populations(measured), "Linf", LINF.eps)
        values.append(row.worst.value)
        covered.append(row.worst.low <= truth <= row.worst.high)
    # What the mean of 400 may be off itself: two standard errors.
    slack = 2 * np.std(values) / 400**0.5
    assert abs(np.mean(values) - truth) < 0.005 + slack
    assert np.mean(covered) >= 0.93


@pytest.mark.parametrize("make", list(MAKE))
def test_judge_s_figures_are_those_of_the_records_and_of_the_page(equals, make, tmp_path):
    population, images, _ = MAKE[make](torch.Generator().manual_seed(0))
    verdict = judge(
        list(population.submodels),
        images,
        torch.zeros(60, dtype=torch.int64),
        LINF,
        probabilities=population.probabilities,
        draws=population.draws,
        budget="smoke",
        dataset="chances",
        name="chance",
        results=tmp_path / "records",
    )
    measured = records.read_all(tmp_path / "records")
    assert {record.case.attack for record in measured} == {"none", *EQUALS}
    (row,) = rows.rows(rows.populations(measured), "Linf", LINF.eps)
    assert row.worst == verdict.worst
    assert row.claimed == verdict.claimed
    assert main(["--results", str(tmp_path / "records")]) == 0
    page = (tmp_path / "LEADERBOARD.md").read_text()
    assert "| [chance]" in page
    assert f"{100 * verdict.worst.value:.1f}±" in page
