"""Several processes on one store: each population trained once, no record lost, one valid page."""

from randomized_defense_bench.benchmarks.datasets import experiment
from randomized_defense_bench.benchmarks.housekeeping import entries, prune
from randomized_defense_bench.benchmarks.store import Store
from randomized_defense_bench.leaderboard import records
from workers import ATTACKS, CONTEXT, command, options, run, work


def test_two_processes_train_each_population_once_and_lose_nothing(tmp_path):
    queue = CONTEXT.SimpleQueue()
    processes = [CONTEXT.Process(target=work, args=(tmp_path, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    found = list(entries(tmp_path / "store", thorough=True))
    assert [entry.state for entry in found] == ["finished"] * 2
    measured = records.read_all(tmp_path / "results")
    assert sorted(record.case.attack for record in measured) == sorted(ATTACKS)
    trained = [name.split("-s0")[0] for _ in processes for name in queue.get()]
    assert sorted(trained) == ["digits-clm", "digits-ulm"]


def test_parallel_workers_share_a_store_and_write_one_page(tmp_path):
    wanted = "digits and (ulm or single) and not adv and (none or fgsm)"
    printed = run(command(tmp_path, wanted, "-n", "2", "-q", "--benchmark-disable"))
    assert "populations trained: 2" in printed
    numbers = experiment("smoke", "digits")
    radii = sorted({*numbers.radii["Linf"], *numbers.sweep_radii["Linf"]})
    expected = {("fgsm", eps) for eps in radii} | {("none", 0.0)}
    for defense in ("ulm", "single"):
        mine = [r for r in records.read_all(tmp_path / "results") if r.case.defense == defense]
        drawn = {(r.case.attack, r.case.eps) for r in mine if r.case.protocol == "draw"}
        assert expected <= drawn
    page = (tmp_path / "LEADERBOARD.md").read_text()
    assert "| [single]" in page
    assert "| [ulm]" in page
    assert [e.state for e in entries(tmp_path / "store")] == ["finished"] * 2


def test_a_population_in_training_is_not_pruned(tmp_path):
    store = Store(options(tmp_path).store)
    folder = store.folder("digits-ulm-s0", {"x": 1})
    with store.lock(folder):
        (folder / "checkpoint.safetensors").write_bytes(b"")
        assert prune(store.root, [], dry_run=False) == []
    assert [entry.state for entry in prune(store.root, [], dry_run=False)] == ["training"]
    assert not folder.exists()
