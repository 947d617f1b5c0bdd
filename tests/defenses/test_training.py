import copy
import math
from dataclasses import replace

import pytest
import torch
from randomized_defense_bench.benchmarks.store import FileCheckpoint
from randomized_defense_bench.defenses import DEFENSES
from randomized_defense_bench.defenses.adversarial import CollapseError
from randomized_defense_bench.defenses.architectures import cifar_convnet, cifar_resnet18, lenet5
from randomized_defense_bench.defenses.muon import orthogonal
from randomized_defense_bench.defenses.surrogate import Plan
from randomized_defense_bench.defenses.training import (
    Recipe,
    Task,
    augment,
    initialise,
    learning_rate,
    train,
)
from torch import nn

RECIPE = Recipe(optimizer="adam", learning_rate=1e-2, epochs=3, batch_size=8)
ADVERSARY = {"eps": 0.1, "step_size": 0.05, "steps": 2}
LOOP = Plan(stacked=False, chunk=5, dtype="float32")
LINK = {"alpha": 0.1, "delta": 0.1, "period": 1}
ARGUMENTS = {
    "single": {},
    "ulm": {},
    "clm": {**LINK, "learning_rate": 1e-3, "epochs": 2},
    "single-adv": ADVERSARY,
    "ulm-adv": ADVERSARY,
    "clm-adv": {**ADVERSARY, **LINK},
}


def tiny():
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4)
    )


def task(seed=0, checkpoint=None, recipe=RECIPE, load=None, plan=LOOP):
    drawn = torch.Generator().manual_seed(5)
    return Task(
        images=torch.rand(20, 1, 6, 6, generator=drawn),
        labels=torch.randint(4, (20,), generator=drawn),
        recipe=recipe,
        seed=seed,
        load=load or (lambda name: trained(name)),
        checkpoint=checkpoint,
        plan=plan,
    )


def trained(defense, seed=0, submodels=2, **options):
    population = initialise(tiny, submodels, seed=seed)
    DEFENSES[defense].train(population, task(seed, **options), **ARGUMENTS[defense])
    return population


def same(a, b):
    theirs = b.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in a.state_dict().items())


@pytest.mark.parametrize("defense", list(ARGUMENTS))
def test_the_same_seed_gives_the_same_bits_and_another_does_not(defense):
    first = trained(defense)
    torch.rand(3)
    assert same(first, trained(defense))
    assert not same(first, trained(defense, seed=1))


class KilledError(Exception):
    pass


class Dies(FileCheckpoint):
    """Killed after so many epochs."""

    left = 1

    def save(self, population, optimizer, epochs):
        super().save(population, optimizer, epochs)
        self.left -= 1
        if self.left == 0:
            raise KilledError


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "muon"])
@pytest.mark.parametrize("defense", ["ulm", "clm", "clm-adv"])
def test_a_killed_run_resumes_to_the_same_bits(defense, optimizer, tmp_path):
    recipe = replace(RECIPE, optimizer=optimizer, momentum=0.9, cosine=True)

    def load(name):
        return trained(name, recipe=recipe)

    whole = trained(defense, recipe=recipe, load=load)
    with pytest.raises(KilledError):
        trained(defense, recipe=recipe, load=load, checkpoint=Dies(tmp_path))
    resumed = trained(defense, recipe=recipe, load=load, checkpoint=FileCheckpoint(tmp_path))
    assert same(whole, resumed)


class Noisy(nn.Module):
    """Noise on the image, whether it is in training or not."""

    def __init__(self):
        super().__init__()
        self.layers = tiny()

    def forward(self, images):
        return self.layers(images + 0.1 * torch.randn_like(images))


def with_dropout():
    return nn.Sequential(*tiny()[:-1], nn.Dropout(0.5), tiny()[-1])


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("build", [Noisy, with_dropout])
def test_a_random_network_s_training_is_a_function_of_the_seed_killed_or_not(
    build, stacked, tmp_path
):
    def learned(seed=0, checkpoint=None):
        population = initialise(build, 2, seed=0)
        data = task(seed, checkpoint=checkpoint, plan=replace(LOOP, stacked=stacked))
        train(population, data, RECIPE)
        return population

    whole = learned()
    torch.rand(3)
    assert same(whole, learned())
    assert not same(whole, learned(seed=1))
    with pytest.raises(KilledError):
        learned(checkpoint=Dies(tmp_path))
    torch.rand(3)
    assert same(whole, learned(checkpoint=FileCheckpoint(tmp_path)))


