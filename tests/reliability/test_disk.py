"""A full disk, a store that cannot be written: one clear error, and what was there is intact."""

import os
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from randomized_defense_bench.benchmarks.housekeeping import entries
from randomized_defense_bench.benchmarks.session import Session
from workers import CONTEXT, ROOT, command, options, prepare_only

from randomized_defense_bench.files import write_atomically

NOBODY = 65534


def outcome_of(folder, *limits):
    queue = CONTEXT.SimpleQueue()
    process = CONTEXT.Process(target=prepare_only, args=(folder, queue, *limits))
    process.start()
    process.join()
    assert process.exitcode == 0
    return queue.get()


def files(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


def test_a_disk_that_is_full_in_the_middle_of_a_file(tmp_path):
    """A limit on the size of files stops a write half-way, as a full disk does."""
    Session(options(tmp_path)).prepare("digits", "single")
    before = files(tmp_path / "store")
    kind, message, _ = outcome_of(tmp_path, 100_000)
    assert kind == "OSError"
    assert "File too large" in message
    assert files(tmp_path / "store") == before
    kind, _, trained = outcome_of(tmp_path)
    assert (kind, trained) == ("prepared", True)


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "x"
    write_atomically(path, b"old")

    def fail(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert files(tmp_path) == {Path("x"): b"old"}


def read_only(folder):
    """Readable to everybody, writable to nobody."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)


@pytest.fixture
def shared():
    """A folder that everybody can reach: pytest closes its own whenever another pytest starts."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)
        for path in [Path(name), *Path(name).rglob("*")]:
            path.chmod(0o755)


# Who may not write what is read-only; the superuser may, and becomes nobody.
SOMEBODY = NOBODY if os.geteuid() == 0 else None


def test_a_read_only_store_serves_what_it_holds(shared):
    first = Session(options(shared, run="earlier")).prepare("digits", "ulm")
    read_only(shared)
    before = files(shared)
    kind, sha256, trained = outcome_of(shared, None, SOMEBODY)
    assert (kind, sha256, trained) == ("prepared", first.sha256, False), sha256
    assert files(shared) == before


def test_a_store_without_permission_is_one_clear_error(shared):
    (shared / "store").mkdir()
    read_only(shared)
    kind, message, _ = outcome_of(shared, None, SOMEBODY)
    assert kind == "PermissionError"
    assert str(shared / "store") in message
    assert not list(entries(shared / "store"))


def full(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))


def protected(monkeypatch):
    """As for a user who may not write; the superuser may."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)


@pytest.mark.parametrize("option", ["--store", "--results", "--data-root"])
@pytest.mark.parametrize(
    ("place", "spoil", "words"),
    [
        ("file", lambda monkeypatch: None, "file is no folder; name another"),
        ("file/deeper/still", lambda monkeypatch: None, "file is no folder; name another"),
        ("new", protected, "cannot be written to; name another"),
        ("new", full, "is full; name another"),
    ],
)
def test_a_folder_that_cannot_do_is_refused_once(
    tmp_path, monkeypatch, capfd, option, place, spoil, words
):
    (tmp_path / "file").write_text("a file where a folder should be")
    for name in ("store", "data"):
        (tmp_path / name).mkdir()
    before = sorted(tmp_path.rglob("*"))
    spoil(monkeypatch)
    more = f"--data-root={tmp_path / 'data'}", f"{option}={tmp_path / place}", f"--rootdir={ROOT}"
    code = pytest.main(command(tmp_path, "digits-single", *more))
    assert code == pytest.ExitCode.USAGE_ERROR
    (line,) = filter(None, "".join(capfd.readouterr()).splitlines())
    assert line.startswith(f"ERROR: {option}: ")
    assert words in line
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_beside_which_the_page_cannot_be_is_refused(tmp_path, monkeypatch, capfd):
    """A volume of a container: what it holds may be written, where it hangs may not."""
    (tmp_path / "results").mkdir()
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path and access(path, mode))
    (tmp_path / "store").mkdir()
    arguments = command(tmp_path, "digits-single", f"--rootdir={ROOT}")
    assert pytest.main(arguments) == pytest.ExitCode.USAGE_ERROR
    (line,) = filter(None, "".join(capfd.readouterr()).splitlines())
    assert f"the page goes beside the folder, but {tmp_path} cannot be written to" in line
    assert line.endswith(f"name {tmp_path / 'results' / 'results'}")
