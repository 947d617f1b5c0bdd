"""A full disk, a store that cannot be written: one clear error, and what was there is intact."""

import os
from pathlib import Path

import pytest
from workers import CONTEXT, options, prepare_only

from benchmarks.housekeeping import entries
from benchmarks.session import Session
from leaderboard.files import write_atomically

ROOT = Path(__file__).parents[2]
NOBODY = 65534


def outcome_of(*arguments):
    queue = CONTEXT.SimpleQueue()
    process = CONTEXT.Process(target=prepare_only, args=(arguments[0], queue, *arguments[1:]))
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
def somebody(tmp_path):
    """A user who may not write what is read-only; the superuser may, and becomes nobody."""
    if os.geteuid() != 0:
        yield None
    else:
        for parent in tmp_path.parents:
            if parent.stat().st_uid == 0 and parent != Path(parent.anchor):
                parent.chmod(parent.stat().st_mode | 0o055)
        yield NOBODY
    for path in [tmp_path, *tmp_path.rglob("*")]:
        path.chmod(0o755)


def test_a_read_only_store_serves_what_it_holds(tmp_path, somebody):
    first = Session(options(tmp_path, run="earlier")).prepare("digits", "ulm")
    read_only(tmp_path)
    before = files(tmp_path)
    kind, sha256, trained = outcome_of(tmp_path, None, somebody)
    assert (kind, sha256, trained) == ("prepared", first.sha256, False), sha256
    assert files(tmp_path) == before


def test_a_store_without_permission_is_one_clear_error(tmp_path, somebody):
    (tmp_path / "store").mkdir()
    read_only(tmp_path)
    kind, message, _ = outcome_of(tmp_path, None, somebody)
    assert kind == "PermissionError"
    assert str(tmp_path / "store") in message
    assert not list(entries(tmp_path / "store"))


def test_the_command_line_names_what_cannot_be_written(tmp_path, capfd):
    (tmp_path / "store").write_text("a file where a folder should be")
    arguments = ["benchmarks/", "-k", "digits-single-none", "--budget", "smoke", "-q"]
    arguments += [f"--rootdir={ROOT}", f"--results={tmp_path / 'results'}"]
    code = pytest.main([*arguments, f"--store={tmp_path / 'store'}", "-p", "no:cacheprovider"])
    assert code == pytest.ExitCode.TESTS_FAILED
    printed = capfd.readouterr().out
    assert "the store cannot be used" in printed
    assert "--store names another" in printed
    assert "Traceback" not in printed
    assert (tmp_path / "store").read_text() == "a file where a folder should be"
