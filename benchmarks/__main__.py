"""`python -m benchmarks`: what is done without pytest.

`judge` gives a verdict on networks from files. `store` shows, checks and cleans what fills the
disk: `ls` lists populations, unfinished work and what was set aside; `verify` reads everything and
says what is damaged; `prune` removes what is no finished population, or the populations it is
given.
"""

from __future__ import annotations

import argparse
import os
import sys

from tabulate import tabulate

# Read when PyTorch starts: on cores that others use, too, threads that spin take thrice as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from randomized_defense_bench.benchmarks import judging
from randomized_defense_bench.benchmarks.housekeeping import entries, prune
from randomized_defense_bench.benchmarks.paths import cache_folder

from randomized_defense_bench.files import folder_named


def main(arguments: list[str] | None = None) -> int:
    """Return the exit code of the command that is asked for."""
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}", description=__doc__)
    commands = parser.add_subparsers(required=True)
    judging.add_command(commands.add_parser("judge", help="attack networks from files"))
    store = commands.add_parser("store", help="see, check and clean the store")
    store.set_defaults(run=_store)
    store.add_argument(
        "--store",
        type=folder_named,
        default=cache_folder() / "store",
        help="the store's folder (default: %(default)s)",
    )
    actions = store.add_subparsers(dest="action", required=True)
    actions.add_parser("ls", help="list what is there, with sizes")
    actions.add_parser("verify", help="read everything; exit with 1 if something is damaged")
    cleaning = actions.add_parser(
        "prune", help="remove unfinished work, what was set aside and leftovers, or what is named"
    )
    cleaning.add_argument("names", nargs="*", help="names or patterns, as ls prints them")
    cleaning.add_argument("--dry-run", action="store_true", help="say what would be removed")
    options = parser.parse_args(arguments)
    code: int = options.run(options)
    return code


def _store(options: argparse.Namespace) -> int:
    """Return 0, 1 when `verify` found damage, or 2 when `prune` knows nothing of that name."""
    if options.action == "prune":
        found = prune(options.store, options.names, dry_run=options.dry_run)
    else:
        found = list(entries(options.store, thorough=options.action == "verify"))
    rows = [
        (e.name, e.state, e.details, f"{e.bytes / 2**20:.1f}") for e in found if e.path.exists()
    ]
    gone = [e for e in found if not e.path.exists()]
    if rows:
        print(tabulate(rows, ["name", "state", "details", "MiB"], disable_numparse=True))
    for entry in gone:
        print(f"removed {entry.name} ({entry.state})")
    if not found:
        matching = " matches" if options.action == "prune" and options.names else ""
        print(f"nothing in {options.store}{matching}")
        return 2 if options.action == "prune" and options.names else 0
    damaged = [entry for entry in found if entry.state.startswith("damaged")]
    if options.action == "verify":
        print(f"{len(found) - len(damaged)} sound, {len(damaged)} damaged")
    return 1 if options.action == "verify" and damaged else 0


if __name__ == "__main__":
    # A path may hold letters that the terminal's encoding lacks. There may be no terminal.
    if sys.stdout:
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(main())
