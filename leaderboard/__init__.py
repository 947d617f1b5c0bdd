"""From records to a page. Never imports torch."""

from pathlib import Path

import randomized_defense_bench  # noqa: F401 (see its repository.py)

# Records that everybody sees, and those of this machine's runs, which git ignores.
RESULTS = Path(__file__).parent / "results"
LOCAL = Path(__file__).parent / "local" / "results"
# How a local record may agree with a committed one: in all answers, or in accuracy.
CONFIRMED, WITHIN = "confirmed", "within the interval"


def committed(path: Path) -> Path | None:
    """The committed file or folder that a local one stands beside; None: `path` is not local."""
    return RESULTS / path.relative_to(LOCAL) if path.is_relative_to(LOCAL) else None
