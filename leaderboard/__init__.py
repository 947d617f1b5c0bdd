"""From records to a page. Never imports torch."""

import randomized_defense_bench  # noqa: F401 (see its repository.py)
