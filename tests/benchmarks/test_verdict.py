import pytest
import torch
from torch import nn

from attacks import ThreatModel
from benchmarks.verdict import judge
from defenses import Population

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
    verdict = judge(modules, images, labels, threat_model, attacks=attacks)
    assert verdict.correct.shape == (3, 6)
    assert verdict.worst.value == pytest.approx(verdict.correct.mean())
    again = Population(modules).correct(verdict.images, labels, batch_size=6).numpy()
    assert again.mean(0).tolist() == verdict.correct.mean(0).tolist()
    for attack in verdict.row.by_attack.keys() - {"none", "noise"}:
        assert verdict.worst.value <= verdict.row.score(attack).value
    checked = {gate.name: gate.passed for gate in verdict.gates}
    assert checked["inside the ball and [0, 1]"] is True
    # It needs all parts.
    assert checked["cascade no weaker than its parts"] is (True if attacks is None else None)
    assert (verdict.claimed is not None) == (norm == "Linf" or attacks is None)


def test_an_unknown_attack_is_named():
    modules = networks()
    with pytest.raises(LookupError, match="'pdg'"):
        judge(modules, *data(modules), ThreatModel("Linf", 0.1), attacks=["pdg"])
