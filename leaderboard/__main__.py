"""`python -m leaderboard`: rebuild the page from the records, or check that it is up to date.

The README's copy of the page's first table is rebuilt and checked with it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from leaderboard.files import write_atomically
from leaderboard.publish import RESULTS, publish, stale, with_first_table
from leaderboard.records import RecordError

README = RESULTS.parents[1] / "README.md"


def main(arguments: list[str] | None = None) -> int:
    """Return 0 when done or up to date, 1 when stale, 2 for a folder or record that is unusable."""
    parser = argparse.ArgumentParser(prog="python -m leaderboard", description=__doc__)
    parser.add_argument(
        "--results",
        type=Path,
        default=RESULTS,
        help="folder of records; the page is written beside it (default: %(default)s)",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; fail when the page or a figure is not what the records say",
    )
    options = parser.parse_args(arguments)
    if not options.results.is_dir():
        print(f"no folder {options.results}: run pytest benchmarks/ first, or name another")
        return 2
    try:
        official = options.results.resolve() == RESULTS.resolve() and README.exists()
        readme = with_first_table(README.read_text(), RESULTS) if official else None
        if options.check:
            wrong = stale(options.results)
            if readme is not None and readme != README.read_text():
                wrong.append(README)
            for path in wrong:
                print(f"stale: {path}; run python -m leaderboard to rebuild it")
            return 1 if wrong else 0
        print(publish(options.results))
        if readme is not None:
            write_atomically(README, readme.encode())
    except RecordError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
