"""Tests keep to themselves."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def cache_of_their_own(tmp_path_factory):
    """Nothing is read from or written to the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def floating_point_as_it_was():
    """A session flushes subnormal numbers to zero, for the whole process."""
    yield
    torch.set_flush_denormal(False)
