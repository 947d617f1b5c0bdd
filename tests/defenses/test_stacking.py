"""A stack computes what a loop over its submodels computes.

Logits agree in float32 to 1e-4. Gradients are compared in float64: in float32 a rounding error that
puts an activation on the other side of zero changes them by more than a rounding error.
"""

import copy

import pytest
import torch
from randomized_defense_bench.attacks.craft import one_each
from randomized_defense_bench.defenses import Population, stacking
from randomized_defense_bench.defenses.architectures import cifar_convnet, cifar_resnet18, lenet5
from randomized_defense_bench.defenses.stacking import FrozenStack, Stack, stackable
from randomized_defense_bench.defenses.surrogate import Plan, Surrogate
from torch import nn
from torch.nn import functional as F


def mlp(channels, classes=10):
    return nn.Sequential(
        nn.Flatten(), nn.Linear(1024 * channels, 20), nn.GELU(), nn.Linear(20, classes, bias=False)
    )


def depthwise(channels, classes=10):
    """Batch norm first, groups, no bias, average pooling, residual-free; nothing like LeNet."""
    return nn.Sequential(
        nn.BatchNorm2d(channels),
        nn.Conv2d(channels, 6 * channels, 3, stride=2, groups=channels, bias=False),
        nn.SiLU(),
        nn.AvgPool2d(3),
        nn.Conv2d(6 * channels, 4, 5),
        nn.LeakyReLU(),
        nn.Flatten(),
        nn.Linear(4, classes),
    )


def grouped(channels, classes=10):
    """The images meet a convolution with groups first."""
    return nn.Sequential(
        nn.Conv2d(channels, 2 * channels, 5, stride=3, groups=channels),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * channels, classes),
    )


def first(*shape, **options):
    """Images meet a convolution of this kind first, whose gradient is ours or torch's."""

    def build(channels, classes=10):
        return nn.Sequential(
            nn.Conv2d(channels, 4, *shape, **options),
            nn.GELU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(16, classes),
        )

    return build


UNEVEN = first((3, 5), padding=(2, 1), bias=False)
FIRST = [UNEVEN, first(3, stride=2), first(3, dilation=2), first(3, padding="same")]
CASES = [
    *((build, 1) for build in FIRST),
    (UNEVEN, 3),
    (lenet5, 1),
    (cifar_convnet, 3),
    (cifar_resnet18, 3),
    (mlp, 1),
    (depthwise, 3),
    (grouped, 3),
]


def random_images(build, *batch):
    """(*batch, H, W); small for the large network, which takes any size."""
    size = 8 if build is cifar_resnet18 else 32
    return torch.rand(*batch, size, size)


def experienced(build, channels, n=3):
    """Submodels whose batch norms have seen something."""
    torch.manual_seed(0)
    submodels = [build(channels, 10) for _ in range(n)]
    for submodel in submodels:
        submodel.train()
        for _ in range(3):
            submodel(random_images(build, 8, channels))
    return [submodel.eval() for submodel in submodels]


def gradient(model, images):
    images = images.clone().requires_grad_()
    logits = model(images)
    labels = torch.arange(logits.shape[1]) % 10
    loss = sum(F.cross_entropy(each, labels, reduction="sum") for each in logits)
    return torch.autograd.grad(loss, images)[0]


@pytest.mark.parametrize(("build", "channels"), CASES)
@pytest.mark.parametrize("shared", [True, False])
def test_a_frozen_stack_is_the_loop(build, channels, shared):
    submodels = experienced(build, channels)
    images = random_images(build, *(() if shared else (3,)), 5, channels)

    def loop(batch):
        blocks = [batch] * 3 if shared else batch
        return torch.stack([one(block) for one, block in zip(submodels, blocks, strict=True)])

    with torch.no_grad():
        assert torch.allclose(
            FrozenStack(submodels, shared=shared)(images), loop(images), atol=1e-4
        )
    for submodel in submodels:
        submodel.double()
    exact = FrozenStack(submodels, shared=shared, dtype=torch.float64)
    images = images.double()
    assert torch.allclose(gradient(exact, images), gradient(loop, images), atol=1e-9)


