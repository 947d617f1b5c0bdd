"""The experiment: datasets, their numbers, and the measured cells."""

import randomized_defense_bench  # noqa: F401 (see its repository.py)
