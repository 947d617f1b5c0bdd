import os
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
from randomized_defense_bench.leaderboard import RESULTS, records
from randomized_defense_bench.leaderboard.__main__ import main
from randomized_defense_bench.leaderboard.publish import changes, publish, with_result
from samples import record, row, spoil

from randomized_defense_bench.files import Sealed
from randomized_defense_bench.merging import SUBFOLDERS, merge


@pytest.fixture
def results(tmp_path):
    swept = [
        record(9, attack=attack, eps=eps, headline=False)
        for attack in ("pgd", "arc")
        for eps in (0.1, 0.2)
    ]
    for measured in [*row("ulm", 3), *swept]:
        records.write(measured, tmp_path / "results")
    return tmp_path / "results"


def test_a_new_record_a_lost_figure_and_an_edited_page_are_stale(results):
    assert publish(results) == results.parent / "LEADERBOARD.md"
    assert changes(results) == {}
    (figure,) = (results.parent / "figures").iterdir()
    drawn = figure.read_text()
    figure.unlink()
    assert [*changes(results)] == [figure]
    # Another version of the library may draw it otherwise: it is not drawn again.
    figure.write_text(drawn + "\n")
    publish(results)
    assert figure.read_text() == drawn + "\n"
    page = results.parent / "LEADERBOARD.md"
    page.write_text(page.read_text().replace("ulm", "mlu"))
    assert [*changes(results)] == [page]
    publish(results)
    records.write(record(2, defense="clm"), results)
    assert page in changes(results)


def test_an_unusable_record_stops_publishing_and_the_old_page_stays(results, capsys):
    page = publish(results)
    before = page.read_text()
    (results / "zzz.json").write_text("{")
    assert main(["--results", str(results)]) == 2
    assert "zzz.json" in capsys.readouterr().err
    assert page.read_text() == before


