"""`python -m benchmarks judge`, on digits at the smoke budget."""

import hashlib

import pytest
import torch
from randomized_defense_bench.benchmarks.__main__ import main
from randomized_defense_bench.benchmarks.datasets import DATASETS, load
from randomized_defense_bench.defenses.architectures import lenet5
from randomized_defense_bench.leaderboard import records
from safetensors.torch import save_file
from torch import nn

MODULE = """
from torch import nn

def small(classes=10):
    return nn.Sequential(nn.Flatten(), nn.Linear(1024, classes))

def pair():
    return [small(), small()]

class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = small()

    def forward(self, images):
        return self.network(images + 0.1 * images.new_empty(images.shape).normal_())

def hundred():
    return small(100)

def coloured():
    return nn.Sequential(nn.Conv2d(3, 10, 32), nn.Flatten())

def needs(data):
    return small()

def words():
    return "a network"
"""

# Reads options, and changes folder, as it is imported.
SCRIPT = """
import argparse, os
from my_networks import small

parser = argparse.ArgumentParser()
parser.add_argument("--lr", default=0.1)
parser.parse_args()
os.chdir("..")
"""


@pytest.fixture
def judge(tmp_path, monkeypatch, capsys):
    """The command in a folder with a module and its weights: its code, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_networks.py").write_text(MODULE)
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "ends.py").write_text("raise SystemExit(3)")
    (tmp_path / "broken.py").write_text("raise RuntimeError('on purpose')")
    for name, classes in (("a", 10), ("b", 10), ("hundred", 100)):
        layers = nn.Sequential(nn.Flatten(), nn.Linear(1024, classes))
        save_file(layers.state_dict(), tmp_path / f"{name}.safetensors")

    def run(*arguments):
        code = main(["judge", *arguments, "--dataset=digits", "--budget=smoke", "--data-root=data"])
        return (code, *capsys.readouterr())

    return run


def test_a_verdict_is_printed_and_its_records_stand_with_those_of_the_dataset(judge, tmp_path):
    code, printed, _ = judge(
        "my_networks:small", "--weights", "a.safetensors", "b.safetensors", "--images=8"
    )
    assert code == 0
    # Untrained networks are at chance, which fails a gate.
    first, clean, claimed, worst, bound, gates, *others = printed.splitlines()
    assert bound.startswith("  ≤: the truth may be lower")
    assert first.startswith(
        "mine (n=2) on 8 images (1 x 32 x 32) of digits, Linf, eps = 0.25, smoke budget"
    )
    measured = records.read_all(tmp_path / "mine" / "results")
    data = load("digits", tmp_path, 1, 8)
    clean_record = next(r for r in measured if r.case.attack == "none")
    assert f"  clean       {100 * clean_record.score.value:.1f} (" in clean
    assert {(r.case.source, r.case.sha256) for r in measured} == {(data.source, data.sha256)}
    assert claimed.startswith("  claimed  ")
    assert worst.startswith("  worst case  ≤")
    assert gates.startswith("gates: ")
    assert sum(" undecided: " in line or " failed: " in line for line in others) >= 1
    assert others[-1] == "records: mine/results; page: mine/LEADERBOARD.md"
    assert "| [mine]" in (tmp_path / "mine" / "LEADERBOARD.md").read_text()


@pytest.mark.parametrize(
    ("build", "options", "said"),
    [
        ("pair", [], "mine (n=2) on 2 images (1 x 32 x 32) of digits, Linf, eps = 0.25"),
        (
            "Noisy",
            ["--draws=2", "--name=hers"],
            "hers (n=1) on 2 images (1 x 32 x 32) of digits, Linf",
        ),
        ("small", ["--norm=L2", "--eps=0.5", "--results=it/r"], "digits, L2, eps = 0.5"),
    ],
)
def test_networks_without_files_draws_norm_and_radius(judge, build, options, said):
    code, printed, errors = judge(f"my_networks:{build}", "--images=2", *options)
    assert (code, errors) == (0, "")
    assert said in printed


SMALL = ("my_networks:small", "--weights", "a.safetensors")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["my_networks"], "'my_networks' is not MODULE:BUILD"),
        (["my_netwroks:small"], "my_netwroks cannot be imported (ModuleNotFoundError: No module"),
        (["broken:small"], "broken cannot be imported (RuntimeError: on purpose)"),
        (["ends:small"], "ends cannot be imported (SystemExit: 3)"),
        (["my_networks:smal"], "my_networks has no function 'smal'; did you mean 'small'?"),
        (["my_networks:needs"], "my_networks:needs failed (TypeError: needs() missing 1 required"),
        (["my_networks:words"], "must return a network or a list of them, got"),
        (["--draws=4"], "nothing to judge: name MODULE:BUILD, --weights FILE ..., or both"),
        ([*SMALL[:2], "none.pt"], "No such file or directory: 'none.pt'"),
        (["--weights", "a.safetensors"], "a.safetensors is not TorchScript: say what builds"),
        ([*SMALL, "hundred.safetensors"], "hundred.safetensors is not of Sequential: size mism"),
        ([*SMALL, "--sha256", "0" * 64], f"pinned {'0' * 64}"),
        ([*SMALL, "--sha256", "0", "1"], "--sha256: 2 hashes for 1 files"),
        (["my_networks:hundred"], "tell 100 classes apart, expected 10"),
        (["my_networks:coloured"], "to have 3 channels, but got 1 channels instead"),
        (["my_networks:Noisy"], "is random in itself, and needs draws=16"),
        ([*SMALL, "--eps=8"], "write 8/255"),
        ([*SMALL, "--name=My Name"], "use lower-case letters"),
        ([*SMALL, "--results=a.safetensors/results"], "a.safetensors is no folder; name another"),
    ],
)
def test_a_slip_gets_one_line_and_nothing_is_written(judge, tmp_path, arguments, words):
    before = sorted(tmp_path.iterdir())
    code, printed, errors = judge(*arguments)
    assert (code, printed) == (2, "")
    (line,) = errors.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert [path for path in sorted(tmp_path.iterdir()) if path.name != "__pycache__"] == before


def test_a_script_is_imported_whatever_it_reads_and_wherever_it_goes(judge, tmp_path):
    code, _, errors = judge("script:small", "--weights", "a.safetensors", "--images=2")
    assert (code, errors) == (0, "")
    assert (tmp_path / "mine" / "LEADERBOARD.md").exists()


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_torchscript_needs_a_hash_and_nothing_that_builds(judge, tmp_path):
    torch.jit.trace(lenet5().eval(), torch.rand(2, 1, 32, 32)).save(tmp_path / "n.ts")
    digest = hashlib.sha256((tmp_path / "n.ts").read_bytes()).hexdigest()
    code, _, errors = judge("--weights=n.ts", "--images=2")
    assert code == 2
    assert digest in errors
    code, _, errors = judge("--weights=n.ts", "--images=2", "--sha256", digest)
    assert (code, errors) == (0, "")


def test_help_explains(capsys):
    with pytest.raises(SystemExit):
        main(["judge", "--help"])
    printed = capsys.readouterr().out
    for dataset in DATASETS:
        assert dataset in printed
    for word in ("MODULE:BUILD", "normalisation", "TorchScript", "(default: mine/results)"):
        assert word in printed
