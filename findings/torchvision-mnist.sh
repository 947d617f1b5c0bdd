#!/usr/bin/env bash
# torchvision 0.29.1: MNIST knows the MD5 of each of its archives, yet takes any files of the right names
# for MNIST, `download=True` or not; and a folder `processed`, as versions before 0.9 wrote it, goes
# before them. CIFAR10 compares its files with their MD5. A score can be of other images than it says.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1

"$scratch/venv/bin/python" - "$scratch" <<'PYTHON'
import sys
from importlib.metadata import version
from pathlib import Path

import torch
from torchvision.datasets import CIFAR10, MNIST

root = Path(sys.argv[1])
raw, processed = root / "MNIST" / "raw", root / "MNIST" / "processed"


def write(path, array):
    """The format of the originals: magic number, sizes, bytes."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(bytes([0, 0, 8, array.ndim]) + sizes + bytes(array.flatten().tolist()))


def brightness():
    return MNIST(root, train=False, download=True).data.unique().tolist()


raw.mkdir(parents=True)
for split in ("train", "t10k"):
    write(raw / f"{split}-images-idx3-ubyte", torch.full((10, 28, 28), 7))
    write(raw / f"{split}-labels-idx1-ubyte", torch.arange(10))
unchecked = brightness()
processed.mkdir()
for split in ("training", "test"):
    other = torch.full((10, 28, 28), 200, dtype=torch.uint8), torch.arange(10)
    torch.save(other, processed / f"{split}.pt")
stale = brightness()
(root / CIFAR10.base_folder).mkdir()
for name, _ in CIFAR10.train_list + CIFAR10.test_list:
    (root / CIFAR10.base_folder / name).write_bytes(b"other")
try:
    CIFAR10(root, train=False)
    refused = False
except RuntimeError as error:
    refused = "not found or corrupted" in str(error)

print(*(f"{name} {version(name)}" for name in ("torchvision", "torch")), sep=", ")
print("expected: files that are not MNIST's are refused, as CIFAR10's are; raw files are read first")
print(f"seen:     ten images of {unchecked} are MNIST; with `processed` beside them, of {stale};")
print(f"          CIFAR10 refuses others: {refused}")
sys.exit(not (unchecked == [7] and stale == [200] and refused))
PYTHON
