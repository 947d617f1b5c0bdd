"""`python -m leaderboard`: rebuild all pages from the records, or check that they are current."""

import argparse
import sys

from randomized_defense_bench.leaderboard import RESULTS, site
from randomized_defense_bench.leaderboard.publish import publish, stale
from randomized_defense_bench.leaderboard.records import RecordError

from randomized_defense_bench.files import folder_named


def main(arguments: list[str] | None = None) -> int:
    """Return 0 when done or up to date, 1 when stale, 2 for a folder or record that is unusable."""
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}", description=__doc__)
    folder = "folder of records; the pages are written beside it (default: %(default)s)"
    parser.add_argument("--results", type=folder_named, default=RESULTS, help=folder)
    check = "write nothing; fail when a page or a figure is not what the records say"
    parser.add_argument("--check", action="store_true", help=check)
    html = "write the board as static HTML into this folder instead; needs the extra `site`"
    parser.add_argument("--site", type=folder_named, metavar="DIR", help=html)
    options = parser.parse_args(arguments)
    if not options.results.is_dir():
        print(f"no folder {options.results}: run pytest benchmarks/ first, or name another")
        return 2
    try:
        if options.site:
            print(site.write(options.results, options.site))
            return 0
        if not options.check:
            print(publish(options.results))
            return 0
        outdated = stale(options.results)
        for path in outdated:
            print(f"stale: {path}; run python -m {__package__} to rebuild it")
        if not outdated:
            print(f"up to date: what {options.results} says")
        return 1 if outdated else 0
    except ImportError as error:
        print(f"{error}; pip install 'randomized-defense-bench[site]'", file=sys.stderr)
        return 2
    except (RecordError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    # A path may hold letters that the terminal's encoding lacks.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(main())
