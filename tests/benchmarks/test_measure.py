"""How a case becomes a record: what is drawn for what, and in what order."""

import numpy as np
import pytest
import torch
from networks import telling
from randomized_defense_bench.attacks import ATTACKS, Attack, ThreatModel
from randomized_defense_bench.benchmarks.evaluation import evaluate
from randomized_defense_bench.benchmarks.measure import answers_of, shown
from randomized_defense_bench.defenses import Population
from randomized_defense_bench.defenses.surrogate import Plan
from randomized_defense_bench.leaderboard import records
from stand_ins import Chance, linear
from torch import nn

IMAGES, LABELS = torch.full((30, 1, 1, 2), 0.5), torch.zeros(30, dtype=torch.int64)
LINF = ThreatModel("Linf", 0.01)


def measured(population, attack="pgd-mean-ce", seed=0, **options):
    options = {"budget": "smoke", **options}
    return evaluate(population, IMAGES, LABELS, attack, LINF, seed=seed, **options).record


def test_a_random_population_is_selected_and_scored_on_draws_of_their_own():
    record = measured(Population([Chance()], draws=8))
    assert record.selecting.shape == (30,)
    assert not np.array_equal(record.selecting, record.answers.s)
    # Both are estimates of one half, from 240 coins each.
    assert record.selecting.mean() == pytest.approx(0.5, abs=0.15)
    assert record.answers.s.mean() == pytest.approx(0.5, abs=0.15)


def test_draws_are_a_function_of_the_seed_whatever_was_drawn_or_measured_before():
    first = measured(Population([Chance(), Chance()], draws=4))
    torch.rand(3)
    measured(Population([Chance()], draws=4), "fgsm")
    again = measured(Population([Chance(), Chance()], draws=4))
    assert np.array_equal(first.correct, again.correct)
    assert np.array_equal(first.selecting, again.selecting)
    other = measured(Population([Chance(), Chance()], draws=4), seed=1)
    assert not np.array_equal(first.correct, other.correct)
    assert not np.array_equal(first.selecting, other.selecting)


def test_a_deterministic_population_selects_by_what_is_scored():
    record = measured(Population([linear(1.0, -1.0), linear(-1.0, 1.0)]))
    assert record.selecting is None
    assert np.array_equal(record.answers.selected, record.answers.s)


