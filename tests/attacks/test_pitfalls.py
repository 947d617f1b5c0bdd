"""What docs/pitfalls.md says of the libraries that the suite depends on."""

import importlib.metadata
import re
import time
from pathlib import Path

import foolbox
import numpy as np
import pytest
import torch
import torchattacks
import torchvision
from PIL import Image
from torch import nn
from torchvision.datasets import MNIST, ImageFolder
from torchvision.transforms import functional

PAGE = Path(__file__).parents[2] / "docs" / "pitfalls.md"
IMAGES = torch.linspace(0.55, 0.8, 8).view(4, 1, 1, 2)
LABELS = torch.zeros(4, dtype=torch.int64)


class Scored(nn.Module):
    """Logits (x_1 + x_2 - 1 + margin, 0, -1, -2).

    Args:
        flat: the queries whose answers have no gradient.
    """

    def __init__(self, margin=0.0, flat=()):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1.0] * 2] + [[0.0] * 2] * 3))
        self.bias = torch.tensor([margin, 0, -1, -2])
        self.flat, self.queries = flat, 0

    def forward(self, images):
        self.queries += 1
        moves = float(self.queries not in self.flat)
        seen = moves * images + (1 - moves) * images.detach()
        return (seen - 0.5).flatten(1) @ self.weight.T + self.bias


def stochastic():
    """Dropout and batch norm, in evaluation mode."""
    layers = nn.Flatten(), nn.Dropout(0.5), nn.Linear(2, 4), nn.BatchNorm1d(4)
    return nn.Sequential(*layers).eval()


def autoattack(network):
    """The parts, with fewer queries."""
    attack = torchattacks.AutoAttack(network, eps=0.1, n_classes=4)._autoattack
    attack.attacks[-1].n_queries = 5
    return attack


def run(name, network, images=IMAGES, labels=LABELS, seed=0, **options):
    """The images that an attack returns; of foolbox's three answers those within eps."""
    torch.manual_seed(seed)
    options = {**OPTIONS.get(name, {}), **options}
    if name == "AutoAttack":
        return autoattack(network)(images, labels).detach()
    if not name.startswith("foolbox."):
        return getattr(torchattacks, name)(network, **options)(images, labels).detach()
    attack = getattr(foolbox.attacks, name.removeprefix("foolbox."))
    eps = options.pop("eps", 0.1)
    model = foolbox.PyTorchModel(network.eval(), bounds=(0, 1))
    return attack(**options)(model, images, labels, epsilons=eps)[1]


OPTIONS = {
    "APGD": {"eps": 0.1},
    "APGDT": {"eps": 0.1, "n_classes": 4},
    "FAB": {"eps": 0.1},
    "Square": {"eps": 0.1, "n_queries": 5},
    "CW": {"steps": 2},
    "EADL1": {"max_iterations": 10, "binary_search_steps": 1},
    "DIFGSM": {"diversity_prob": 0.0},
    "UPGD": {"random_start": False},
    "foolbox.DDNAttack": {"steps": 2},
    "foolbox.LInfFMNAttack": {"steps": 2},
    "foolbox.L2DeepFoolAttack": {"steps": 2},
}
CLEAN = ["APGD", "APGDT", "FAB", "Square", "AutoAttack", "CW", "EADL1"]
CLEAN += ["foolbox.DDNAttack", "foolbox.LInfFMNAttack"]
PERTURBED = ["FGSM", "PGD", "MIFGSM", "foolbox.LinfPGD", "foolbox.L2DeepFoolAttack"]
MOMENTUM = ["MIFGSM", "NIFGSM", "DIFGSM", "VMIFGSM", "VNIFGSM", "UPGD"]


@pytest.mark.parametrize("name", CLEAN + PERTURBED)
def test_images_that_are_not_fooled(name):
    sure = Scored(margin=10.0)
    returned = run(name, sure)
    assert (sure(returned).argmax(1) == LABELS).all()
    assert torch.equal(returned, IMAGES) == (name in CLEAN)


@pytest.mark.parametrize("name", ["APGD", "FAB", "Square", "AutoAttack", "PGD"])
def test_images_that_are_misread_from_the_start(name):
    returned = run(name, Scored(), labels=LABELS + 1)
    assert torch.equal(returned, IMAGES) == (name in CLEAN)


