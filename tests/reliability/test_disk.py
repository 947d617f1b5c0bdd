"""A full disk, a store that cannot be written: one clear error, and what was there is intact."""

import os
import tempfile
from pathlib import Path

import pytest
from workers import CONTEXT, ROOT, command, options, prepare_only

from benchmarks.housekeeping import entries
from benchmarks.session import Session
from leaderboard.files import write_atomically

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


def test_the_command_line_names_what_cannot_be_written(tmp_path, capfd):
    (tmp_path / "store").write_text("a file where a folder should be")
    arguments = command(tmp_path, "digits-single-none", "-q", f"--rootdir={ROOT}")[3:]
    code = pytest.main(arguments)
    assert code == pytest.ExitCode.TESTS_FAILED
    printed = capfd.readouterr().out
    assert "the store cannot be used" in printed
    assert "--store names another" in printed
    assert "Traceback" not in printed
    assert (tmp_path / "store").read_text() == "a file where a folder should be"
