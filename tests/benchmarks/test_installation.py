"""Broken installations, made by hand."""

import base64
import hashlib
import importlib

import pytest

from benchmarks import installation


def make(folder, name, version, files):
    """A distribution as pip leaves it: files, and a RECORD of what was in its wheel."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = []
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(content)}")
    (info / "RECORD").write_text("\n".join(lines) + "\n")


REAL = {"robustbench_/eval.py": b"new", "robustbench_/data.py": b"both"}
OLD = {"robustbench_/eval.py": b"old", "robustbench_/data.py": b"both", "torchattacks_/a.py": b""}


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    return tmp_path


def test_files_that_another_wheel_overwrote_are_found(site):
    make(site, "robustbench_", "1.1.1", REAL)
    make(site, "torchattacks_", "3.5.1", OLD)
    found = installation._overwritten("robustbench_", "torchattacks_")
    assert "robustbench_ 1.1.1 is broken: 1 of its files, such as robustbench_/eval.py" in found
    assert "pip install --force-reinstall --no-deps robustbench_==1.1.1" in found


def test_the_cure_cures(site):
    make(site, "torchattacks_", "3.5.1", OLD)
    make(site, "robustbench_", "1.1.1", REAL)
    assert installation._overwritten("robustbench_", "torchattacks_") is None


def test_one_of_them_alone_is_sound(site):
    make(site, "torchattacks_", "3.5.1", OLD)
    assert installation._overwritten("robustbench_", "torchattacks_") is None


def test_a_package_that_cannot_be_imported_is_named_with_what_fails(monkeypatch):
    def broken(name):
        if name == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(importlib, "import_module", broken)
    (found,) = installation.problems()
    assert found.startswith("torchvision cannot be imported (operator torchvision::nms")
    assert "digits work" in found
    assert "pip install --force-reinstall torch torchvision" in found


def test_a_sound_installation_has_no_problems():
    assert installation.problems() == []
