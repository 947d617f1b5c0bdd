"""The suite by its one name: what users call, imported when it is asked for.

So `import randomized_defense_bench` costs nothing, and the page is made without PyTorch.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

_NAMES = {
    "attacks.craft": ("AttackError",),
    "attacks.registry": ("ATTACKS", "register_attack", "register_certificate"),
    "attacks.threat_model": ("ThreatModel", "parse_eps"),
    "benchmarks.datasets.registry": ("DATASETS", "Published", "Raw", "register_dataset"),
    "benchmarks.evaluation": ("Evaluation", "evaluate"),
    "benchmarks.verdict": ("Verdict", "judge"),
    "defenses.checkpoint": ("load_network",),
    "defenses.population": ("AveragedEnsemble", "Population"),
    "defenses.registry": ("DEFENSES", "register_checkpoint", "register_defense"),
    "defenses.training": ("Recipe", "train"),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}
__all__ = list(_MODULES)

if not (Path(__file__).parent / "attacks").is_dir():
    # In the repository the packages lie beside this folder, not in it.
    __path__.append(str(Path(__file__).parents[1]))
    import_module(f"{__name__}.repository")


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
