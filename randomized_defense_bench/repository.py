"""The repository's folders by their short names: the modules that have the one name.

There `import attacks` finds a folder. Imported as it is, its registry would be a second, empty one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("attacks", "benchmarks", "defenses", "leaderboard")


class ShortNames(MetaPathFinder, Loader):
    """Finds `attacks.craft` as `randomized_defense_bench.attacks.craft`.

    It leaves alone what is another file: a project's own `attacks`.
    """

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a file in the repository's folders; None for `__main__`, which is run."""
        parts = name.split(".")
        if parts[0] not in FOLDERS or parts[-1] == "__main__":
            return None
        spec = PathFinder.find_spec(name, path, target)
        file = ROOT.joinpath(*parts)
        ours = (file / "__init__.py", file.with_suffix(".py"))
        if spec is None or spec.origin is None or Path(spec.origin).resolve() not in ours:
            return None
        return ModuleSpec(name, self)

    def exec_module(self, module: ModuleType) -> None:
        """Put the module of the one name in the place of this empty one."""
        sys.modules[module.__name__] = import_module(f"{__package__}.{module.__name__}")


sys.meta_path.insert(0, ShortNames())