def test_what_ran_before_does_not_change_an_attack():
    """A copy that one attack has built serves the next."""
    images = torch.rand(12, 1, 1, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(12, dtype=torch.int64)

    def perturbed(population, attack):
        return evaluate(population, images, labels, attack, ThreatModel("Linf", 0.3)).images

    fresh, used = (Population([linear(1.0, -2.0), linear(-1.0, 3.0)]) for _ in range(2))
    perturbed(used, "pgd-clipped-margin")
    for attack in ("pgd-mean-ce", "pgd"):
        assert torch.equal(perturbed(fresh, attack), perturbed(used, attack))


@pytest.mark.parametrize(
    ("attack", "protocol"),
    [
        ("autoattack", "draw"),
        *(("worst-case", protocol) for protocol in ("draw", "alone", "average", "doubled")),
    ],
)
def test_searches_in_low_precision_end_where_those_in_full_do(attack, protocol):
    """They look at rough copies, and count what the networks themselves answer."""
    torch.manual_seed(0)
    images = torch.rand(20, 1, 32, 32)
    population = Population([telling(images) for _ in range(2)])
    labels = population.logits(images).softmax(-1).mean(0).argmax(1)
    rough, exact = (
        evaluate(
            *(population, images, labels, attack, ThreatModel("Linf", 0.002)),
            plan=Plan(stacked=False, chunk=20, dtype="bfloat16", searches=searches),
            protocol=protocol,
            budget="smoke",
        )
        for searches in ("bfloat16", "float32")
    )
    assert not torch.equal(rough.images, exact.images)
    counted = rough.record.score.value, exact.record.score.value
    assert 0.1 < counted[1] < 0.9
    assert counted[0] == pytest.approx(counted[1], abs=0.1)


def test_an_attack_is_given_the_network_itself_in_evaluation_mode_beside_a_rough_copy(monkeypatch):
    """Whatever ran before: nothing of the copy is a part of it."""
    seen = []

    def look(model, images, labels, *, threat_model):
        model(images), labels, threat_model
        seen.append(
            (model.training, {p.dtype for p in model.parameters()}, len([*model.modules()]))
        )
        return images

    torch.manual_seed(0)
    images = torch.rand(4, 1, 32, 32)
    population = Population([telling(images) for _ in range(2)])
    labels = population.submodels[0](images).argmax(1)
    plan = Plan(stacked=False, chunk=20, dtype="bfloat16", searches="bfloat16")
    monkeypatch.setitem(ATTACKS._entries, "look", Attack("look", look))
    for _ in range(2):
        evaluate(*(population, images, labels, "look", LINF), plan=plan)
        evaluate(*(population, images, labels, "worst-case", LINF), plan=plan, budget="smoke")
    first, *others = seen
    assert first[:2] == (False, {torch.float32})
    assert others == [first] * len(others) != []


@pytest.mark.parametrize("draws", [1, 4])
def test_records_of_all_protocols_have_their_shapes_and_are_read_again(draws, tmp_path):
    def member(k):
        return Chance() if draws > 1 else linear(1.0, float(k))

    population = Population([member(0), member(1)], draws=draws)
    for protocol in ("draw", "alone", "transfer", "average" if draws == 1 else "known"):
        attack = "pgd" if protocol == "transfer" else "worst-case"
        record = measured(population, attack, protocol=protocol)
        assert record.correct.shape == record.case.shape
        assert record.score.low <= record.score.value <= record.score.high
        assert records.read(records.write(record, tmp_path)).score == record.score


class Coin(nn.Module):
    """Class 0 where the first pixel, times a coin that each pass throws, is above 0.05."""

    def forward(self, images):
        coin = torch.randn(()).sign()
        margin = coin * (images.flatten(1)[:, 0] - 0.5) + 0.05
        return torch.stack([margin, 0 * margin, 0 * margin - 1, 0 * margin - 1], dim=1)


def test_an_attacker_who_sees_the_draw_fools_what_a_hidden_one_saves():
    hidden, known = (
        evaluate(
            Population([Coin()], draws=16),
            torch.full((24, 1, 1, 2), 0.52),
            torch.zeros(24, dtype=torch.int64),
            "worst-case",
            ThreatModel("Linf", 0.1),
            protocol=protocol,
        )
        for protocol in ("draw", "known")
    )
    assert hidden.score.value == pytest.approx(0.5, abs=0.2)
    assert known.correct.shape == (4, 24)
    assert known.score.value == 0


def test_answers_are_by_row_and_image_in_evaluation_mode():
    members = [linear(1.0, 1.0), torch.nn.Sequential(linear(-1.0, -1.0), torch.nn.Dropout(0.9))]
    population = Population(members).train()
    labels = torch.tensor([0, 1, 0])
    correct = answers_of(population, IMAGES[:3], labels, seed=0, batch_size=2)
    # The second's logits are (-1, 0, 0, 0): the first of the zeros is class 1.
    assert correct.tolist() == [[True, False, True], [False, True, False]]
    assert population.training


@pytest.mark.parametrize(
    ("shape", "kept"),
    [
        ((9, 1, 4, 4), (2, 5, 1, 4, 4)),
        ((9, 2, 4, 6), (2, 5, 1, 4, 6)),
        ((9, 3, 4, 4), (2, 5, 3, 4, 4)),
        ((2, 3, 224, 224), (2, 1, 3, 224, 224)),
        ((3, 1, 4, 4), (2, 3, 1, 4, 4)),
    ],
)
def test_a_record_holds_a_few_images_to_be_shown(shape, kept):
    images = torch.rand(shape)
    pair = shown(images, images / 2, 5)
    assert pair.shape == kept
    assert abs(pair[1].astype(float) - pair[0] / 2).max() <= 1
