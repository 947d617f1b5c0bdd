import pytest
from randomized_defense_bench.benchmarks.populations import Options


@pytest.fixture
def options(tmp_path):
    """A run of digits at the smoke budget in a folder of its own."""
    folders = {name: tmp_path / name for name in ("data_root", "store", "results")}
    return Options(budget="smoke", run="first", **folders)
