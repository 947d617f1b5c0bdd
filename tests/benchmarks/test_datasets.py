import shutil
import struct
from dataclasses import replace

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
    assert data.train_images.min() >= 0
    assert data.train_images.max() <= 1
    assert data.train_labels.unique().tolist() == list(range(10))
    assert data.source == "scikit-learn load_digits"
    assert len(data.sha256) == 64
    assert [*tmp_path.iterdir()] == []


def test_no_digit_is_in_both_splits(tmp_path):
    data = load("digits", tmp_path)
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


def test_a_truncated_file_is_corrupt_not_missing(tmp_path, offline):
    path = write_mnist(tmp_path) / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DatasetError, match="mnist under .* is corrupt") as caught:
        load("mnist", tmp_path)
    assert not isinstance(caught.value, DatasetMissingError)


def test_a_file_that_is_no_image_is_named(tmp_path, offline):
    write_folder(tmp_path, "cifar10")
    (tmp_path / "cifar10" / "test" / "class3" / "1.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match="cannot be read"):
        load("cifar10", tmp_path)


def test_a_missing_split_is_named(tmp_path, offline):
    write_folder(tmp_path, "cifar10")
    shutil.rmtree(tmp_path / "cifar10" / "test")
    with pytest.raises(DatasetError, match=r"cifar10/test: expected <class>/\*"):
        load("cifar10", tmp_path)


def test_the_wrong_number_of_classes_is_refused(tmp_path, offline):
    write_folder(tmp_path, "cifar10", classes=7)
    with pytest.raises(DatasetError, match="cifar10 training split: 7 classes, expected 10"):
        load("cifar10", tmp_path)


def test_splits_with_different_classes_are_refused_by_name(tmp_path, offline):
    write_folder(tmp_path, "cifar10")
    (tmp_path / "cifar10" / "test" / "class3").rename(tmp_path / "cifar10" / "test" / "clas3")
    with pytest.raises(DatasetError, match=r"differ in the classes \['clas3', 'class3'\]"):
        load("cifar10", tmp_path)


def test_a_corrupt_cifar_is_no_reason_to_use_something_else(tmp_path, offline):
    write_folder(tmp_path, "cifar10")
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"half of it")
    with pytest.raises(
        DatasetError, match="cifar-10-batches-py is incomplete or corrupt"
    ) as caught:
        load("cifar10", tmp_path)
    assert not isinstance(caught.value, DatasetMissingError)


def test_images_of_different_shapes_are_refused(tmp_path, offline):
    write_folder(tmp_path, "cifar10")
    Image.new("RGB", (16, 32)).save(tmp_path / "cifar10" / "train" / "class0" / "0.png")
    with pytest.raises(DatasetError, match="different shapes"):
        load("cifar10", tmp_path)


def test_images_that_are_not_square_are_refused(tmp_path, monkeypatch):
    raw = datasets.Raw(*[np.zeros((10, 8, 9), np.uint8), np.arange(10)] * 2, source="made up")
    entry = replace(datasets.DATASETS["digits"], read=lambda root: raw)
    monkeypatch.setitem(datasets.DATASETS._entries, "odd", entry)
    with pytest.raises(DatasetError, match=r"shape \(10, 8, 9\), expected \(N, S, S\)"):
        load("odd", tmp_path)


def test_an_unknown_dataset_names_the_known_ones(tmp_path):
    with pytest.raises(LookupError, match=r"'minst'; did you mean 'mnist'\? \(known: digits"):
        load("minst", tmp_path)
