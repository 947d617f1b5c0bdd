#!/usr/bin/env bash
# torchattacks 3.5.1 brings a package `robustbench` of its own in its wheel. Installed beside RobustBench
# 1.1.1 it overwrites files of it, without a word from pip; `pip check` finds nothing, and removing
# torchattacks takes files of RobustBench with it.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
install() { "$scratch/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps "$@"; }
# Only files are looked at: nothing that either depends on is needed.
install robustbench==1.1.1
cat > "$scratch/look.py" <<'PYTHON'
import base64
import hashlib
from importlib.metadata import distribution


def state(file):
    path = file.locate()
    if not path.exists():
        return "lost"
    digest = hashlib.sha256(path.read_bytes()).digest()
    return "own" if base64.urlsafe_b64encode(digest).decode().rstrip("=") == file.hash.value else "changed"


files = [f for f in distribution("robustbench").files if f.parts[0] == "robustbench" and f.hash]
states = [state(f) for f in files]
print(*(f"{states.count(word)} {word}" for word in ("own", "changed", "lost")), sep=", ")
PYTHON
look() { "$scratch/venv/bin/python" "$scratch/look.py"; }
before=$(look)
install torchattacks==3.5.1
beside=$(look)
"$scratch/venv/bin/pip" uninstall --quiet --yes torchattacks
after=$(look)

echo "robustbench 1.1.1, torchattacks 3.5.1; files of robustbench:"
echo "installed:                 $before"
echo "with torchattacks:         $beside"
echo "torchattacks removed:      $after"
echo "expected: all are its own, three times"
[[ $before == *" 0 changed, 0 lost" && $beside != *" 0 changed"* && $after != *" 0 lost" ]]
