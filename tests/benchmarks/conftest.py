import sys
from pathlib import Path

import pytest

from benchmarks.populations import Options

# `stand_ins.py` is shared by the tests of this folder.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def options(tmp_path):
    """A run of digits at the smoke budget in a folder of its own."""
    folders = {name: tmp_path / name for name in ("data_root", "store", "results")}
    return Options(budget="smoke", run="first", **folders)