@pytest.mark.parametrize(("build", "channels"), CASES)
def test_a_training_stack_has_the_loop_s_gradients_and_statistics(build, channels):
    submodels = [submodel.double().train() for submodel in experienced(build, channels)]
    alone = copy.deepcopy(submodels)
    stack = Stack(submodels)
    images, labels = random_images(build, 3, 8, channels).double(), torch.arange(8)
    for models in (stack(images), [one(own) for one, own in zip(alone, images, strict=True)]):
        sum(F.cross_entropy(logits, labels) for logits in models).backward()
    before = [one.state_dict() for one in alone]
    for expected, submodel in zip(before, submodels, strict=True):
        for name, tensor in submodel.state_dict().items():
            assert torch.allclose(tensor.double(), expected[name].double(), atol=1e-9), name
    for name, whole in stack.network.named_parameters():
        parts = torch.cat([one.get_parameter(name).grad for one in alone])
        assert torch.allclose(whole.grad, parts, atol=1e-9), name


def test_a_stack_and_its_submodels_share_their_weights():
    submodels = experienced(lenet5, 1)
    stack = Stack(submodels)
    images = torch.rand(1, 4, 1, 32, 32).expand(3, -1, -1, -1, -1)
    with torch.no_grad():
        submodels[1][0].weight.mul_(2)
        assert torch.allclose(stack(images)[1], submodels[1](images[1]), atol=1e-5)
        next(stack.parameters()).zero_()
        assert not submodels[2][0].weight.any()


def test_a_frozen_stack_is_a_copy_until_refreshed():
    submodels = experienced(lenet5, 1)
    frozen = FrozenStack(submodels, shared=True)
    images = torch.rand(4, 1, 32, 32)
    before = frozen(images)
    with torch.no_grad():
        submodels[0][1].running_mean.add_(1)
        assert torch.equal(frozen(images), before)
        frozen.refresh()
        assert torch.allclose(frozen(images)[0], submodels[0](images), atol=1e-5)


def test_building_a_stack_draws_no_random_number():
    """It may happen within an attack, whose numbers are seeded, in the first of several."""
    submodels = experienced(lenet5, 1)
    before = torch.get_rng_state()
    FrozenStack(submodels, shared=True)
    Stack(submodels)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_first_layer_s_gradient_can_be_differentiated_again_in_parts(monkeypatch):
    monkeypatch.setattr(stacking, "_FIT", 1)
    stack = FrozenStack([UNEVEN(1).double() for _ in range(2)], shared=True, dtype=torch.float64)
    layer = stack.network.get_submodule("0")
    images = torch.rand(2, 1, 6, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, images)
    assert torch.autograd.gradgradcheck(layer, images)


def test_low_precision_is_near():
    submodels = experienced(lenet5, 1)
    images = torch.rand(4, 1, 32, 32)
    exact = FrozenStack(submodels, shared=True)(images)
    rough = FrozenStack(submodels, shared=True, dtype=torch.bfloat16)(images)
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).abs().max() < 0.05 * exact.abs().max()


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = lenet5()

    def forward(self, images):
        return self.network(images + torch.rand_like(images))


class Choosing(nn.Sequential):
    """Random in Python: a trace would hold one choice."""

    def forward(self, images):
        return self[int(torch.randint(len(self), ()))](images)


def hooked():
    network = lenet5()
    network[0].register_forward_hook(lambda module, inputs, output: 2 * output)
    return network


@pytest.mark.parametrize(
    "submodels",
    [
        [Noisy(), Noisy()],
        [Choosing(lenet5(), lenet5())],
        [hooked()],
        [lenet5(1), lenet5(3)],
        [nn.Sequential(nn.Conv2d(1, 2, 3), nn.Dropout(), nn.Flatten(), nn.Linear(1800, 3))],
        [nn.Sequential(nn.Linear(32, 10), nn.Flatten())],
        [nn.Sequential(nn.BatchNorm2d(1, momentum=None), nn.Flatten())],
        [nn.Sequential(nn.Flatten(), nn.Linear(1024, 3), nn.Softmax(dim=0))],
        [nn.Sequential(nn.BatchNorm2d(1, affine=False), nn.Flatten())],
        [nn.Sequential(nn.Conv2d(1, 2, 3, padding="same", padding_mode="reflect"), nn.Flatten())],
    ],
)
def test_what_a_stack_might_get_wrong_is_left_as_it_is(submodels):
    assert not stackable(submodels)
    with pytest.raises(ValueError, match="cannot be stacked"):
        FrozenStack(submodels, shared=True)
    if len({repr(submodel) for submodel in submodels}) == 1:
        surrogate = Surrogate(Population(submodels), Plan(False, 10, "float32"))
        assert list(surrogate.submodels) == submodels


