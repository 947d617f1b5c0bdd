#!/usr/bin/env bash
# robustbench 1.1.1 cannot be imported as its own metadata have it installed. It needs pkg_resources,
# which setuptools 82 no longer has; and it asks pip for pyautoattack >= 0.2.0, but imports `autoattack`,
# a name that this has no longer.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
install() { "$scratch/venv/bin/pip" install --quiet --disable-pip-version-check "$@"; }
install robustbench==1.1.1 pyautoattack==0.2.0 torch==2.14.1 torchvision==0.29.1 setuptools==82.0.0
cat > "$scratch/look.py" <<'PYTHON'
import warnings
from importlib.metadata import version

warnings.simplefilter("ignore")
try:
    import robustbench
except ImportError as error:
    seen = f"{type(error).__name__}: {error}"
else:
    seen = "imported"
names = ("robustbench", "pyautoattack", "setuptools", "torch")
print(*(f"{name} {version(name)}" for name in names), sep=", ", end=": ")
print(seen)
PYTHON
look() { "$scratch/venv/bin/python" -W ignore "$scratch/look.py"; }
newest=$(look)
install setuptools==80.10.2
older=$(look)

echo "$newest"
echo "$older"
echo "expected: imported, twice"
[[ $newest == *"No module named 'pkg_resources'" && $older == *"No module named 'autoattack'" ]]
