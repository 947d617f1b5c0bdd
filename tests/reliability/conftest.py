"""How hard to try: a seeded slice by default, everything under `tox -e soak`."""

import os

import pytest
from hypothesis import HealthCheck, settings

SOAK = bool(os.environ.get("SOAK"))
settings.register_profile(
    "slice",
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.register_profile("soak", settings.get_profile("slice"), max_examples=2500)
settings.load_profile("soak" if SOAK else "slice")

# Kills that a piece of work survives, schedules of them, damaged copies of each kind of file.
TRIES = {"kills": 10, "schedules": 10, "damages": 260} if SOAK else {"kills": 3, "damages": 12}


@pytest.fixture(scope="session")
def tries():
    return TRIES


def pytest_generate_tests(metafunc):
    if "schedule" in metafunc.fixturenames:
        metafunc.parametrize("schedule", range(TRIES.get("schedules", 1)))
