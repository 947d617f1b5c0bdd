"""The store: trained populations and unfinished training runs, keyed by content."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from defenses import Population
from leaderboard.files import write_atomically

CARD_VERSION = 1


class StoreError(RuntimeError):
    """A stored population that cannot be used; the message names the file and the cure."""


def weights_sha256(population: Population) -> str:
    """Identifies a population's weights and buffers, wherever they are kept."""
    digest = hashlib.sha256()
    for name, tensor in sorted(population.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


class Store:
    """Populations under `<root>/populations/<key>/`: `weights.safetensors` and `card.json`.

    Args:
        root: created when something is first written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, name: str, identity: Mapping[str, Any]) -> Path:
        """Where a population with this identity lives: the same content, the same folder."""
        canonical = json.dumps(identity, sort_keys=True)
        digest = hashlib.sha256(canonical.encode()).hexdigest()[:16]
        return self.root / "populations" / f"{name}-{digest}"

    def lock(self, folder: Path) -> FileLock:
        """Held while a population is trained, so that each is trained once."""
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / ".lock")

    def load_into(
        self,
        population: Population,
        folder: Path,
        keep: Callable[[dict[str, Any]], bool] | None = None,
    ) -> dict[str, Any] | None:
        """Load weights into a freshly built population and return the card; None: not there.

        What `keep` refuses by its card is dropped, with its checkpoint, to be trained anew.

        Raises:
            StoreError: the files are there but unusable.
        """
        card_path, weights_path = folder / "card.json", folder / "weights.safetensors"
        if not card_path.exists():
            return None
        try:
            card: dict[str, Any] = json.loads(card_path.read_text())
            if keep and not keep(card):
                self.forget(folder)
                return None
            population.load_state_dict(load(weights_path.read_bytes()))
            sound = card["weights_sha256"] == weights_sha256(population)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise StoreError(f"{folder}: {error}; --retrain replaces it") from error
        if not sound:
            raise StoreError(f"{folder}: weights differ from their card; --retrain replaces them")
        population.eval()
        return card

    def save(
        self,
        population: Population,
        folder: Path,
        *,
        identity: Mapping[str, Any],
        seconds: float,
        parents: Mapping[str, str],
        run: str,
    ) -> dict[str, Any]:
        """Write weights, then the card that makes them valid; return the card.

        Args:
            parents: weights_sha256 of the populations this one was trained from, by defense.
            run: identifies the run that trained it.
        """
        card = {
            "card_version": CARD_VERSION,
            "identity": identity,
            "weights_sha256": weights_sha256(population),
            "training_seconds": seconds,
            "parents": parents,
            "run": run,
            "torch": torch.__version__,
        }
        write_atomically(folder / "weights.safetensors", save(_apart(population.state_dict())))
        write_atomically(folder / "card.json", (json.dumps(card, indent=1) + "\n").encode())
        (folder / "checkpoint.safetensors").unlink(missing_ok=True)
        return card

    def forget(self, folder: Path) -> None:
        """Invalidate a population and its checkpoint, so that it is trained anew."""
        for name in ("card.json", "weights.safetensors", "checkpoint.safetensors"):
            (folder / name).unlink(missing_ok=True)


class FileCheckpoint:
    """The last completed epoch of a training run, in one file.

    Order of data, augmentation and adversarial noise are seeded by epoch, so weights and
    optimizer state are all there is to keep.

    Args:
        folder: the population's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "checkpoint.safetensors"
        self._phase = -1
        self._earlier_seconds = 0.0
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Time in the training loop so far, earlier runs included."""
        return self._earlier_seconds + time.perf_counter() - self._start

    def restore(self, population: Population, optimizer: torch.optim.Optimizer, epochs: int) -> int:
        """Load the last completed epoch of the next phase, if any; return how many are done."""
        self._phase += 1
        if self._phase == 0:
            self._start = time.perf_counter()
        if not self.path.exists():
            return 0
        with safe_open(self.path, framework="pt") as file:
            phase = int(file.metadata()["phase"])
        if phase != self._phase:
            return epochs if phase > self._phase else 0
        with safe_open(self.path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        population.load_state_dict(_with_prefix(tensors, "population."))
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _with_prefix(tensors, "optimizer.").items():
            parameter, _, what = name.partition(".")
            state.setdefault(int(parameter), {})[what] = tensor
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": state, "param_groups": groups})
        self._earlier_seconds = float(metadata["seconds"])
        return int(metadata["epochs"])

    def save(self, population: Population, optimizer: torch.optim.Optimizer, epochs: int) -> None:
        """Keep the state after `epochs` epochs of the present phase."""
        tensors = {f"population.{k}": v for k, v in population.state_dict().items()}
        for parameter, state in optimizer.state_dict()["state"].items():
            for what, tensor in state.items():
                tensors[f"optimizer.{parameter}.{what}"] = tensor
        metadata = {
            "phase": str(self._phase),
            "epochs": str(epochs),
            "seconds": str(self.seconds),
        }
        write_atomically(self.path, save(_apart(tensors), metadata))


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, dense, and each in memory of its own: safetensors takes no views."""
    return {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }


def _with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
