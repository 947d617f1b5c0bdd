#!/usr/bin/env bash
# robustbench 1.1.1 asks pip for pyautoattack >= 0.2.0, and imports `autoattack`: a name that this has
# no longer. Installed as its own metadata say it cannot be imported.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet --disable-pip-version-check \
    robustbench==1.1.1 pyautoattack==0.2.0 torch==2.14.1 torchvision==0.29.1

"$scratch/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import requires, version
from importlib.util import find_spec

try:
    import robustbench
except ImportError as error:
    seen = f"{type(error).__name__}: {error}"
else:
    seen = "imported"
(wanted,) = (line for line in requires("robustbench") if "autoattack" in line)
print(*(f"{name} {version(name)}" for name in ("robustbench", "pyautoattack", "torch")), sep=", ")
print(f"asked of pip: {wanted}; modules there: pyautoattack {bool(find_spec('pyautoattack'))}, "
      f"autoattack {bool(find_spec('autoattack'))}")
print("expected: imported")
print(f"seen:     {seen}")
sys.exit(seen != "ModuleNotFoundError: No module named 'autoattack'")
PYTHON
