import importlib
import json
import sys
from types import SimpleNamespace

import pytest
import torch
from randomized_defense_bench.attacks import ThreatModel
from randomized_defense_bench.benchmarks.measure import answers_of
from randomized_defense_bench.benchmarks.verdict import judge
from randomized_defense_bench.defenses import Population
from randomized_defense_bench.defenses.description import _package, description
from stand_ins import linear
from torch import nn

FAST = ("fgsm", "pgd", "pgd-clipped-margin", "worst-case")


def networks(count=3):
    torch.manual_seed(0)
    return [
        nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.Tanh(), nn.Linear(24, 5)).eval()
        for _ in range(count)
    ]


def data(modules, count=6):
    images = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return images, modules[0](images).argmax(-1)


@pytest.mark.parametrize(("norm", "eps", "attacks"), [("Linf", 0.05, FAST), ("L2", 0.3, None)])
def test_one_call_gives_the_worst_case_the_scores_the_gates_and_the_images(norm, eps, attacks):
    modules = networks()
    images, labels = data(modules)
    threat_model = ThreatModel(norm, eps)
    verdict = judge(modules, images, labels, threat_model, attacks=attacks, budget="smoke")
    assert verdict.correct.shape == (3, 6)
    assert verdict.worst.value == pytest.approx(verdict.correct.mean())
    again = answers_of(Population(modules), verdict.images, labels, seed=0, batch_size=6).numpy()
    assert again.mean(0).tolist() == verdict.correct.mean(0).tolist()
    for attack in verdict.row.attacks():
        assert verdict.worst.value <= verdict.row.score(attack).value
    assert verdict.worst == verdict.row.worst
    assert (verdict.claimed is not None) == (norm == "Linf" or attacks is None)
    first, *lines = str(verdict).splitlines()
    assert first.startswith(
        f"own (n=3) on 6 images (1 x 8 x 8) of own, {norm}, eps = {eps}, smoke budget"
    )
    sure = verdict.row.complete and not {"failed", "not run"} & {g.outcome for g in verdict.gates}
    assert f"  worst case  {'' if sure else '≤'}{100 * verdict.worst.value:.1f} (" in lines[2]
    # Of few attacks it is an upper bound.
    assert sure or lines.pop(3).startswith("  ≤: the truth may be lower")
    assert attacks is None or not sure
    pending = [g.name for g in verdict.gates if g.outcome not in ("passed", "not applicable")]
    assert all(any(name in line for line in lines[4:]) for name in pending)
    assert len(lines[4:]) == len(pending)


def test_the_budget_is_quick_unless_another_is_named():
    modules = networks(1)
    verdict = judge(modules, *data(modules), ThreatModel("Linf", 0.05), attacks=["fgsm"])
    assert ", quick budget" in str(verdict).splitlines()[0]


def test_a_law_weighs_every_figure():
    """Images (0.3, 0.6), label 0: x1 - x0 is right on all of them, x0 - x1 on none."""
    modules = [linear(1.0, -1.0), linear(-1.0, 1.0)]
    images = torch.tensor([0.3, 0.6]).view(1, 1, 1, 2).repeat(5, 1, 1, 1)
    labels = torch.zeros(5, dtype=torch.int64)
    verdict = judge(
        modules,
        images,
        labels,
        ThreatModel("Linf", 0.01),
        probabilities=(0.2, 0.8),
        attacks=["pgd-clipped-margin"],
        budget="smoke",
    )
    assert verdict.worst.value == pytest.approx(0.8)
    assert verdict.row.score("none").value == pytest.approx(0.8)
    assert verdict.row.cascade == {}


def test_clean_images_are_no_attack():
    modules = networks()
    with pytest.raises(ValueError, match=r"must name an attack .*got \['none'\]"):
        judge(modules, *data(modules), ThreatModel("Linf", 0.1), attacks=["none"])


PAPER = {
    "link": "https://arxiv.org/abs/2001.03994",
    "name": "A title",
    "authors": "A, B",
    "venue": "ICLR 2020",
    "architecture": "Linear",
    "additional_data": False,
    "reported": 90,
}


def test_robustbench_is_told_of_one_network_under_autoattack(tmp_path):
    (network, *others) = networks()
    images, labels = data([network])
    labels[0] = (labels[0] + 1) % 5
    at = ThreatModel("Linf", 1e-6)

    def judged(modules, *attacks, budget="paper"):
        return judge(modules, images, labels, at, attacks=["none", *attacks], budget=budget)

    told = judged([network], "autoattack").robustbench(tmp_path / "it.json", **PAPER)
    assert json.loads((tmp_path / "it.json").read_text()) == told
    figures = {"clean_acc": "83.33", "autoattack_acc": "83.33", "external": "83.33"}
    fixed = {"number_forward_passes": 1, "dataset": "own", "eps": "1e-06", "unreliable": False}
    assert told == {**PAPER, **figures, **fixed, "reported": "90.00"}
    for verdict in (
        judged([network, *others], "autoattack", budget="smoke"),
        judged([network], "fgsm"),
    ):
        with pytest.raises(ValueError, match="one deterministic network under AutoAttack"):
            verdict.robustbench(**PAPER)
    with pytest.raises(ValueError, match="the budget was 'smoke': judge with budget=\"paper\""):
        judged([network], "autoattack", budget="smoke").robustbench(**PAPER)