def test_members_and_steps_draw_their_own_noise():
    seen = []

    class Watched(Noisy):
        def forward(self, images):
            seen.append(torch.randn(2))
            return super().forward(images)

    train(initialise(Watched, 2, seed=0), task(), replace(RECIPE, epochs=2))
    assert len(torch.stack(seen).unique(dim=0)) == 2 * 2 * 3


def two_phases(population, data):
    train(population, data, RECIPE)
    train(population, data, replace(RECIPE, learning_rate=1e-3, epochs=2))


@pytest.mark.parametrize("killed_after", [1, 3, 4])
def test_a_defense_may_train_in_phases_and_be_killed_in_either(tmp_path, killed_after):
    whole, resumed = initialise(tiny, 2, seed=0), initialise(tiny, 2, seed=0)
    two_phases(whole, task())
    dies = Dies(tmp_path)
    dies.left = killed_after
    with pytest.raises(KilledError):
        two_phases(initialise(tiny, 2, seed=0), task(checkpoint=dies))
    two_phases(resumed, task(checkpoint=FileCheckpoint(tmp_path)))
    assert same(whole, resumed)


def order_of_steps(*, in_turn):
    """(members, epoch, step, steps taken so far by each of two submodels)."""
    seen = []

    def before_step(submodels, members, epoch, step):
        counts = [int(submodel[1].num_batches_tracked) for submodel in submodels]
        seen.append((list(members), epoch, step, counts))

    data = replace(task(plan=replace(LOOP, stacked=True)), in_turn=in_turn)
    train(initialise(tiny, 2, seed=0), data, RECIPE, before_step=before_step)
    return seen


def test_submodels_train_in_step_or_in_turn_and_end_each_epoch_together():
    in_step = [([0, 1], e, s, [3 * e + s] * 2) for e in range(3) for s in range(3)]
    assert order_of_steps(in_turn=False) == in_step
    in_turn = []
    for e in range(3):
        in_turn += [([0], e, s, [3 * e + s, 3 * e]) for s in range(3)]
        in_turn += [([1], e, s, [3 * e + 3, 3 * e + s]) for s in range(3)]
    assert order_of_steps(in_turn=True) == in_turn


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "muon"])
def test_the_order_matters_only_to_what_compares_submodels(optimizer):
    recipe = replace(RECIPE, optimizer=optimizer, momentum=0.9, weight_decay=0.01)
    for defense, alike in (("ulm", True), ("ulm-adv", True), ("clm-adv", False)):
        learned = []
        for in_turn in (False, True):
            population = initialise(tiny, 3, seed=0)
            data = replace(task(recipe=recipe), in_turn=in_turn)
            DEFENSES[defense].train(population, data, **ARGUMENTS[defense])
            learned.append(population)
        assert same(*learned) == alike, defense


def test_it_learns():
    population = trained("ulm", recipe=replace(RECIPE, epochs=60))
    data = task()
    right = population.logits(data.images).argmax(-1) == data.labels
    assert right.float().mean() > 0.9
    # It is left ready to be attacked.
    assert not population.training


def test_low_precision_trains_float32_weights():
    exact, rough = (
        trained(
            "ulm",
            recipe=replace(RECIPE, optimizer="sgd", dtype=dtype),
            plan=replace(LOOP, dtype=dtype),
        ).state_dict()
        for dtype in ("float32", "bfloat16")
    )
    for name, tensor in exact.items():
        assert rough[name].dtype == tensor.dtype
        assert torch.allclose(tensor, rough[name], atol=0.05), name
    # Where it is not faster, low precision is what weights are rounded to, and no more.
    rounded = trained("ulm", recipe=replace(RECIPE, optimizer="sgd", dtype="bfloat16"), plan=LOOP)
    halves = {name: t.half().to(t.dtype) for name, t in exact.items()}
    assert all(torch.equal(t, halves[name]) for name, t in rounded.state_dict().items())
    assert any(not torch.equal(t, halves[name]) for name, t in rough.items())