@pytest.mark.parametrize(
    "options", [{"divisor_override": 1}, {"count_include_pad": False}, {"ceil_mode": True}]
)
def test_layers_that_differ_in_what_they_do_not_print_are_not_stacked(options):
    """AvgPool2d prints three of its six settings."""
    pools = [nn.AvgPool2d(3, 2, 1, **chosen) for chosen in ({}, options)]
    plain, other = (nn.Sequential(nn.Conv2d(1, 2, 3), pool, nn.Flatten()) for pool in pools)
    assert repr(plain) == repr(other)
    assert not stackable([plain, other])
    assert stackable([other, copy.deepcopy(other).eval()])


@pytest.mark.parametrize("whole", [True, False])
def test_what_changes_all_modules_of_torch_changes_what_is_attacked(monkeypatch, whole):
    """As quantisation does by a hook on all modules, or by another `nn.Linear.forward`."""

    def loud(module, features):
        return linear(module, features) * features.abs().mean()

    population, linear = Population(experienced(lenet5, 1)), nn.Linear.forward
    plan, images = Plan(stacked=True, chunk=4, dtype="float32"), torch.rand(4, 1, 32, 32)
    hook = None
    if whole:
        monkeypatch.setattr(nn.Linear, "forward", loud)
    else:
        hook = nn.modules.module.register_module_forward_hook(
            lambda module, inputs, _: loud(module, *inputs) if type(module) is nn.Linear else None
        )
    surrogate = Surrogate(population, plan, probe=images[:2])
    with torch.no_grad():
        expected = population.logits(images)
        assert torch.allclose(surrogate.logits(images), expected, atol=1e-5)
        assert torch.allclose(surrogate.submodels[1](images), expected[1], atol=1e-5)
        blocks = surrogate.blocks(images.repeat(len(population), 1, 1, 1))
        assert torch.allclose(blocks, expected.flatten(0, 1), atol=1e-5)
    if hook:
        hook.remove()


@pytest.mark.parametrize("stacked", [True, False])
def test_a_surrogate_answers_as_its_population_does(stacked):
    population = Population(experienced(lenet5, 1))
    surrogate = Surrogate(population, Plan(stacked=stacked, chunk=4, dtype="float32"))
    images = torch.rand(10, 1, 32, 32)
    with torch.no_grad():
        expected = population.logits(images)
        assert torch.allclose(surrogate.logits(images), expected, atol=1e-5)
        for own, submodel in zip(expected, surrogate.submodels, strict=True):
            assert torch.allclose(submodel(images), own, atol=1e-5)
        population.submodels[2][0].bias.data.add_(1)
        surrogate.refresh()
        assert torch.allclose(surrogate.logits(images), population.logits(images), atol=1e-5)
        assert torch.allclose(
            surrogate.submodels[2](images), population.logits(images)[2], atol=1e-5
        )


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("members", [[2, 0, 1, 1, 0, 2, 1], [1] * 7])
def test_each_image_is_answered_by_the_one_member_that_it_is_for(stacked, members):
    population = Population(experienced(lenet5, 1))
    surrogate = Surrogate(population, Plan(stacked=stacked, chunk=4, dtype="float32"))
    images = torch.rand(7, 1, 32, 32, requires_grad=True)
    answered = one_each(surrogate, images, torch.tensor(members))
    expected = population.logits(images)[torch.tensor(members), torch.arange(7)]
    assert torch.allclose(answered, expected, atol=1e-5)
    ours, theirs = (torch.autograd.grad(z.sum(), images)[0] for z in (answered, expected))
    assert torch.allclose(ours, theirs, atol=1e-4)
