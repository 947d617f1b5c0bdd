"""The store: trained populations, and work that is not finished; keyed by content.

    <root>/populations/<key>/card.json             what it is, and the digest of its weights
    <root>/populations/<key>/weights.safetensors
    <root>/populations/<key>/checkpoint.safetensors  while it is being trained
    <root>/populations/<key>/epoch-<k>.safetensors   weights after epoch k, where they are wanted
    <root>/unfinished/<key>/*.safetensors          what an attack has perturbed so far

What is found to be damaged is set aside under another name, never used and never deleted.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ..defenses import Population
from ..files import read_sealed, write_atomically, write_sealed
from .paths import obstacle, set_aside

CARD_VERSION = 1


class StoreError(RuntimeError):
    """A store that cannot be used; the message names the file and the cure."""


class DamagedError(ValueError):
    """A file whose content is not what was written."""


def weights_sha256(population: Population) -> str:
    """Identifies a population's weights and buffers, wherever they are kept."""
    return digest_of(population.state_dict())


def write_tensors(path: Path, tensors: Mapping[str, Tensor], **metadata: str) -> None:
    """Write tensors and words to a safetensors file that holds a digest of both."""
    # In memory of their own: safetensors takes no views.
    apart = {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    write_atomically(path, save(apart, {**metadata, "sha256": digest_of(apart, metadata)}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and words of a file.

    Raises:
        ValueError: not what `write_tensors` wrote, or a link out of the folder.
        OSError: it cannot be read.
    """
    content = inside(path).read_bytes()
    try:
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata = dict(header["__metadata__"])
    except (
        SafetensorError,
        RuntimeError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ) as error:
        raise DamagedError(f"no safetensors file ({error})") from error
    if metadata.pop("sha256", None) != digest_of(tensors, metadata):
        raise DamagedError("changed since it was written: its digest differs")
    return tensors, metadata


class Store:
    """Trained populations and unfinished work under a folder.

    Args:
        root: created when something is first written.
        released: a folder of finished populations that are copied here when they are asked for.
    """

    def __init__(self, root: Path, released: Path | None = None) -> None:
        self.root = root
        self._released = released

    def folder(self, name: str, identity: Mapping[str, Any]) -> Path:
        """Where a population with this identity lives: the same content, the same folder."""
        canonical = json.dumps(identity, sort_keys=True)
        digest = hashlib.sha256(canonical.encode()).hexdigest()[:16]
        return self.root / "populations" / f"{name}-{digest}"

    @contextmanager
    def lock(self, folder: Path) -> Iterator[None]:
        """Held while a population is loaded or trained, so that each is trained once.

        Not where nothing can be written: what is finished there stays as it is.

        Raises:
            StoreError: the folder lies outside the store, by way of a link.
        """
        if not folder.resolve().is_relative_to(self.root.resolve()):
            raise StoreError(f"{folder} leads out of the store, to {folder.resolve()}; remove it")
        if folder.is_dir() and not os.access(folder, os.W_OK):
            yield
            return
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(lock_of(folder)):
            yield

    def load_into(
        self,
        population: Population,
        folder: Path,
        keep: Callable[[dict[str, Any]], bool] | None = None,
    ) -> dict[str, Any] | None:
        """Load weights into a freshly built population and return the card; None: not there.

        What is damaged is set aside with a warning. What `keep` refuses by its card stays until it
        is replaced.
        """
        if not _begun(folder):
            self._copy_released(folder)
        if not (folder / "card.json").exists():
            return None
        try:
            card, tensors = read_population(folder)
            _check_fit(population, tensors)
        except (ValueError, KeyError, FileNotFoundError) as error:
            files = folder / "card.json", folder / "weights.safetensors"
            _warn_and_set_aside(folder, error, *files, then="; the population is trained again")
            return None
        if keep and not keep(card):
            for path in (folder / "checkpoint.safetensors", *folder.glob("epoch-*.safetensors")):
                path.unlink(missing_ok=True)
            return None
        population.load_state_dict(tensors)
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
        metrics: Mapping[str, float],
    ) -> dict[str, Any]:
        """Write weights, then the card that makes them valid; return the card.

        Args:
            parents: weights_sha256 of the populations this one was trained from, by defense.
            run: that trained it.
            metrics: what it scored then, for people who list the store.
        """
        card = {
            "card_version": CARD_VERSION,
            "identity": identity,
            "weights_sha256": weights_sha256(population),
            "training_seconds": seconds,
            "parents": parents,
            "run": run,
            "metrics": metrics,
            "torch": torch.__version__,
        }
        tensors, stored = _halved(population.state_dict())
        write_tensors(folder / "weights.safetensors", tensors, stored=stored)
        write_sealed(folder / "card.json", card)
        (folder / "checkpoint.safetensors").unlink(missing_ok=True)
        return card

    def card(self, folder: Path) -> dict[str, Any] | None:
        """The card of what `load_into` would load; None: it is not there, or damaged."""
        released = self._released if self._released and not _begun(folder) else None
        try:
            return read_population(released / folder.name if released else folder)[0]
        except (OSError, ValueError, KeyError):
            return None

    def join(
        self,
        population: Population,
        folder: Path,
        parts: Sequence[Path],
        keep: Callable[[dict[str, Any]], bool],
    ) -> float | None:
        """Put a population together of members that were trained apart, with the epochs kept.

        Args:
            parts: the members' own folders, in their order; may be none.
            keep: see `load_into`.

        Returns:
            The seconds that their training took in all; None: they are not all there.
        """
        try:
            finished = [read_population(part) for part in parts]
            if not finished or not all(keep(card) for card, _ in finished):
                return None
            tensors = _joined([weights for _, weights in finished])
            _check_fit(population, tensors)
            for name in sorted(path.name for path in parts[0].glob("epoch-*.safetensors")):
                epochs = [read_tensors(part / name)[0] for part in parts]
                write_tensors(folder / name, _joined(epochs))
        except (FileNotFoundError, ValueError, KeyError):
            return None
        population.load_state_dict(tensors)
        return float(sum(card["training_seconds"] for card, _ in finished))

    def remove(self, folders: Iterable[Path]) -> None:
        """Remove populations that nobody needs any more."""
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)

    def load_epochs(self, populations: Sequence[Population], folder: Path) -> None:
        """Load what a finished population was after each epoch of its training, in their order.

        Raises:
            StoreError: it was not kept, or is of another training.
        """
        try:
            for epoch, population in enumerate(populations, start=1):
                tensors, _ = read_tensors(folder / f"epoch-{epoch}.safetensors")
                _check_fit(population, tensors)
                population.load_state_dict(tensors)
                population.eval()
            if weights_sha256(populations[-1]) != read_card(folder / "card.json")["weights_sha256"]:
                raise DamagedError("the last epoch is not the finished population")
        except (OSError, ValueError) as error:
            raise StoreError(
                f"the epochs of {folder.name} are not all there ({error}); after "
                f"`python -m benchmarks store prune {folder.name}` it is made again with them"
            ) from error

    def _copy_released(self, folder: Path) -> None:
        """Put a population that comes with the suite into the store, the card last."""
        source = self._released / folder.name if self._released else None
        if source and (source / "card.json").exists():
            for path in (*sorted(source.glob("*.safetensors")), source / "card.json"):
                write_atomically(folder / path.name, path.read_bytes())

    def trained(self) -> set[str]:
        """The weights_sha256 of all finished populations.

        Those that come with the suite count where the store has not begun one in their place; what
        cannot be read does not count.
        """
        own = self.root / "populations"
        cards = list(own.glob("*/card.json"))
        if self._released:
            released = self._released.glob("*/card.json")
            cards += [card for card in released if not _begun(own / card.parent.name)]
        found = set()
        for path in cards:
            with suppress(OSError, ValueError):
                found.add(read_card(path)["weights_sha256"])
        return found

    @contextmanager
    def unfinished(self, key: str) -> Iterator[FileBlocks | None]:
        """What an attack has perturbed so far, by one process at a time; None: not writable."""
        folder = self.root / "unfinished" / key
        if obstacle(folder):
            yield None
            return
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock_of(folder)):
            yield FileBlocks(folder)


def lock_of(folder: Path) -> Path:
    """The lock of a folder in the store: beside it, since the folder may be removed under it."""
    return folder.with_name(f"{folder.name}.lock")


def read_card(path: Path) -> dict[str, Any]:
    """A population's card.

    Raises:
        OSError: it cannot be read.
        ValueError: damaged, or of another version.
    """
    card = read_sealed(inside(path))
    if card.get("card_version") != CARD_VERSION:
        raise ValueError(f"card version {card.get('card_version')}, expected {CARD_VERSION}")
    return card


def read_population(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A population's card and weights.

    Raises:
        OSError: they cannot be read.
        ValueError: damaged, or the weights are not those of the card.
    """
    card = read_card(folder / "card.json")
    tensors, metadata = read_tensors(folder / "weights.safetensors")
    if metadata.get("stored") == "half":
        tensors = {n: t.float() if t.dtype == torch.float16 else t for n, t in tensors.items()}
    if digest_of(tensors) != card["weights_sha256"]:
        raise DamagedError("the weights are not those of the card")
    return card, tensors


def _warn_and_set_aside(what: Path, error: Exception, *files: Path, then: str = "") -> None:
    aside = ", ".join(set_aside(file).name for file in files if file.exists())
    warnings.warn(f"{what}: {error}. Set aside as {aside}{then}", stacklevel=3)


class FileCheckpoint:
    """The last completed epoch of a training run, in one file.

    Order of data, augmentation and adversarial noise are seeded by epoch, so weights and
    optimizer state are all there is to keep.

    Args:
        folder: the population's folder.
        parents: digests of the populations that this one starts from; filled in by the caller.
        every_epoch: keep the weights after each epoch as well, for good; for one phase.
    """

    def __init__(
        self, folder: Path, parents: dict[str, str] | None = None, *, every_epoch: bool = False
    ) -> None:
        self.path = folder / "checkpoint.safetensors"
        self._every_epoch = every_epoch
        self.parents = parents or {}
        self._phase = -1
        self._earlier_seconds = 0.0
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Time in the training loop so far, earlier runs included."""
        return self._earlier_seconds + time.perf_counter() - self._start

    def starts_from(self, defense: str, sha256: str) -> None:
        """Note another population that this one starts from; its training was not this one's."""
        self.parents[defense] = sha256
        self._start = time.perf_counter()

    def restore(self, population: Population, optimizer: torch.optim.Optimizer, epochs: int) -> int:
        """Load the last completed epoch of the next phase, if any; return how many are done.

        A checkpoint that is damaged, or of a population that started from others, is set aside with
        a warning, and training starts anew.
        """
        self._phase += 1
        if self._phase == 0:
            self._start = time.perf_counter()
        if not self.path.exists():
            return 0
        try:
            tensors, metadata = read_tensors(self.path)
            phase, done = int(metadata["phase"]), int(metadata["epochs"])
            if phase != self._phase:
                return epochs if phase > self._phase else 0
            if json.loads(metadata["parents"]) != self.parents:
                raise DamagedError("it started from other populations")
            weights = _with_prefix(tensors, "population.")
            _check_fit(population, weights)
            state = _optimizer_state(_with_prefix(tensors, "optimizer."), optimizer)
        except (KeyError, ValueError) as error:
            _warn_and_set_aside(self.path, error, self.path)
            return 0
        population.load_state_dict(weights)
        optimizer.load_state_dict(state)
        self._earlier_seconds = float(metadata["seconds"])
        return done

    def save(self, population: Population, optimizer: torch.optim.Optimizer, epochs: int) -> None:
        """Keep the state after `epochs` epochs of the present phase."""
        if self._every_epoch:
            write_tensors(
                self.path.with_name(f"epoch-{epochs}.safetensors"), population.state_dict()
            )
        tensors = {f"population.{k}": v for k, v in population.state_dict().items()}
        for parameter, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{parameter}.{what}": v for what, v in state.items()}
        write_tensors(
            self.path,
            tensors,
            phase=str(self._phase),
            epochs=str(epochs),
            seconds=str(self.seconds),
            parents=json.dumps(self.parents),
        )


class FileBlocks:
    """The images that an attack has perturbed so far, in a folder; see `attacks.craft.Kept`.

    Attributes:
        earlier_seconds: what the blocks that were found took.
    """

    # Seconds of work that may be lost.
    AT_STAKE = 10.0

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.earlier_seconds = 0.0
        self._blocks: dict[str, Tensor] = {}
        self._unwritten: dict[str, Tensor] = {}
        self._unwritten_seconds = 0.0
        for path in sorted(folder.glob("*.safetensors")):
            try:
                tensors, metadata = read_tensors(path)
                self.earlier_seconds += float(metadata["seconds"])
                self._blocks |= tensors
            except (KeyError, ValueError) as error:
                _warn_and_set_aside(path, error, path)
        self._files = len(list(folder.glob("*.safetensors*")))

    def get(self, name: str) -> Tensor | None:
        """A block's images, if an earlier run perturbed them."""
        return self._blocks.get(name)

    def put(self, name: str, images: Tensor, seconds: float) -> None:
        """Keep a block; it is on disk once `AT_STAKE` seconds of work have come together.

        Where it cannot be written, the attack goes on without, with a warning.
        """
        self._unwritten[name] = images
        self._unwritten_seconds += seconds
        if self._unwritten_seconds < self.AT_STAKE:
            return
        path = self.folder / f"{self._files:06d}.safetensors"
        try:
            write_tensors(path, self._unwritten, seconds=str(self._unwritten_seconds))
        except OSError as error:
            warnings.warn(f"an unfinished attack cannot be kept: {error}", stacklevel=2)
        self._files += 1
        self._unwritten, self._unwritten_seconds = {}, 0.0

    def discard(self) -> None:
        """Remove the folder: the attack is finished, and its record written."""
        shutil.rmtree(self.folder, ignore_errors=True)


def inside(path: Path) -> Path:
    """The path, if no link leads out of its folder.

    Raises:
        ValueError: one does.
    """
    if not path.resolve().is_relative_to(path.parent.resolve()):
        raise ValueError(f"{path.name} leads out of the store, to {path.resolve()}")
    return path


def digest_of(tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> str:
    """SHA-256 of tensors by name, shape, type and content, and of the words beside them.

    State dicts may hold other things, as those of quantized layers do.
    """
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} ".encode())
        for part in _content(value):
            digest.update(part)
    if metadata:
        digest.update(json.dumps(metadata, sort_keys=True).encode())
    return digest.hexdigest()


def _content(value: object) -> Iterator[bytes | memoryview]:
    """What tells a value from others."""
    if isinstance(value, Tensor):
        yield f"{tuple(value.shape)} {value.dtype}".encode()
        dense = value.dequantize() if value.is_quantized else value.detach()
        yield dense.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
    elif isinstance(value, (list, tuple, Mapping)):
        for part in sorted(value.items()) if isinstance(value, Mapping) else value:
            yield from _content(part)
    else:
        yield repr(value).encode()


def _joined(members: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The state of a population, of the states of populations of one."""
    return {
        name.replace("submodels.0.", f"submodels.{number}.", 1): tensor
        for number, state in enumerate(members)
        for name, tensor in state.items()
    }


def _halved(tensors: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
    """Tensors in half precision if none of them loses anything, and how they are stored."""
    halves = {n: t.half() if t.dtype == torch.float32 else t for n, t in tensors.items()}
    lost = any(
        tensor.dtype == torch.float16 or not torch.equal(tensor, halves[name].to(tensor.dtype))
        for name, tensor in tensors.items()
    )
    return (tensors, "as it is") if lost else (halves, "half")


def _begun(folder: Path) -> bool:
    """Whether a population is trained there already, in whole or in part."""
    return (folder / "card.json").exists() or (folder / "checkpoint.safetensors").exists()


def _check_fit(population: Population, tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors that are not of this population, before any is copied into it.

    Raises:
        DamagedError: other names, shapes or types.
    """
    expected = population.state_dict()
    if expected.keys() != tensors.keys() or any(
        (tensor.shape, tensor.dtype) != (tensors[name].shape, tensors[name].dtype)
        for name, tensor in expected.items()
    ):
        raise DamagedError("it is of a population of another architecture")


def _optimizer_state(
    tensors: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """An optimizer's state as it takes it back.

    Raises:
        ValueError: it is that of other parameters, such as those of another way to compute.
    """
    parameters = [weight for group in optimizer.param_groups for weight in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, _, what = name.partition(".")
        if tensor.ndim and tensor.shape != parameters[int(number)].shape:
            raise ValueError("it is of parameters of other shapes")
        state.setdefault(int(number), {})[what] = tensor
    return {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}


def _with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