def test_training_that_withstands_its_own_adversary_alone_stops(tmp_path):
    # Without a step, it is noise.
    recipe = replace(RECIPE, epochs=60)
    noise = {"eps": 0.3, "step_size": 0.0, "steps": 1}
    data = task(recipe=recipe, checkpoint=FileCheckpoint(tmp_path))
    with pytest.raises(CollapseError, match=r"network [01] collapsed: of 20 .* PGD \d+.\d%; train"):
        DEFENSES["ulm-adv"].train(initialise(tiny, 2, seed=0), data, **noise)


def test_muon_s_steps_are_orthogonal():
    drawn = torch.randn(3, 40, 12, generator=torch.Generator().manual_seed(0))
    for matrices, scale in ((drawn, math.sqrt(40 / 12)), (drawn.mT, 1)):
        values = torch.linalg.svdvals(orthogonal(matrices)) / scale
        assert ((values > 0.5) & (values < 1.3)).all()


def test_single_is_the_first_submodel_of_ulm():
    ulm, single = trained("ulm"), trained("single", submodels=1)
    assert same(single.submodels[0], ulm.submodels[0])


def test_clm_starts_from_ulm_and_from_scratch_does_not():
    loaded = []

    def load(name):
        loaded.append(name)
        return trained(name)

    frozen = {**ARGUMENTS["clm"], "learning_rate": 0.0, "period": 1000}
    population = initialise(tiny, 2, seed=0)
    DEFENSES["clm"].train(population, task(load=load), **frozen)
    weights = {k: v for k, v in population.state_dict().items() if "running" not in k}
    ulm = trained("ulm").state_dict()
    assert loaded == ["ulm"]
    assert all(torch.equal(v, ulm[k]) for k, v in weights.items() if "num_batches" not in k)

    DEFENSES["clm"].train(initialise(tiny, 2, seed=0), task(load=load), **frozen, from_scratch=True)
    assert loaded == ["ulm"]


def test_counter_linking_drives_linked_weights_apart():
    def spread(population):
        return torch.stack([m[0].weight for m in population.submodels]).std(dim=0).mean()

    link = {**ARGUMENTS["clm"], "alpha": 0.3, "epochs": 20}
    population = initialise(tiny, 4, seed=0)
    data = task(load=lambda name: trained(name, submodels=4))
    DEFENSES["clm"].train(population, data, **link)
    assert spread(population) > 1.2 * spread(data.load("ulm"))


@pytest.mark.parametrize("stacked", [True, False])
def test_what_is_frozen_or_hooked_stays_so(stacked):
    population = initialise(tiny, 2, seed=0)
    for submodel in population.submodels:
        submodel[0].weight.requires_grad_(False)
        submodel[4].weight.register_hook(torch.zeros_like)
    before = copy.deepcopy(population.state_dict())
    data = task(plan=replace(LOOP, stacked=stacked))
    train(population, data, replace(RECIPE, epochs=1))
    after = population.state_dict()
    for i in range(2):
        for name in ("0.weight", "4.weight"):
            key = f"submodels.{i}.{name}"
            assert torch.equal(before[key], after[key])
        assert not torch.equal(before[f"submodels.{i}.4.bias"], after[f"submodels.{i}.4.bias"])


@pytest.mark.parametrize("defense", ["ulm", "clm"])
def test_a_stack_learns_what_a_loop_learns(defense):
    # Not with Adam: it blows rounding errors up to the learning rate where a gradient is zero.
    recipe = replace(RECIPE, optimizer="sgd", momentum=0.9, weight_decay=0.01)

    def learned(stacked):
        options = {"submodels": 3, "recipe": recipe, "plan": replace(LOOP, stacked=stacked)}
        if defense == "clm":
            options["load"] = lambda name: trained(name, **options)
        return trained(defense, **options).state_dict()

    loop, stacked = learned(False), learned(True)
    for name, tensor in loop.items():
        assert torch.allclose(tensor.float(), stacked[name].float(), atol=1e-5), name


