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

TRIES = {
    # Kills a piece of work survives, times the number of seeded schedules.
    "kills": 10 if SOAK else 3,
    "schedules": 10 if SOAK else 1,
    # Damaged copies of each kind of file.
    "damages": 260 if SOAK else 12,
}


@pytest.fixture(scope="session")
def tries():
    return TRIES


def pytest_generate_tests(metafunc):
    if "schedule" in metafunc.fixturenames:
        metafunc.parametrize("schedule", range(TRIES["schedules"]))
