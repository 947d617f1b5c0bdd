import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from randomized_defense_bench.leaderboard import records
from randomized_defense_bench.leaderboard.board import Board
from randomized_defense_bench.leaderboard.drawing import Figure
from randomized_defense_bench.leaderboard.gallery import Gallery
from randomized_defense_bench.leaderboard.pages import pages
from samples import record, row, same, spoil

from randomized_defense_bench import leaderboard
from randomized_defense_bench.arrays import pack


def pictured(channels=1, **changes):
    """A cascade's record that leaves the first of two images, of two members, to one of them."""
    plain = np.full((2, channels, 4, 4), 100, np.uint8)
    attacked = plain + np.array([[[[20]]], [[[0]]]], np.uint8)
    cascade = record(5, attack="worst-case", **changes)
    correct = cascade.correct.copy()
    correct[:, :2] = [[False, True], [False, False]]
    return replace(cascade, correct=correct, examples=np.stack([plain, attacked]))


def measured(cascade):
    return [one for one in row("ulm", 5) if one.case.attack != "worst-case"] + [cascade]


@pytest.mark.parametrize("channels", [1, 3])
def test_images_come_back_from_a_file_as_they_went(tmp_path, channels):
    written = pictured(channels)
    kept = records.read(records.write(written, tmp_path))
    assert same(kept, written)
    assert same(records.read(records.write(kept, tmp_path)), written)
    plain = record(5)
    assert "examples" not in records.write(plain, tmp_path).read_text()


@pytest.mark.parametrize(
    "shape",
    [(2, 2, 2, 4, 4), (1, 2, 1, 4, 4), (2, 2, 3), (2, 2, 1, 4), (2, 21, 1, 4, 4)],
)
def test_what_cannot_be_shown_is_refused(tmp_path, shape):
    path = records.write(pictured(), tmp_path)
    spoil(path, examples=pack(np.zeros(shape, np.uint8)))
    with pytest.raises(records.RecordError, match="examples are uint8 of shape"):
        records.read(path)
    spoil(path, examples=pack(np.zeros((2, 2, 1, 4, 4), np.float32)))
    with pytest.raises(records.RecordError, match="examples are float32"):
        records.read(path)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_page_shows_what_fools_a_defense_and_how_surely(channels):
    board = Board(measured(pictured(channels)))
    (figure,) = board.figures
    assert f"](../figures/{figure.file})" in pages(board)["defenses/ulm.md"]
    drawn = figure.svg()
    # Clean both members are right on both images: 100%; attacked none on one, one on the other.
    assert "Correct answers of ulm to these images: 100% → 25%" in drawn
    assert re.findall(r">(\d+%)<", drawn) == ["100%", "100%", "0%", "50%"]
    # Three lines of two images.
    assert drawn.count("<image ") == 6


def test_other_images_are_another_figure():
    one, other = (
        Board(measured(replace(p, examples=p.examples + k))).figures[0]
        for k, p in enumerate([pictured()] * 2)
    )
    assert one.file == other.file
    assert one.data != other.data


def test_without_images_there_is_no_gallery():
    board = Board(measured(record(5, attack="worst-case")))
    assert board.figures == []
    assert "What the cascade does" not in pages(board)["defenses/ulm.md"]


def test_other_weights_have_a_gallery_of_their_own():
    clean, attacked = record(5, attack="none"), pictured()
    other = replace(attacked, population_sha256="1" * 64)
    assert Gallery("ulm", clean, attacked).file != Gallery("ulm", clean, other).file


def test_a_committed_record_takes_the_images_of_a_run_with_the_same_answers(tmp_path, monkeypatch):
    shown = pictured()
    for name in ("RESULTS", "LOCAL"):
        monkeypatch.setattr(leaderboard, name, tmp_path / name)
    records.write(replace(shown, examples=None), tmp_path / "RESULTS")
    for local, found in ((shown, shown.examples), (replace(shown, correct=~shown.correct), None)):
        records.write(local, tmp_path / "LOCAL")
        (committed, *_) = records.read_all(tmp_path / "LOCAL")
        assert not committed.local
        assert (
            np.array_equal(committed.examples, found)
            if found is not None
            else (committed.examples is None)
        )


def drawn(pixels):
    """The pixels of a figure that shows an image, as its file embeds them."""

    def draw(sheet):
        sheet.subplots().imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="none")

    text = Figure("figure.svg", b"data", draw).svg()
    (embedded,) = re.findall(r'<image [^>]*;base64,([^"]+)"', text)
    with Image.open(io.BytesIO(base64.b64decode(embedded))) as image:
        return image.mode, np.asarray(image.convert("RGB"))


def test_gray_pixels_are_embedded_without_colors_and_colors_with_them():
    gray = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)
    mode, found = drawn(gray)
    assert mode == "L"
    # A color map rounds.
    assert np.abs(found - gray[..., None].astype(int)).max() <= 1
    colored = np.stack([gray, gray, 255 - gray], axis=2)
    assert drawn(colored)[0] == "RGBA"