def test_an_adversary_attacks_each_submodel_as_it_answers():
    """With a stack it makes what it makes of each by itself, and images stay as they are."""

    def adversary(model, images, labels):
        assert not model.training
        images = images.clone().requires_grad_()
        loss = nn.functional.cross_entropy(model(images), labels.flatten(), reduction="sum")
        return (images + torch.autograd.grad(loss, images)[0]).detach()

    recipe = replace(RECIPE, optimizer="sgd", epochs=1)
    learned = []
    for stacked, used in ((True, adversary), (False, adversary), (False, None)):
        population, data = initialise(tiny, 2, seed=0), task(plan=replace(LOOP, stacked=stacked))
        train(population, data, recipe, adversary=used)
        assert torch.equal(data.images, task().images)
        learned.append(nn.utils.parameters_to_vector(population.parameters()))
    assert torch.allclose(learned[0], learned[1], atol=1e-5)
    assert not torch.allclose(learned[1], learned[2], atol=1e-5)


def test_the_rate_rises_in_a_warm_up_and_falls_along_a_cosine():
    recipe = replace(RECIPE, learning_rate=0.2, cosine=True)
    half = math.cos(math.pi / 4)
    falling = [0.2, 0.1 * (1 + half), 0.1, 0.1 * (1 - half), 0]
    assert [learning_rate(recipe, k / 4) for k in range(5)] == pytest.approx(falling)
    warm = [learning_rate(replace(recipe, warmup=0.2), k / 5) for k in range(6)]
    assert warm == pytest.approx([0, *falling])


def test_two_epochs_show_both_sides_of_each_image(monkeypatch):
    shown = {}

    def keep(images, flip, drawn):
        for image, flipped in zip(images, flip, strict=True):
            shown.setdefault(image.sum().item(), []).append(bool(flipped))
        return images

    monkeypatch.setattr("randomized_defense_bench.defenses.training.augment", keep)
    recipe = replace(RECIPE, epochs=4, augment=True)
    train(initialise(tiny, 1, seed=0), task(), recipe)
    sides = [tuple(flips) for flips in shown.values()]
    assert set(sides) == {(True, False) * 2, (False, True) * 2}
    assert len(sides) == 20


def test_augmentation_shifts_and_flips_each_image_by_itself():
    images = torch.arange(1.0, 65.0).view(1, 1, 8, 8).repeat(200, 2, 1, 1)
    images[:, 1] += 100
    flips = torch.arange(200) % 2 == 0
    augmented = augment(images, flips, torch.Generator().manual_seed(0))
    padded = nn.functional.pad(images[0, 0], [4] * 4)
    crops = {
        (top, left, flip): (window.flip(-1) if flip else window)
        for top in range(9)
        for left in range(9)
        for flip in (False, True)
        for window in [padded[top : top + 8, left : left + 8]]
    }
    chosen = set()
    for image, flip in zip(augmented, flips, strict=True):
        found = [key for key, crop in crops.items() if torch.equal(crop, image[0])]
        assert [turned for _, _, turned in found] == [flip]
        inside = image[0] > 0
        assert torch.equal(image[1][inside], image[0][inside] + 100)
        chosen |= set(found)
    assert len(chosen) > 80


@pytest.mark.parametrize(
    ("network", "channels", "parameters"),
    [(lenet5, 1, 61_706), (cifar_convnet, 3, 1_167_178), (cifar_resnet18, 3, 11_173_962)],
)
def test_architectures_have_the_published_sizes(network, channels, parameters):
    built = network(channels, 10).eval()
    assert built(torch.zeros(2, channels, 32, 32)).shape == (2, 10)
    # LeNet5 has 61,706 weights; batch norm adds two for each of its 142 channels.
    batch_norm = 2 * (6 + 16 + 120) if network is lenet5 else 0
    assert sum(p.numel() for p in built.parameters()) == parameters + batch_norm
