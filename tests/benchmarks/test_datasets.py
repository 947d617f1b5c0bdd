import gzip
import io
import pickle
import shutil
import struct
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pyarrow
import pytest
import torch
from PIL import ExifTags, Image
from pyarrow import parquet
from randomized_defense_bench.attacks import ThreatModel
from randomized_defense_bench.benchmarks import datasets
from randomized_defense_bench.benchmarks.datasets import (
    DATASETS,
    DatasetError,
    DatasetMissingError,
    Published,
)
from randomized_defense_bench.benchmarks.datasets.data import sha256_in_any_order, sha256_of
from randomized_defense_bench.benchmarks.session import Options, Session
from randomized_defense_bench.defenses.architectures import lenet5
from torchvision.datasets import MNIST
from torchvision.datasets.utils import extract_archive

pytestmark = pytest.mark.filterwarnings("ignore:.* is not the published data set")


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
    data = load("mnist", tmp_path)
    published = Published("torchvision MNIST", data.train_sha256, data.test_sha256)
    entry = replace(DATASETS["mnist"], published=published)
    monkeypatch.setitem(DATASETS._entries, "mnist", entry)
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


def turned(image, orientation):
    """An image that says how viewers are to turn it."""
    image.getexif()[ExifTags.Base.Orientation] = orientation
    return image


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
        ("cifar10", turned(Image.fromarray(RGB), 6), "png", "an EXIF orientation of 6"),
        ("cifar10", turned(Image.fromarray(RGB), 1), "png", RGB),
    ],
)
def test_an_image_file_is_read_as_it_is_shown_or_refused_by_name(
    tmp_path, dataset, image, suffix, expected, offline
):
    for k in range(10):
        for split in ("train", "test"):
            folder = tmp_path / dataset / split / str(k)
            folder.mkdir(parents=True)
            tags = {"exif": image.getexif()} if image.getexif() else {}
            image.save(folder / f"x.{suffix}", **tags)
    if isinstance(expected, str):
        with pytest.raises(DatasetError, match=f"{dataset}/train/0/x.{suffix} .*{expected}"):
            load(dataset, tmp_path)
    else:
        shown = load(dataset, tmp_path).test_images[0] * 255
        assert torch.equal(shown, torch.tensor(expected.reshape(32, 32, -1)).movedim(-1, 0).float())


