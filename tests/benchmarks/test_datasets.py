import gzip
import shutil
import struct
from dataclasses import replace
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from randomized_defense_bench.benchmarks import datasets
from randomized_defense_bench.benchmarks.datasets import DATASETS, DatasetError, DatasetMissingError
from torchvision.datasets import MNIST
from torchvision.datasets.utils import extract_archive

pytestmark = pytest.mark.filterwarnings("ignore:mnist under .* is not the published")


def load(name, root, train=None, test=None):
    return datasets.load(name, root, train, test)


def write_mnist(root, images=30):
    """The four IDX files, of made-up images whose class is their brightness."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for kind in ("train", "t10k"):
        labels = np.arange(images, dtype=np.uint8) % 10
        pixels = np.repeat(labels * 25, 28 * 28).astype(np.uint8)
        header = struct.pack(">IIII", 2051, images, 28, 28)
        (folder / f"{kind}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        header = struct.pack(">II", 2049, images)
        (folder / f"{kind}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
    return folder


def write_folder(root, name, classes=10, mode="RGB", size=32):
    for split in ("train", "test"):
        for k in range(classes):
            folder = root / name / split / f"class{k}"
            folder.mkdir(parents=True)
            for number in range(3):
                color = (25 * k, number, 0) if mode == "RGB" else 25 * k
                Image.new(mode, (size, size), color).save(folder / f"{number}.png")


@pytest.fixture
def offline(monkeypatch):
    """A machine on which no download succeeds."""

    def refuse(*arguments, **options):
        raise OSError("network is unreachable")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", refuse)
    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", refuse)


def test_digits_come_with_the_package(tmp_path):
    data = load("digits", tmp_path)
    assert data.train_images.shape == (1437, 1, 32, 32)
    assert data.test_images.shape == (360, 1, 32, 32)
    assert (data.train_images.min(), data.train_images.max()) == (0, 1)
    assert data.train_labels.unique().tolist() == list(range(10))
    assert data.source == "scikit-learn load_digits"
    assert len(data.sha256) == 64
    assert [*tmp_path.iterdir()] == []
    train = {image.numpy().tobytes() for image in data.train_images}
    assert not train & {image.numpy().tobytes() for image in data.test_images}


def test_a_smaller_subset_lies_inside_a_larger_one_with_its_labels(tmp_path):
    small, large = load("digits", tmp_path, 10, 5), load("digits", tmp_path, 50, 20)
    assert torch.equal(small.train_images, large.train_images[:10])
    assert torch.equal(small.test_labels, large.test_labels[:5])
    assert small.sha256 == large.sha256


def test_mnist_files_are_read_resized_and_hashed_by_content(tmp_path):
    folder = write_mnist(tmp_path)
    data = load("mnist", tmp_path)
    assert data.train_images.shape == (30, 1, 32, 32)
    brightness = data.train_images.mean(dim=(1, 2, 3))
    assert torch.allclose(brightness, data.train_labels * 25 / 255, atol=1e-6)
    assert data.source == "not as published: torchvision MNIST"

    labels = folder / "t10k-labels-idx1-ubyte"
    content = bytearray(labels.read_bytes())
    content[-1], content[-2] = content[-2], content[-1]
    labels.write_bytes(content)
    assert load("mnist", tmp_path).sha256 != data.sha256


def test_known_data_are_known_by_their_pixels_and_others_are_said_to_be_others(
    tmp_path, monkeypatch
):
    """torchvision prefers `processed`, as its earlier versions left it, and does not check it."""
    write_mnist(tmp_path)
    published = replace(DATASETS["mnist"], sha256=load("mnist", tmp_path).sha256)
    monkeypatch.setitem(DATASETS._entries, "mnist", published)
    assert load("mnist", tmp_path).source == "torchvision MNIST"
    (tmp_path / "MNIST" / "processed").mkdir()
    stale = torch.zeros(10, 28, 28, dtype=torch.uint8), torch.arange(10)
    for split in ("training", "test"):
        torch.save(stale, tmp_path / "MNIST" / "processed" / f"{split}.pt")
    with pytest.warns(UserWarning, match="mnist under .* is not the published data set"):
        data = load("mnist", tmp_path)
    assert data.source == "not as published: torchvision MNIST"
    assert data.train_images.sum() == 0


@pytest.fixture
def archives(tmp_path):
    """The four archives, without the files in them, in a folder elsewhere."""
    folder = write_mnist(tmp_path / "elsewhere")
    for path in [*folder.iterdir()]:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    return folder


def test_archives_are_enough(tmp_path, archives, offline):
    assert load("mnist", tmp_path / "elsewhere").train_images.shape == (30, 1, 32, 32)


def test_a_download_that_failed_is_tried_again_and_goes_on(tmp_path, archives, monkeypatch):
    """The first run has no network, the second loses it half-way, the third is sound."""

    def download(url, download_root, filename, md5):
        if filename not in reachable:
            raise URLError("network is unreachable")
        shutil.copy(archives / filename, download_root)
        extract_archive(f"{download_root}/{filename}")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", download)
    names = [name for name, _ in MNIST.resources]
    for reachable in ([], names[:2]):
        with pytest.raises(DatasetMissingError, match="network is unreachable"):
            load("mnist", tmp_path)
        assert len([*(tmp_path / "MNIST" / "raw").glob("*.gz")]) == len(reachable)
    reachable = names
    assert load("mnist", tmp_path).train_images.shape == (30, 1, 32, 32)


def test_files_of_one_s_own_are_not_overwritten_by_a_download(tmp_path, monkeypatch):
    monkeypatch.setattr(MNIST, "download", lambda self: pytest.fail("overwrites them"))
    (write_mnist(tmp_path) / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DatasetError, match="MNIST/raw is incomplete or corrupt.*move it away"):
        load("mnist", tmp_path)


GREY = (np.arange(1024).reshape(32, 32) // 4).astype(np.uint8)
RGB = np.stack([GREY, GREY[::-1], GREY.T], axis=-1)
OPAQUE = np.full_like(GREY, 255)
BLACK = np.where(GREY > 127, OPAQUE, 0)


@pytest.mark.parametrize(
    ("dataset", "image", "suffix", "expected"),
    [
        ("mnist", Image.fromarray(GREY), "tiff", GREY),
        ("mnist", Image.fromarray(np.dstack([GREY] * 3)), "bmp", GREY),
        ("mnist", Image.fromarray(np.dstack([GREY, OPAQUE])), "png", GREY),
        ("mnist", Image.fromarray(GREY).convert("P"), "png", GREY),
        ("mnist", Image.fromarray(BLACK).convert("1"), "png", BLACK),
        ("mnist", Image.fromarray(GREY.astype(np.uint16) * 257), "png", "pixels of type I;16"),
        ("mnist", Image.fromarray(GREY.astype(np.int32)), "tiff", "pixels of type I;"),
        ("mnist", Image.fromarray(GREY.astype(np.float32) / 255), "tiff", "pixels of type F;"),
        ("mnist", Image.fromarray(np.dstack([OPAQUE, GREY])), "png", "is transparent in places"),
        ("mnist", Image.fromarray(RGB), "png", "has colours; save it as 8-bit grey"),
        ("cifar10", Image.fromarray(RGB), "png", RGB),
        ("cifar10", Image.fromarray(np.dstack([RGB, OPAQUE])), "png", RGB),
        ("cifar10", Image.fromarray(GREY), "png", np.dstack([GREY] * 3)),
        ("cifar10", Image.fromarray(np.dstack([RGB, GREY])), "png", "save it as 8-bit RGB"),
        ("cifar10", Image.fromarray(RGB).convert("CMYK"), "jpg", "pixels of type CMYK"),
    ],
)
def test_an_image_file_is_read_as_it_is_shown_or_refused_by_name(
    tmp_path, dataset, image, suffix, expected, offline
):
    for k in range(10):
        for split in ("train", "test"):
            folder = tmp_path / dataset / split / str(k)
            folder.mkdir(parents=True)
            image.save(folder / f"x.{suffix}")
    if isinstance(expected, str):
        with pytest.raises(DatasetError, match=f"{dataset}/train/0/x.{suffix} .*{expected}"):
            load(dataset, tmp_path)
    else:
        shown = load(dataset, tmp_path).test_images[0] * 255
        assert torch.equal(shown, torch.tensor(expected.reshape(32, 32, -1)).movedim(-1, 0).float())


@pytest.mark.parametrize(
    ("name", "mode", "channels", "source"),
    [
        ("cifar10", "RGB", 3, "image folder (png)"),
        ("mnist", "L", 1, "not as published: image folder (png)"),
    ],
)
def test_an_image_folder_stands_in_and_says_so(tmp_path, name, mode, channels, source, offline):
    write_folder(tmp_path, name, mode=mode)
    data = load(name, tmp_path)
    assert data.test_images.shape == (30, channels, 32, 32)
    assert data.source == source
    first = data.test_images[:, 0].mean(dim=(1, 2))
    assert torch.allclose(first, data.test_labels * 25 / 255, atol=1e-6)


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_missing_data_says_what_to_put_where(tmp_path, name, offline):
    with pytest.raises(DatasetMissingError) as caught:
        load(name, tmp_path)
    message = str(caught.value)
    for part in (str(tmp_path), f"{name}/{{train,test}}/<class>/*", "--data-root", "unreachable"):
        assert part in message


def half_a_batch(root):
    (root / "cifar-10-batches-py").mkdir()
    (root / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"half of it")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda root: (root / "cifar10/test/class3/1.png").write_bytes(b"x"), "cannot be read"),
        (lambda root: shutil.rmtree(root / "cifar10/test"), r"cifar10/test: expected <class>/\*"),
        (
            lambda root: (root / "cifar10/test/class3").rename(root / "cifar10/test/clas3"),
            r"differ in the classes \['clas3', 'class3'\]",
        ),
        (half_a_batch, "cifar-10-batches-py is incomplete or corrupt"),
        (
            lambda root: Image.new("RGB", (16, 32)).save(root / "cifar10/train/class0/0.png"),
            "different shapes",
        ),
    ],
)
def test_a_damaged_data_set_is_named_and_nothing_stands_in(tmp_path, offline, spoil, words):
    write_folder(tmp_path, "cifar10")
    spoil(tmp_path)
    with pytest.raises(DatasetError, match=words) as caught:
        load("cifar10", tmp_path)
    assert not isinstance(caught.value, DatasetMissingError)


def test_a_truncated_file_is_corrupt_not_missing(tmp_path, offline):
    path = write_mnist(tmp_path) / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DatasetError, match="mnist under .* is corrupt") as caught:
        load("mnist", tmp_path)
    assert not isinstance(caught.value, DatasetMissingError)
