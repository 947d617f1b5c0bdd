"""Crafting, on linear networks whose right answer is known by hand."""

from dataclasses import replace

import pytest
import torch
from networks import PARAMETERS as ON_THE_POPULATION
from randomized_defense_bench.attacks import ATTACKS, ThreatModel, craft
from randomized_defense_bench.attacks.registry import Attack
from randomized_defense_bench.defenses import Population
from randomized_defense_bench.defenses.architectures import lenet5
from randomized_defense_bench.defenses.surrogate import Plan, Surrogate
from stand_ins import linear
from torch import nn

LINF = ThreatModel("Linf", 0.1)


def images_and_labels(count):
    images = torch.linspace(0.2, 0.8, 2 * count).view(count, 1, 1, 2)
    return images, torch.zeros(count, dtype=torch.int64)


PARAMETERS = {
    "pgd": {"steps": 20, "step_size": 0.02},
    "mifgsm": {"steps": 5, "decay": 1.0},
    "pgd-eot": {"steps": 20, "step_size": 0.02, "draws": 3},
    "autoattack": {"steps": 10, "queries": 10},
    "square-oracle": {"queries": 20},
    **ON_THE_POPULATION,
}


def run(attack, population, images, labels, threat_model=LINF, **options):
    chosen = attack if isinstance(attack, Attack) else ATTACKS[attack]
    options = {"seed": 0, "parameters": PARAMETERS.get(attack, {}), "batch_size": 16, **options}
    return craft(chosen, population, images, labels, threat_model, **options)


def attack_of(function):
    about = {"kind": "authors", "surrogate": "submodel", "norms": ("Linf",)}
    return Attack(name="mine", function=function, gradient_only=False, version=1, **about)


def test_fgsm_by_hand():
    images, labels = images_and_labels(3)
    crafted = run("fgsm", Population([linear(1.0, -2.0)]), images, labels)
    # The loss of class 0 grows against the weights' signs.
    assert torch.allclose(crafted.images, images + 0.1 * torch.tensor([-1.0, 1.0]))


@pytest.mark.parametrize("attack", ["pgd", "mifgsm", "pgd-eot"])
def test_iterated_attacks_reach_the_corner_that_is_optimal_on_a_linear_network(attack):
    images, labels = images_and_labels(4)
    population = Population([linear(1.0, -2.0)] * 2)
    crafted = run(attack, population, images, labels)
    assert torch.allclose(crafted.images, images + 0.1 * torch.tensor([-1.0, 1.0]), atol=1e-6)


@pytest.mark.parametrize("attack", [a for a in ATTACKS if "Linf" in ATTACKS[a].norms])
def test_every_attack_obeys_the_threat_model_repeats_itself_and_leaves_no_trace(attack):
    images, labels = images_and_labels(6)
    before = images.clone()
    population = Population([linear(1.0, -2.0), linear(-1.0, 0.5)])
    population.submodels[0].eval()
    modes = [module.training for module in population.modules()]
    state = torch.get_rng_state()
    first = run(attack, population, images, labels)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)
    second = run(attack, population, images, labels)
    assert torch.equal(first.images, second.images)
    assert torch.equal(images, before)
    assert [module.training for module in population.modules()] == modes
    assert all(weight.requires_grad for weight in population.parameters())