@pytest.mark.parametrize(
    ("name", "mode", "channels", "source"),
    [
        ("cifar10", "RGB", 3, "not as published: image folder (png)"),
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


def test_copies_that_notebooks_keep_are_no_images(tmp_path, offline):
    write_folder(tmp_path, "mnist", mode="L")
    wanted = load("mnist", tmp_path)
    split = tmp_path / "mnist" / "test"
    first, *_ = sorted(split.iterdir())
    shutil.copytree(first, first / ".ipynb_checkpoints")
    shutil.copytree(first, split / ".ipynb_checkpoints")
    assert load("mnist", tmp_path).sha256 == wanted.sha256


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


def made_up(count, generator):
    """Random images of CIFAR-10's shape, of ten classes in random order."""
    images = generator.integers(0, 256, (count, 32, 32, 3), np.uint8)
    return images, generator.permutation(np.arange(count) % 10)


GENERATOR = np.random.default_rng(0)
TRAIN, TEST = made_up(60, GENERATOR), made_up(60, GENERATOR)
FIRST = TEST[0][:50], TEST[1][:50]


def write_batches(root, train, test):
    """As torchvision keeps them."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    parts = zip(*(np.array_split(array, 5) for array in train), strict=True)
    files = {f"data_batch_{k}": part for k, part in enumerate(parts, start=1)}
    for name, (images, labels) in {**files, "test_batch": test}.items():
        data = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        (folder / name).write_bytes(pickle.dumps({"data": data, "labels": labels.tolist()}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [*"abcdefghij"]}))


def write_parquet(root, train, test, clone="cifar10"):
    """As Hugging Face's repository has them."""
    folder = root / clone / "plain_text"
    folder.mkdir(parents=True)
    for split, (images, labels), shards in (("train", train, 2), ("test", test, 1)):
        rows = [{"bytes": png(image), "path": None} for image in images]
        kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
        table = pyarrow.table({"img": pyarrow.array(rows, kind), "label": labels})
        for k, of in enumerate(np.array_split(np.arange(len(rows)), shards)):
            path = folder / f"{split}-{k:05d}-of-{shards:05d}.parquet"
            parquet.write_table(table.take(of), path)


def png(image):
    Image.fromarray(image).save(file := io.BytesIO(), "png")
    return file.getvalue()


def write_images(root, train, test, name="{place}"):
    """A folder a class, files named by their place in the split."""
    for split, (images, labels) in (("train", train), ("test", test)):
        for place, (image, label) in enumerate(zip(images, labels, strict=True)):
            folder = root / "cifar10" / split / "abcdefghij"[label]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name.format(place=place)}.png").write_bytes(png(image))


WRITERS = [write_batches, write_parquet, partial(write_parquet, clone="."), write_images]


@pytest.fixture
def published(monkeypatch):
    """The made-up images are CIFAR-10; its hash is known of the first test images."""
    known = Published(
        source="torchvision CIFAR10",
        train=sha256_of(*TRAIN),
        test=sha256_of(*FIRST),
        images=sha256_in_any_order(TRAIN[0]),
        first=len(FIRST[0]),
    )
    entry = replace(DATASETS["cifar10"], published=known)
    monkeypatch.setitem(DATASETS._entries, "cifar10", entry)
    # torchvision knows the MD5 of the real files.
    monkeypatch.setattr(
        "torchvision.datasets.cifar.check_integrity", lambda path, md5: Path(path).exists()
    )
    return entry


@pytest.mark.parametrize("write", WRITERS)
def test_equal_pixels_are_equal_data_whatever_files_hold_them(tmp_path, published, write):
    write(tmp_path, TRAIN, TEST)
    data = load("cifar10", tmp_path, 20, 7)
    assert data.source == "torchvision CIFAR10, first 7 test images"
    assert data.sha256 == sha256_of(*TRAIN, TEST[0][:7], TEST[1][:7])
    assert (data.train_sha256, data.test_sha256) == (sha256_of(*TRAIN), sha256_of(*FIRST))
    # Of the training images a random subset.
    order = datasets.data._subset(np.arange(60), TRAIN[1], 20, "train")[0]
    for tensor, images in ((data.train_images, TRAIN[0][order]), (data.test_images, TEST[0][:7])):
        assert torch.equal(tensor, torch.from_numpy(images).permute(0, 3, 1, 2) / 255)
    assert data.train_labels.tolist() == TRAIN[1][order].tolist()
    assert data.test_labels.tolist() == TEST[1][:7].tolist()


def test_a_measurement_on_the_first_test_images_is_the_same_record(
    tmp_path, published, monkeypatch
):
    """One has all test images, one only the first; the population is trained once."""
    write_parquet(tmp_path / "all", TRAIN, TEST)
    write_images(tmp_path / "first", TRAIN, FIRST)
    budgets = DATASETS["digits"].experiments
    prepared, measured = [], []
    for run, (root, images) in enumerate([("all", None), ("all", 30), ("first", 30)]):
        smoke = replace(budgets["smoke"], test_images=images)
        small = replace(published, network=lenet5, experiments={**budgets, "smoke": smoke})
        monkeypatch.setitem(DATASETS._entries, "cifar10", small)
        folders = {name: tmp_path / name for name in ("store", "results")}
        session = Session(
            Options(budget="smoke", run=str(run), data_root=tmp_path / root, **folders)
        )
        prepared.append(session.prepare("cifar10", "single"))
        measured.append(session.measure(prepared[-1], "fgsm", ThreatModel("Linf", 0.25)))
    assert [one.trained for one in prepared] == [True, False, False]
    assert [reused for _, reused in measured] == [False, False, True]
    assert [record.case.images for record, _ in measured] == [60, 30, 30]


def rewrite(change):
    """A function that changes a parquet file's table."""

    def spoil(path):
        with parquet.ParquetFile(path) as file:
            table = change(file.read())
        parquet.write_table(table, path)

    return spoil


def mislabelled(table):
    return table.set_column(1, "label", pyarrow.array(np.roll(table["label"].to_numpy(), 1)))


def with_a_broken_image(table):
    rows = table.to_pylist()
    rows[3]["img"]["bytes"] = rows[3]["img"]["bytes"][:60]
    return pyarrow.Table.from_pylist(rows, table.schema)


@pytest.mark.parametrize(
    ("file", "spoil", "words"),
    [
        ("train-00001-of-00002", Path.unlink, "train-00001-of-00002.parquet is missing"),
        ("test-00000-of-00001", Path.unlink, "test-00000-of-00001.parquet is missing"),
        (
            "train-00000-of-00002",
            lambda path: shutil.copy(path, path.with_name("train-00000-of-00001.parquet")),
            "train-00000-of-00001.parquet is not expected beside train-00001-of-00002.parquet",
        ),
        (
            "test-00000-of-00001",
            lambda path: path.write_bytes(path.read_bytes()[:5000]),
            "test-00000-of-00001.parquet is damaged",
        ),
        (
            "train-00000-of-00002",
            rewrite(lambda table: table.rename_columns(["image", "fine_label"])),
            r"has the columns image \(struct.*\), fine_label \(int64\); expected img \(struct.*"
            r"\), label \(int64\)",
        ),
        ("test-00000-of-00001", rewrite(with_a_broken_image), "parquet, row 3 cannot be read"),
        (
            "train-00000-of-00002",
            rewrite(lambda table: table.take([*range(30)][::-1])),
            "reordered or mislabelled in the training split",
        ),
        (
            "train-00001-of-00002",
            rewrite(lambda table: table.slice(1)),
            "images missing, .* in the training split",
        ),
        ("test-00000-of-00001", rewrite(mislabelled), "mislabelled in the test split"),
    ],
)
def test_damaged_parquet_files_are_one_clear_error(tmp_path, published, file, spoil, words):
    write_parquet(tmp_path, TRAIN, TEST)
    spoil(tmp_path / "cifar10" / "plain_text" / f"{file}.parquet")
    with pytest.raises(DatasetError, match=words) as caught:
        load("cifar10", tmp_path)
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, DatasetMissingError)


def test_published_images_in_the_order_of_their_classes_are_refused_with_the_cure(
    tmp_path, published
):
    write_images(tmp_path, TRAIN, TEST, name="image-{place}-of-60")
    words = "reordered .* in the training and test split; .* their place in it, such as 00017.png"
    with pytest.raises(DatasetError, match=words):
        load("cifar10", tmp_path)


def test_without_pyarrow_parquet_files_say_what_to_install(tmp_path, monkeypatch):
    write_parquet(tmp_path, TRAIN, TEST)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(DatasetError, match=r"of-00002.parquet is read with pyarrow .*pip install"):
        load("cifar10", tmp_path)
