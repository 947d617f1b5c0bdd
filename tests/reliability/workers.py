"""Work that is done in processes of its own, so that it can be killed."""

import multiprocessing
import os
import resource
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from randomized_defense_bench.attacks import ThreatModel
from randomized_defense_bench.benchmarks import store
from randomized_defense_bench.benchmarks.datasets import DATASETS
from randomized_defense_bench.benchmarks.engine.local import PRELOADED
from randomized_defense_bench.benchmarks.populations import Options
from randomized_defense_bench.benchmarks.session import Session
from randomized_defense_bench.benchmarks.tuning import fastest_plan
from randomized_defense_bench.defenses import Population
from randomized_defense_bench.defenses.architectures import lenet5

# A fork of a process that has imported everything starts in a moment. What it imports has to be
# installed: it does not know of folders that a test puts on Python's path.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        *PRELOADED,
        "matplotlib.figure",
        "pytest_benchmark.plugin",
        "randomized_defense_bench.benchmarks.options",
        "randomized_defense_bench.leaderboard",
        "sklearn.datasets",
        "torchattacks",
    ]
)

# Several epochs of two phases, and several blocks of images.
ATTACKS = ("none", "pgd", "pgd-clipped-margin")
SMOKE = DATASETS["digits"].experiments["smoke"]


def options(folder: Path, **changes) -> Options:
    folders = {name: folder / name for name in ("data_root", "store", "results")}
    return Options(budget="smoke", **folders, **{"run": "test", **changes})


ROOT = Path(__file__).parents[2]


def command(folder: Path, wanted: str, *more: str) -> list[str]:
    """Arguments of pytest: `benchmarks/`, smoke budget, store and results under a folder."""
    places = [f"--{name}={folder / name}" for name in ("store", "results")]
    return [
        "benchmarks/",
        "-k",
        wanted,
        "--budget",
        "smoke",
        "-p",
        "no:cacheprovider",
        *places,
        *more,
    ]


def run(arguments: list[str], *path: Path, code: int = 0, **environment: str) -> str:
    """What a pytest in a process of its own printed, which ends with this code.

    Args:
        path: folders that it finds first on Python's path.
        environment: what it has beside this process's.
    """
    with tempfile.TemporaryDirectory() as folder:
        printed = Path(folder) / "printed"
        folders = [*map(str, path), str(ROOT)]
        given = {**os.environ, "PYTHONPATH": os.pathsep.join(folders), "COLUMNS": "300"}
        process = CONTEXT.Process(
            target=_pytest, args=(arguments, printed, folders, {**given, **environment})
        )
        process.start()
        process.join()
        told = printed.read_text()
    assert process.exitcode == code, told
    return told


def _pytest(
    arguments: list[str], printed: Path, folders: list[str], environment: dict[str, str]
) -> None:
    with printed.open("wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = folders
    sys.exit(pytest.main(arguments))


def populations(store: Path) -> list[Path]:
    """The folders of a store's populations."""
    return [path for path in (store / "populations").iterdir() if path.is_dir()]


def work(folder: Path, trained=None) -> None:
    """Train a counter-linked population from an unlinked one, and attack it, in small steps."""
    recipe = replace(SMOKE.recipes["default"], epochs=4)
    defenses = {**SMOKE.defenses, "clm": {**SMOKE.defenses["clm"], "epochs": 4}}
    smaller = replace(
        SMOKE,
        recipes={**SMOKE.recipes, "default": recipe},
        defenses=defenses,
        train_images=600,
        batch_size=6,
        attacks={**SMOKE.attacks, "pgd-clipped-margin": {"steps": 20, "restarts": 2}},
    )
    DATASETS._entries["digits"] = replace(
        DATASETS["digits"], experiments={**DATASETS["digits"].experiments, "smoke": smaller}
    )
    store.FileBlocks.AT_STAKE = 0.0
    session = Session(options(folder))
    prepared = session.prepare("digits", "clm")
    for attack in ATTACKS:
        session.measure(prepared, attack, ThreatModel("Linf", 0.25))
    if trained is not None:
        trained.put(session.trained)


def prepare_only(folder: Path, outcome, limit: int | None = None, user: int | None = None) -> None:
    """Train or load one small population under a limit on file sizes, or as another user."""
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    session = Session(options(folder))
    if user is not None:
        # Somebody else may not be able to import what is imported when it is first needed.
        session.dataset("digits")
        fastest_plan(Population([lenet5(), lenet5()]), torch.rand(1, 1, 32, 32))
        os.setuid(user)
    try:
        prepared = session.prepare("digits", "ulm")
        outcome.put(("prepared", prepared.sha256, prepared.trained))
    except OSError as error:
        outcome.put((type(error).__name__, str(error), False))
