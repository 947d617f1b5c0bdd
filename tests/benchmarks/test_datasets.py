import shutil
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import datasets
from benchmarks.datasets import DatasetError, DatasetMissingError


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
    assert data.source == "torchvision MNIST"

    labels = folder / "t10k-labels-idx1-ubyte"
    content = bytearray(labels.read_bytes())
    content[-1], content[-2] = content[-2], content[-1]
    labels.write_bytes(content)
    assert load("mnist", tmp_path).sha256 != data.sha256


@pytest.mark.parametrize(("name", "mode", "channels"), [("cifar10", "RGB", 3), ("mnist", "L", 1)])
def test_an_image_folder_stands_in_and_says_so(tmp_path, name, mode, channels, offline):
    write_folder(tmp_path, name, mode=mode)
    data = load(name, tmp_path)
    assert data.test_images.shape == (30, channels, 32, 32)
    assert data.source == "image folder (png)"
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
