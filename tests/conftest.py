"""Tests keep to themselves."""

import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

# Ray is an extra: `tox -e cluster` installs it.
collect_ignore = [] if find_spec("ray") else ["cluster"]
# Helpers of one folder serve the tests of others.
FOLDERS = ("attacks", "benchmarks", "leaderboard", "reliability")
sys.path[:0] = [str(Path(__file__).parent / name) for name in FOLDERS]

# Networks this small gain nothing from threads, and tests run beside each other.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"


# What tests in a browser need beside the rest, and is not there: modules and programs.
MODULES = ("selenium", "axe_core_python", "itables", "mdit_py_plugins")
MISSING = [name for name in MODULES if not find_spec(name)]
MISSING += [name for name in ("chromium", "chromedriver") if not shutil.which(name)]


def pytest_configure(config):
    config.addinivalue_line("markers", "browser: looks at the site in Debian's chromium")


def pytest_collection_modifyitems(config, items):
    """Without a browser leave those tests out, and say so at the end."""
    left_out = [item for item in items if MISSING and item.get_closest_marker("browser")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_terminal_summary(terminalreporter):
    if MISSING:
        line = f"tests marked `browser` were DESELECTED, for want of {', '.join(MISSING)}"
        terminalreporter.line(f"{line}: see docs/running.md", yellow=True)


@pytest.fixture(autouse=True, scope="session")
def cache_of_their_own(tmp_path_factory):
    """Nothing is read from or written to the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        # A pytest that a test starts is no worker of this one.
        patch.delenv("PYTEST_XDIST_WORKER", raising=False)
        # It needs no Hypothesis, which takes a second to import.
        patch.setenv("PYTEST_ADDOPTS", "-p no:hypothesispytest")
        yield


@pytest.fixture(autouse=True)
def floating_point_as_it_was():
    """A session flushes subnormal numbers to zero, for the whole process."""
    yield
    torch.set_flush_denormal(False)