def test_records_of_another_network_of_the_same_name_are_not_mixed_in(tmp_path):
    first, second, *_ = networks()
    images, labels = data([first])

    def kept(network, name):
        at = ThreatModel("Linf", 0.01)
        options = {"attacks": ["fgsm"], "budget": "smoke", "results": str(tmp_path), "name": name}
        return judge([network], images, labels, at, **options)

    kept(first, "mine")
    kept(first, "mine")
    with pytest.raises(ValueError, match="another network called 'mine' .*: choose another name"):
        kept(second, "mine")
    kept(second, "other")


SIGMA = 0.1


class Scaled(nn.Module):
    """One network's weights, and what is beside them."""

    def __init__(self, network, **settings):
        super().__init__()
        self.network = network
        vars(self).update(settings)
        self.passes, self.last = 0, None

    def forward(self, images):
        self.passes, self.last = self.passes + 1, images
        return self.network(images) * scale(self)


def scale(network):
    return getattr(network, "sigma", SIGMA)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (lambda net: Scaled(net, sigma=0.1), lambda net: Scaled(net, sigma=3.0)),
        (
            lambda net: Scaled(net, sigma=torch.ones(1)),
            lambda net: Scaled(net, sigma=torch.zeros(1)),
        ),
        (
            lambda net: Scaled(net, sigma=0.1, other=SimpleNamespace(kinds={"a", "b"}, size=1)),
            lambda net: Scaled(net, sigma=0.1, other=SimpleNamespace(kinds={"a", "b"}, size=2)),
        ),
        (lambda net: nn.Sequential(net, nn.ReLU()), lambda net: nn.Sequential(net, nn.Tanh())),
        (lambda net: Scaled(net), "SIGMA"),
        (lambda net: Scaled(net), "scale"),
        (
            lambda net: torch.fx.symbolic_trace(nn.Sequential(net, nn.ReLU())),
            lambda net: torch.fx.symbolic_trace(nn.Sequential(net, nn.Tanh())),
        ),
    ],
)
def test_the_same_weights_with_other_code_or_settings_are_another_network(
    tmp_path, monkeypatch, first, second
):
    network, *_ = networks()
    images, labels = data([network])

    def kept(build):
        at = ThreatModel("Linf", 0.01)
        options = {"attacks": ["fgsm"], "budget": "smoke", "results": tmp_path}
        return judge([build(network)], images, labels, at, **options)

    kept(first)
    kept(first)
    if isinstance(second, str):
        changed = {"SIGMA": 2.0, "scale": lambda network: -1.0}[second]
        monkeypatch.setitem(globals(), second, changed)
        second = first
    with pytest.raises(ValueError, match="another network called 'own'"):
        kept(second)


@pytest.mark.parametrize(
    ("above", "within", "call"),
    [
        ("from sizes.all import size", "", "size()"),
        ("import sizes.all", "", "sizes.all.size()"),
        ("import sizes", "", "sizes.again()"),
        ("", "from sizes.all import size", "size()"),
        ("", "import sizes.all", "sizes.all.size()"),
    ],
)
def test_code_in_other_files_of_the_user_s_counts(above, within, call, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "own_net.py").write_text(
        f"{above}\nfrom torch import nn\nclass Net(nn.Flatten):\n"
        f"    def forward(self, images):\n        {within}\n"
        f"        return {call} * super().forward(images)\n"
        "    def plot(self):\n        import wave\n"
    )
    (tmp_path / "sizes").mkdir()
    (tmp_path / "sizes" / "__init__.py").write_text("from .all import size as again\n")

    def described(text):
        (tmp_path / "sizes" / "all.py").write_text(f"def size():\n    return {text}\n")
        for name in ("own_net", "sizes", "sizes.all", "wave"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.invalidate_caches()
        network = importlib.import_module("own_net").Net()
        first = description(network)
        # What has been imported meanwhile is no other code.
        network.plot()
        assert description(network) == first
        return first

    first, again, other = map(described, ("1.0", "1.0", "20.0"))
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("module", "file", "package"),
    [
        ("torch.nn", "/somewhere/else/torch/nn/__init__.py", "torch"),
        ("timm.models", "/home/me/.local/lib/python3.11/site-packages/timm/models.py", "timm"),
        ("yaml", "/usr/lib/python3/dist-packages/yaml/__init__.py", "yaml"),
        ("wave", None, "wave"),
        ("__main__", None, "not installed"),
        ("my.own", "/home/me/project/my/own.py", "not installed"),
    ],
)
def test_all_that_is_not_installed_is_the_user_s(module, file, package):
    assert _package(module, file) == package