@pytest.mark.parametrize("name", ["FAB", "CW", "DeepFool", "EADL1", "foolbox.LinfPGD", "PGD"])
def test_gradients_of_parameters(name):
    network = Scored()
    run(name, network)
    assert (network.weight.grad is not None) == (name != "PGD")


@pytest.mark.parametrize("name", ["APGD", "APGDT", "FAB", "Square", "PGD", "foolbox.LinfPGD"])
def test_global_generator(name):
    states = []
    for seed in (1, 2):
        run(name, Scored(), seed=seed)
        states.append(torch.get_rng_state())
    assert torch.equal(*states) == (name in CLEAN)


def test_autoattack_s_seeds_and_steps():
    parts = autoattack(Scored()).attacks
    assert all(abs(part.seed - time.time()) < 60 for part in parts)
    assert [part.steps for part in parts[:3]] == [10, 10, 10]


def test_dropout_that_is_on():
    network = stochastic()
    network[1].train()
    modes = []
    network[1].register_forward_hook(lambda layer, *_: modes.append(layer.training))
    run("EOTPGD", network, steps=2)
    assert not any(modes)
    assert not network[1].training


def test_statistics_that_are_frozen():
    network = stochastic().train()
    network[3].eval()
    run("PGD", network)
    assert network[3].training


def test_training_mode():
    network = stochastic().train()
    with pytest.warns(UserWarning, match="in training mode"):
        model = foolbox.PyTorchModel(network, bounds=(0, 1))
    foolbox.attacks.LinfPGD(steps=2)(model, IMAGES, LABELS, epsilons=0.1)
    assert network[3].num_batches_tracked == 3


@pytest.mark.parametrize("name", MOMENTUM)
@pytest.mark.parametrize("flat", [(), (1,)])
def test_momentum_after_a_flat_query(name, flat):
    returned = run(name, Scored(flat=flat), steps=9)
    assert torch.equal(returned, IMAGES) == bool(flat)


def test_dropout_in_a_transformer():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True).eval()
    for part in layer.modules():
        if isinstance(part, nn.Dropout):
            part.train()
    tokens, differ = torch.rand(4, 3, 8), {}
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            differ[gradients] = not torch.equal(layer(tokens), layer(tokens))
    assert differ == {True: True, False: False}


@pytest.mark.parametrize(
    ("name", "moves"),
    [
        # Signs: (-1, -1), then (0, -2).
        ("foolbox.LinfMomentumIterativeFastGradientMethod", [-0.1, -0.2]),
        # Gradients over their mean: (-1.6, -0.4), then (-0.6, -1.4).
        ("MIFGSM", [-0.2, -0.2]),
    ],
)
def test_momentum_of_signs(name, moves):
    class Turning(Scored):
        def forward(self, images):
            self.weight.data[0] = torch.tensor([4.0, 1] if self.queries == 0 else [-1.0, 1])
            return super().forward(images)

    step = "abs_stepsize" if name.startswith("foolbox.") else "alpha"
    moved = run(name, Turning(), eps=0.3, steps=2, **{step: 0.1}) - IMAGES
    assert torch.allclose(moved, torch.tensor(moves), atol=1e-6)


@pytest.mark.parametrize("name", ["PGD", "foolbox.LinfPGD"])
def test_confident_networks(name):
    moved = [
        not torch.equal(run(name, Scored(margin=margin), random_start=False), IMAGES)
        for margin in (15.0, 18.0)
    ]
    assert moved == [True, False]


def test_cw_and_the_sign_of_logits():
    network = Scored()
    options = {"c": 100, "lr": 0.1, "steps": 20}
    assert (network(run("CW", network, **options)).argmax(1) != LABELS).all()
    log_probabilities = nn.Sequential(network, nn.LogSoftmax(1))
    assert torch.equal(run("CW", log_probabilities, **options), IMAGES)


@pytest.mark.parametrize("white", [1.0, 0.99])
def test_cw_and_pixels_of_0_and_1(white):
    network, images = Scored(margin=-0.9), torch.full_like(IMAGES, white)
    returned = run("CW", network, images=images, c=100, lr=0.1, steps=20)
    assert (network(images).argmax(1) == LABELS).all()
    assert torch.equal(returned, images) == (white == 1)


