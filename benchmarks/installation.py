"""What is wrong with the installed packages, and the cure."""

from __future__ import annotations

import base64
import hashlib
import importlib
from importlib.metadata import Distribution, PackageNotFoundError, distribution


def problems() -> list[str]:
    """One line for each: what is broken, what fails because of it, and what to do."""
    found = [_overwritten("robustbench", "torchattacks")]
    for package, consequence, cure in (
        (
            "torchvision",
            "CIFAR-10's ResNet18, MNIST and CIFAR-10 fail; digits work",
            "install torch and torchvision from one index in one command: "
            "pip install --force-reinstall torch torchvision",
        ),
        (
            "torchattacks",
            "fgsm, mifgsm, pgd, pgd-eot, autoattack and adversarial training fail",
            "pip install --force-reinstall --no-deps torchattacks==3.5.1",
        ),
    ):
        try:
            importlib.import_module(package)
        except Exception as error:  # A broken package may raise anything.
            found.append(f"{package} cannot be imported ({error}): {consequence}. {cure}")
    return [problem for problem in found if problem]


def _overwritten(victim: str, culprit: str) -> str | None:
    """A package some of whose files are those of another one's wheel."""
    try:
        installed, other = distribution(victim), distribution(culprit)
    except PackageNotFoundError:
        return None
    expected, foreign = _hashes(installed), _hashes(other)
    spoilt = sorted(
        name
        for name in expected.keys() & foreign.keys()
        if expected[name] != foreign[name] and _actual(installed, name) == foreign[name]
    )
    if not spoilt:
        return None
    return (
        f"{victim} {installed.version} is broken: {len(spoilt)} of its files, such as {spoilt[0]}, "
        f"were overwritten by those in the wheel of {culprit} {other.version}; nothing of this "
        f"suite needs them. pip install --force-reinstall --no-deps {victim}=={installed.version}"
    )


def _hashes(package: Distribution) -> dict[str, str]:
    """The digests that a package's RECORD gives for its Python files, by path."""
    files = package.files or []
    return {str(f): f.hash.value for f in files if f.suffix == ".py" and f.hash}


def _actual(package: Distribution, name: str) -> str | None:
    """The digest of a file as it is, written as a RECORD does."""
    try:
        content = package.locate_file(name).read_bytes()  # type: ignore[attr-defined]
    except OSError:
        return None
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
