"""`python -m leaderboard`: rebuild all pages from the records, check them, or merge records."""

import argparse
import sys

from randomized_defense_bench.leaderboard import LOCAL, RESULTS, site
from randomized_defense_bench.leaderboard.publish import changes, publish

from randomized_defense_bench.files import folder_named
from randomized_defense_bench.merging import merge


def main(arguments: list[str] | None = None) -> int:
    """Return 0 when done or up to date, 1 when stale, 2 for a folder or record that is unusable."""
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}", description=__doc__)
    folder = "folder of records; the pages are written beside it (default: %(default)s)"
    parser.add_argument("--results", type=folder_named, default=RESULTS, help=folder)
    check = "write nothing; fail when a page or a figure is not what the records say"
    parser.add_argument("--check", action="store_true", help=check)
    html = "write the board as static HTML into this folder instead; needs the extra `site`"
    parser.add_argument("--site", type=folder_named, metavar="DIR", help=html)
    merging = parser.add_subparsers(dest="merge").add_parser("merge", help="join shards' records")
    merging.add_argument("folders", nargs="+", type=folder_named, metavar="DIR")
    merging.add_argument("--into", type=folder_named, default=LOCAL, help="default: %(default)s")
    options = parser.parse_args(arguments)
    read = options.folders if options.merge else [options.results]
    if missing := [folder for folder in read if not folder.is_dir()]:
        print(f"no folder {missing[0]}: run pytest benchmarks/ first, or name another")
        return 2
    try:
        if options.merge:
            print(f"{merge(options.folders, options.into)} new; {publish(options.into)}")
            return 0
        if options.site or not options.check:
            page = options.site and site.write(options.results, options.site)
            print(page or publish(options.results))
            return 0
        outdated = [f"stale: {p}; {parser.prog} rebuilds it" for p in changes(options.results)]
        print("\n".join(outdated) or f"up to date: what {options.results} says")
        return 1 if outdated else 0
    except (ImportError, OSError, ValueError) as error:
        cure = "; pip install 'randomized-defense-bench[site]'" * isinstance(error, ImportError)
        print(f"{error}{cure}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    # A path may hold letters that the terminal's encoding lacks.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(main())