@pytest.mark.parametrize("clamp", [torch.clamp, nn.functional.hardtanh])
def test_the_gradient_of_a_clamp_at_its_bounds(clamp):
    pixels = torch.tensor([0.0, 0.5, 1.0], requires_grad=True)
    clamp(pixels, 0.0, 1.0).sum().backward()
    assert pixels.grad.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("name", "reached"),
    [("PGD", 10 * 2 / 255), ("MIFGSM", 10 * 2 / 255), ("SPSA", 0.01), ("foolbox.LinfPGD", 0.3)],
)
def test_steps_that_do_not_grow_with_eps(name, reached):
    start = {"random_start": False} if "PGD" in name else {}
    moved = run(name, Scored(), eps=0.3, **start) - IMAGES
    assert float(moved.abs().max()) == pytest.approx(reached, rel=1e-3)


def test_eot_of_a_deterministic_network():
    assert torch.equal(run("EOTPGD", Scored()), run("PGD", Scored()))


def test_three_answers():
    model = foolbox.PyTorchModel(Scored(margin=0.5).eval(), bounds=(0, 1))
    raw, within, _ = foolbox.attacks.L2DeepFoolAttack()(model, IMAGES, LABELS, epsilons=0.1)
    distances = [(images - IMAGES).flatten(1).norm(dim=1) for images in (raw, within)]
    assert (distances[0] > 0.3).all()
    assert torch.allclose(distances[1], torch.tensor(0.1))


@pytest.mark.parametrize("shape", [(8, 16), (4, 4), (12, 12)])
def test_square_in_l2(shape):
    network = nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1], 4))
    images = torch.rand(2, 1, *shape)
    labels = network(images).argmax(1)
    torchattacks.Square(network, n_queries=50)(images, labels)
    with pytest.raises((RuntimeError, ZeroDivisionError)):
        torchattacks.Square(network, norm="L2", eps=1e-3, n_queries=50)(images, labels)


def test_pixels_of_8_bits(tmp_path):
    images = torch.arange(8, 256).view(1, 8, 31) / 255
    to_int = torchattacks.PGD.to_type

    def distance(stored):
        return float((stored - images).abs().max())

    torchvision.utils.save_image(images - 0.03, tmp_path / "image.png")
    rounded = functional.to_tensor(Image.open(tmp_path / "image.png"))[:1]
    floored = functional.to_tensor(functional.to_pil_image(images - 8 / 255))
    assert torch.equal(floored, to_int(to_int(images - 8 / 255, "int"), "float"))
    assert distance(rounded) == pytest.approx(8 / 255)
    assert distance(floored) == pytest.approx(9 / 255)


def write_idx(path, array):
    shape = b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(bytes([0, 0, 8, array.ndim]) + shape + array.tobytes())


def test_mnist_that_is_none(tmp_path):
    raw, processed = tmp_path / "MNIST" / "raw", tmp_path / "MNIST" / "processed"
    raw.mkdir(parents=True)
    for split in ("train", "t10k"):
        write_idx(raw / f"{split}-images-idx3-ubyte", np.full((3, 28, 28), 7, np.uint8))
        write_idx(raw / f"{split}-labels-idx1-ubyte", np.arange(3, dtype=np.uint8))
    assert MNIST(tmp_path, train=False, download=True).data.unique().tolist() == [7]
    processed.mkdir()
    for split in ("training", "test"):
        other = torch.full((5, 28, 28), 200, dtype=torch.uint8), torch.arange(5)
        torch.save(other, processed / f"{split}.pt")
    assert MNIST(tmp_path, train=False, download=True).data.unique().tolist() == [200]


def test_images_of_16_bits(tmp_path):
    (tmp_path / "0").mkdir()
    grey = np.full((4, 4), 40_000, np.uint16)
    Image.fromarray(grey).save(tmp_path / "0" / "image.png")
    assert ImageFolder(tmp_path, functional.to_tensor)[0][0].unique().tolist() == [1.0]
    wrapped = functional.to_tensor(Image.open(tmp_path / "0" / "image.png"))
    assert wrapped.unique().tolist() == [40_000 - 65_536]


def test_a_robustbench_within_torchattacks():
    files = importlib.metadata.files("torchattacks")
    assert "robustbench/__init__.py" in map(str, files)


def test_the_page_names_each_of_these():
    here = {name for name in globals() if name.startswith("test_")}
    named = set(re.findall(r"`(test_\w+)`", PAGE.read_text()))
    assert named == here - {"test_the_page_names_each_of_these"}
