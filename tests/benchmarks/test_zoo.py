"""Models of RobustBench's zoo, with the library itself."""

import re
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from randomized_defense_bench.attacks import ThreatModel
from randomized_defense_bench.benchmarks import zoo
from randomized_defense_bench.benchmarks.verdict import judge
from randomized_defense_bench.leaderboard import records
from test_verdict import PAPER
from workers import command, run

ROOT = Path(__file__).parents[2]
MODEL = "Wong2020Fast"


def test_it_is_refused_where_it_is_not_installed_or_overwritten(monkeypatch, tmp_path):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(zoo, "distribution", missing)
    with pytest.raises(ImportError, match="robustbench is not installed: pip install"):
        zoo.robustbench()
    package, about = tmp_path / "robustbench", tmp_path / "robustbench-1.1.1.dist-info"
    for folder in (package, about):
        folder.mkdir()
    (package / "__init__.py").write_text("of another wheel")
    (about / "RECORD").write_text("robustbench/__init__.py,sha256=dw9iHlciJV,89\n")
    monkeypatch.setattr(zoo, "distribution", lambda _: Distribution.at(about))
    with pytest.raises(ImportError, match="another package has changed .*: pip install --force"):
        zoo.robustbench()


def test_an_unknown_model_is_named(tmp_path):
    with pytest.raises(LookupError, match="no model 'Wong2020' for Linf on cifar10 .*Wong2020Fast"):
        zoo.register_zoo("Wong2020", "Linf", tmp_path)


@pytest.fixture
def zoo_network():
    """A network of the model's architecture, untrained."""
    zoo.robustbench()
    from robustbench.model_zoo import model_dicts
    from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel

    torch.manual_seed(0)
    return model_dicts[BenchmarkDataset.cifar_10][ThreatModel.Linf][MODEL]["model"]().eval()


def test_a_model_is_a_row_beside_its_published_figures(zoo_network, tmp_path):
    """One has its weights in the library's layout; those of another cannot be downloaded."""
    random = np.random.default_rng(0)
    for number in range(20):
        image = Image.fromarray(random.integers(0, 256, (32, 32, 3), np.uint8))
        folder = tmp_path / "data" / "cifar10" / ("train", "test")[number % 2] / str(number // 2)
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{number}.png")
    weights = tmp_path / "data" / "models" / "cifar10" / "Linf" / f"{MODEL}.pt"
    weights.parent.mkdir(parents=True)
    torch.save({"state_dict": zoo_network.state_dict()}, weights)
    wanted = "test_mra and robustbench and (none or fgsm) and not mifgsm"
    models = [f"--robustbench={MODEL}", "--robustbench=Addepalli2021Towards_RN18"]
    places = ["--eps=8/255", f"--data-root={tmp_path / 'data'}", "--benchmark-disable"]
    offline = {"https_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
    # The model that cannot be had is an error.
    printed = run(command(tmp_path, wanted, *models, *places), code=1, **offline)
    assert "2 passed" in printed, printed
    assert "Addepalli2021Towards_RN18.pt (HTTPSConnectionPool" in printed
    measured = records.read_all(tmp_path / "results")
    assert {r.case.defense for r in measured} == {"robustbench-wong2020fast"}
    assert {r.case.submodels for r in measured} == {1}
    page = (tmp_path / "PUBLISHED.md").read_text()
    assert f"| [{MODEL}](https://arxiv.org/abs/2001.03994) | 83.34 " in re.sub(" +", " ", page)


def test_the_library_lists_what_a_verdict_tells_it(monkeypatch, tmp_path, capsys):
    zoo.robustbench()
    from robustbench.utils import list_available_models

    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 10))
    images = torch.rand(4, 3, 2, 2)
    verdict = judge(
        *([network], images, network(images).argmax(1), ThreatModel("Linf", 1e-5)),
        attacks=["autoattack"],
        dataset="cifar10",
        budget="paper",
    )
    told = verdict.robustbench(tmp_path / f"model_info/cifar10/Linf/{MODEL}.json", **PAPER)
    monkeypatch.chdir(tmp_path)
    list_available_models("cifar10", "Linf")
    line = capsys.readouterr().out.splitlines()[-1]
    for word in (MODEL, PAPER["name"], PAPER["link"], told["autoattack_acc"], "ICLR 2020"):
        assert word in line