@pytest.mark.parametrize("attack", [a for a in ATTACKS if "Linf" in ATTACKS[a].norms])
def test_every_attack_takes_colours_with_the_channels_last_to_its_end(attack):
    """On a network so sure that no attack is done early."""
    layers = nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(64, 4)
    with torch.no_grad():
        layers[-1].bias.copy_(torch.tensor([100.0, 0, 0, 0]))
    network = nn.Sequential(*layers).to(memory_format=torch.channels_last)
    images = torch.rand(3, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(3, dtype=torch.int64)
    crafted = run(attack, Population([network]), images, labels)
    assert (network(crafted.images).argmax(1) == labels).all()


def test_each_image_is_crafted_on_the_submodel_drawn_for_it():
    images, labels = images_and_labels(40)
    submodels = [linear(1.0, 1.0), linear(-1.0, -1.0)]
    crafted = run("fgsm", Population(submodels), images, labels)
    direction = (crafted.images - images).sign().flatten(1)[:, 0]
    expected = torch.where(crafted.surrogates == 0, -1.0, 1.0)
    assert torch.equal(direction, expected)
    assert 5 < crafted.surrogates.sum() < 35


def test_one_draw_can_serve_consecutive_images():
    images, labels = images_and_labels(25)
    population = Population([linear(1.0, 1.0)] * 1000)
    crafted = run("none", population, images, labels, images_per_draw=10)
    blocks = crafted.surrogates.split(10)
    assert [len(block.unique()) for block in blocks] == [1, 1, 1]
    assert len({int(block[0]) for block in blocks}) == 3


class Noisy(nn.Module):
    """A linear network on an image with noise, which remembers the noise."""

    def __init__(self):
        super().__init__()
        self.inner = linear(1.0, 1.0)
        self.noise = []

    def forward(self, batch):
        self.noise.append(torch.randn_like(batch))
        return self.inner(batch + 0.1 * self.noise[-1])


class OneNoise(nn.Module):
    """A linear network that draws once a pass."""

    def __init__(self):
        super().__init__()
        self.inner = linear(1.0, 1.0)

    def forward(self, batch):
        return self.inner(batch + torch.randn(()))


def noise_seen(population, images_per_draw):
    """The noise of three passes of an attack on one draw, by block of images: (blocks, 3, ...)."""
    images, labels = images_and_labels(6)

    def ask_thrice(model, images, labels, threat_model):
        for _ in range(3):
            torch.rand(1)
            model(images)
        return images

    run(attack_of(ask_thrice), population, images, labels, images_per_draw=images_per_draw)
    noise = [one for member in population.submodels for one in member.noise]
    return torch.stack(noise).unflatten(0, (-1, 3))


def test_a_draw_is_held_over_an_attack_s_steps_and_each_block_has_its_own():
    noise = noise_seen(Population([Noisy()], draws=4), 2)
    assert noise.shape == (3, 3, 2, 1, 1, 2)
    assert (noise == noise[:, :1]).all()
    assert len(noise[:, 0].flatten(1).unique(dim=0)) == 3
    again = noise_seen(Population([Noisy()], draws=4), 2)
    assert torch.equal(noise, again)


@pytest.mark.parametrize("images_per_draw", [2, 4])
def test_several_held_draws_in_one_pass_are_as_held_and_as_several(images_per_draw):
    answers = []

    def ask_thrice(model, images, labels, threat_model):
        answers.append(torch.stack([model(images * 0)[:, 0] for _ in range(3)]))
        return images

    attack = replace(attack_of(ask_thrice), gradient_only=True)
    images, labels = images_and_labels(6)
    run(attack, Population([OneNoise()], draws=4), images, labels, images_per_draw=images_per_draw)
    (thrice,) = answers
    assert (thrice == thrice[0]).all()
    blocks = thrice[0].split(images_per_draw)
    assert all(len(block.unique()) == 1 for block in blocks)
    assert len(thrice[0].unique()) == len(blocks)


def test_a_block_s_draw_is_of_one_member_of_several():
    population = Population([Noisy(), Noisy()], draws=4)
    noise_seen(population, 1)
    passes = [len(member.noise) for member in population.submodels]
    assert sum(passes) == 18
    assert all(count % 3 == 0 and count for count in passes)


@pytest.mark.parametrize("attack", ["fgsm", "autoattack"])
def test_members_that_are_not_drawn_are_left_out(attack):
    images, labels = images_and_labels(2)
    population = Population([OneNoise() for _ in range(20)], draws=2)
    crafted = run(attack, population, images, labels)
    assert not torch.equal(crafted.images, images)


def test_pgd_eot_draws_submodels_from_the_population():
    images, labels = images_and_labels(2)
    used = set()

    class Watched(nn.Sequential):
        def forward(self, batch):
            used.add(self)
            return super().forward(batch)

    population = Population([Watched(linear(1.0, 1.0)) for _ in range(4)])
    crafted = run("pgd-eot", population, images, labels)
    assert crafted.surrogates is None
    assert used == {*population.submodels}


def test_autoattack_keeps_its_best_iterate_where_it_fails():
    images, labels = images_and_labels(5)
    # Too far from the boundary for eps: the parts fail and hand back the clean images.
    sure = linear(1.0, 1.0)
    sure[1].bias = nn.Parameter(torch.tensor([10.0, 0, 0, 0]))
    crafted = run("autoattack", Population([sure]), images, labels)
    assert torch.allclose(crafted.images, images - 0.1, atol=1e-6)


def test_autoattack_perturbs_what_its_surrogate_misreads_from_the_start():
    images, _ = images_and_labels(5)
    labels = torch.ones(5, dtype=torch.int64)
    crafted = run("autoattack", Population([linear(1.0, 1.0)]), images, labels)
    assert (crafted.images != images).flatten(1).any(dim=1).all()


class FlatAtTheEdge(nn.Module):
    """Class 0 up to the middle of two steps; its loss is flat after the first of them."""

    def forward(self, images):
        rising = torch.relu(0.14 - (images - 0.5).abs()).flatten(1).sum(1, keepdim=True)
        return torch.cat([rising * images.flatten(1)[:, :1] * 50, torch.zeros(len(images), 3)], 1)


def test_mifgsm_outlives_a_flat_step():
    images = torch.tensor([0.45, 0.0]).view(2, 1, 1, 1)
    labels = torch.zeros(2, dtype=torch.int64)
    parameters = {"steps": 10, "decay": 1.0}
    away, flat = run(
        "mifgsm",
        Population([FlatAtTheEdge()]),
        images,
        labels,
        ThreatModel("Linf", 0.4),
        parameters=parameters,
    ).images.flatten()
    # With momentum it goes on where the gradient is zero; where it never was another, it stays.
    assert away == pytest.approx(0.05, abs=1e-6)
    assert flat == 0.0


def test_autoattack_on_a_hundred_classes_costs_what_it_does_on_ten():
    passes = {10: 0, 100: 0}

    class Counted(nn.Linear):
        def forward(self, images):
            passes[self.out_features] += 1
            return super().forward(images.flatten(1))

    for classes in passes:
        network = Counted(2, classes)
        nn.init.zeros_(network.weight)
        nn.init.zeros_(network.bias).data[0] = 1
        run("autoattack", Population([network]), *images_and_labels(2))
    assert passes[100] <= passes[10]


def test_an_attack_cannot_change_the_images_it_is_given():
    images, labels = images_and_labels(2)
    before = images.clone()

    def vandal(model, images, labels, threat_model):
        result = images.clone()
        images.zero_()
        labels.fill_(3)
        return result

    run(attack_of(vandal), Population([linear(1.0, 1.0)]), images, labels)
    assert torch.equal(images, before)
    assert labels.eq(0).all()


def test_an_unsupported_norm_is_refused():
    images, labels = images_and_labels(2)
    with pytest.raises(ValueError, match="'fgsm' supports Linf, not L2"):
        run("fgsm", Population([linear(1.0, 1.0)]), images, labels, ThreatModel("L2", 1.0))


def test_blocks_and_single_submodels_make_the_same_images():
    """Each image is crafted on its own submodel, whether it shares a pass with others or not."""
    torch.manual_seed(0)
    population = Population([lenet5() for _ in range(3)]).eval()
    images, labels = torch.rand(23, 1, 32, 32), torch.randint(10, (23,))
    crafted = [
        run(
            "fgsm",
            Surrogate(population, Plan(stacked=stacked, chunk=4, dtype="float32")),
            images,
            labels,
            batch_size=15,
        )
        for stacked in (False, True)
    ]
    alone, blocks = crafted
    assert torch.equal(alone.surrogates, blocks.surrogates)
    assert not torch.allclose(alone.images, images, atol=0.05)
    # A gradient of zero may have either sign.
    assert (alone.images - blocks.images).abs().gt(1e-6).float().mean() < 1e-3