def test_the_command_checks_rebuilds_and_says_so(results, capsys):
    assert main(["--results", str(results / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().out
    assert main(["--check", "--results", str(results)]) == 1
    assert "stale" in capsys.readouterr().out
    assert main(["--results", str(results)]) == 0
    assert main(["--check", "--results", str(results)]) == 0


def test_what_the_readme_says_is_replaced_between_its_markers():
    readme = "a\n<!-- result -->\nold\n<!-- end of result -->\nb\n"
    text = with_result(readme, "It holds.")
    assert text == "a\n<!-- result -->\n\nIt holds.\n\n<!-- end of result -->\nb\n"
    assert with_result(text, "It holds.") == text


def test_other_radii_have_a_page_while_there_are_any(results):
    farther = [records.write(one, results) for one in row("ulm", 2, eps=0.4) if one.case.eps == 0.4]
    board, others = publish(results), results.parent / "RADII.md"
    assert "[Other radii](RADII.md): Linf 0.4." in board.read_text()
    assert board.read_text().count("| rank ") == 1
    assert "### Linf, eps = 0.4" in others.read_text()
    for path in farther:
        path.unlink()
    notes = results.parent / "LEADERBOARD-before.md"
    notes.write_text(board.read_text())
    publish(results)
    assert not others.exists()
    # A copy is the user's own.
    assert notes.exists()
    assert "RADII.md" not in board.read_text()


def test_what_nothing_asks_for_any_more_is_removed_and_a_user_s_own_stays(results):
    publish(results)
    (figure,) = (results.parent / "figures").iterdir()
    page = results.parent / "defenses" / "ulm.md"
    kept = [figure.with_name("mine.svg"), page.with_name("mine.md")]
    for path in kept:
        path.write_text("")
    for path in results.glob("*.json"):
        path.unlink()
    assert {figure, page} <= {*changes(results)}
    publish(results)
    assert not figure.exists()
    assert not page.exists()
    assert all(path.exists() for path in kept)


@pytest.fixture
def shards(tmp_path):
    """Two folders of records."""
    folders = [tmp_path / "shards" / "0", tmp_path / "shards" / "1" / "results"]
    for number, one in enumerate(row("ulm", 3)):
        records.write(one, folders[number % 2])
    return folders


def merged(shards, into):
    return main(["merge", *map(str, shards), "--into", str(into)])


def test_shards_merge_to_the_page_of_one_run(shards, tmp_path, capsys):
    whole, into = tmp_path / "whole" / "results", tmp_path / "merged" / "results"
    for one in row("ulm", 3):
        records.write(one, whole)
    page = publish(whole)
    assert [merged(shards, into) for _ in range(2)] == [0, 0]
    told = capsys.readouterr().out.splitlines()
    assert [line.partition(" new")[0] for line in told] == ["7", "0"]
    assert (into.parent / page.name).read_text() == page.read_text()


@pytest.mark.parametrize("where", ["another shard", "the target"])
def test_two_answers_to_one_cell_are_refused_and_nothing_is_written(
    shards, tmp_path, capsys, where
):
    into = tmp_path / "merged" / "results"
    records.write(record(2, attack="pgd"), into if where == "the target" else shards[0])
    before = sorted(into.glob("*"))
    assert merged(shards, into) == 2
    assert "answers its case otherwise than" in capsys.readouterr().err
    assert sorted(into.glob("*")) == before


def test_a_broken_seal_is_refused_and_of_equal_answers_the_one_that_ranks_stays(
    shards, tmp_path, capsys
):
    into = tmp_path / "merged" / "results"
    path = next(shards[0].glob("*.json"))
    records.write(replace(records.read(path), headline=False, measured_at="2027"), shards[1])
    assert merged(shards, into) == 0
    assert records.read(into / path.name).headline
    path.write_text(path.read_text().replace("ulm", "mlu"))
    assert merged(shards, into) == 2
    assert "its seal is broken" in capsys.readouterr().err


def test_shards_under_one_folder_are_merged_by_name(shards, tmp_path, capsys):
    into = tmp_path / "merged" / "results"
    records.write(record(4), shards[1] / "peers")
    assert merged([tmp_path / "shards"], into) == 0
    places = {str(path.relative_to(into)) for path in into.rglob("*.json")}
    assert places == {f"{one.case.key}.json" for one in row("ulm", 3)} | {
        f"peers/{record(4).case.key}.json"
    }
    records.write(record(2, attack="pgd"), tmp_path / "shards" / "2" / "results")
    assert merged([tmp_path / "shards"], into) == 2
    assert "answers its case otherwise than" in capsys.readouterr().err


def test_a_folder_may_be_called_as_a_subfolder_and_links_are_followed_once(shards, tmp_path):
    into, named = tmp_path / "merged" / "results", tmp_path / "peers"
    shards[0].rename(named)
    (named / "again").symlink_to(named)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "2").symlink_to(shards[1])
    assert merged([named, tmp_path / "links"], into) == 0
    assert {path.parent for path in into.rglob("*.json")} == {into}
    assert len([*into.glob("*.json")]) == len([*row("ulm", 3)])


def test_a_folder_that_cannot_be_read_is_refused_and_nothing_is_written(
    shards, tmp_path, capsys, monkeypatch
):
    scan = os.scandir

    def unreadable(path):
        if Path(path) == shards[1]:
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", unreadable)
    assert merged(shards, tmp_path / "merged" / "results") == 2
    assert f"{shards[1]}: cannot be read (Permission denied)" in capsys.readouterr().err
    assert not [*(tmp_path / "merged").rglob("*.json")]


def test_two_trainings_of_one_population_are_refused_by_name(tmp_path, capsys):
    """Else the page would show the later one alone, and the cells of the other were lost."""
    first = record(3, attack="pgd")
    second = replace(record(3, attack="fgsm"), population_sha256="f" * 64)
    other_seed = replace(record(3, attack="fgsm", seed=1), population_sha256="e" * 64)
    folders = [tmp_path / str(number) for number in range(3)]
    for one, folder in zip((first, second, other_seed), folders, strict=True):
        records.write(one, folder)
    assert merged(folders, tmp_path / "merged") == 2
    (line,) = capsys.readouterr().err.splitlines()
    for told in (
        first.population_sha256[:12],
        "f" * 12,
        "a common --store",
        *map(str, folders[:2]),
    ):
        assert told in line
    assert not (tmp_path / "merged").exists()
    assert merged(folders[::2], tmp_path / "merged") == 0
    assert merged(folders[1:2], tmp_path / "merged") == 2


@pytest.mark.parametrize("wrong", ["name", "version"])
def test_what_no_page_could_show_is_refused_before_anything_is_copied(tmp_path, capsys, wrong):
    path = records.write(record(3), tmp_path / "shard")
    records.write(record(3, attack="fgsm"), tmp_path / "shard")
    if wrong == "name":
        path.rename(path.with_name("other.json"))
    else:
        spoil(path, schema_version=1)
    assert merged([tmp_path / "shard"], tmp_path / "merged") == 2
    told = "it holds mnist-ulm-pgd" if wrong == "name" else "schema version 1"
    assert told in capsys.readouterr().err
    assert not (tmp_path / "merged").exists()


def test_all_that_lies_under_a_folder_of_records_has_its_place():
    kinds = [kind for kind in subclasses(Sealed) if hasattr(kind, "FOLDER")]
    assert {kind.FOLDER for kind in kinds} | {"peers"} == {*SUBFOLDERS}


def subclasses(kind):
    return [lower for one in kind.__subclasses__() for lower in (one, *subclasses(one))]


def test_many_records_merge_in_time_and_memory(tmp_path):
    """100,000 in a minute and 2 GiB: extrapolated from the committed ones, the best of three.

    Tests share the machine, so that the minute is of a core's own time; the other is printed.
    """
    seconds = []
    for number in range(3):
        start = time.perf_counter(), time.process_time()
        count = merge([RESULTS], tmp_path / str(number))
        seconds.append((time.process_time() - start[1], time.perf_counter() - start[0]))
    assert count > 900
    tracemalloc.start()
    try:
        merge([RESULTS], tmp_path / "traced")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    alone, wall = (1e5 * second / count for second in min(seconds))
    gibibytes = 1e5 * peak / count / 2**30
    print(f"100,000 records: {alone:.0f} s, on the wall {wall:.0f} s, {gibibytes:.2f} GiB")
    assert alone < 60
    assert gibibytes < 2
