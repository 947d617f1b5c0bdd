"""kill -9 at random moments: what was done stays done, and the end is the same to the last bit."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from randomized_defense_bench.benchmarks.housekeeping import entries
from randomized_defense_bench.leaderboard import records
from workers import ATTACKS, CONTEXT, ROOT, command, work


def outcome(folder):
    """Digests of all weights, and all answers."""
    cards = sorted(entry.name for entry in entries(folder / "store") if entry.state == "finished")
    measured = {r.case.attack: r for r in records.read_all(folder / "results")}
    return cards, measured


def run_for(folder, seconds, do=work):
    """Start the work and kill it after `seconds`; None: let it finish. Whether it was killed."""
    process = CONTEXT.Process(target=do, args=(folder,))
    process.start()
    process.join(seconds)
    killed = process.is_alive()
    if killed:
        process.kill()
        process.join()
    else:
        assert process.exitcode == 0
    return killed


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    # The first process waits for what all others find imported.
    run_for(folder, None, do=Path.exists)
    start = time.monotonic()
    run_for(folder, None)
    return folder, time.monotonic() - start


def test_killed_work_ends_as_if_undisturbed(undisturbed, tmp_path, tries, schedule):
    reference, duration = undisturbed
    moments = random.Random(schedule)
    kills = rounds = 0
    folder = tmp_path / "0"
    finished = []
    while kills < tries["kills"]:
        if run_for(folder, moments.uniform(0.1, 0.9) * duration):
            kills += 1
            states = [e.state for e in entries(folder / "store", thorough=True)]
            assert not any(state.startswith("damaged") for state in states), states
            if (folder / "results").exists():
                records.read_all(folder / "results")
        else:
            finished.append(folder)
            rounds += 1
            folder = tmp_path / str(rounds)
    run_for(folder, None)
    cards, expected = outcome(reference)
    for done in [*finished, folder]:
        found, measured = outcome(done)
        assert found == cards
        assert measured.keys() == expected.keys() == set(ATTACKS)
        for attack, record in measured.items():
            assert record.population_sha256 == expected[attack].population_sha256
            assert np.array_equal(record.correct, expected[attack].correct), attack
        assert not [p for p in (done / "store" / "unfinished").glob("*") if p.is_dir()]


def test_ctrl_c_leaves_a_page_and_says_how_to_go_on(tmp_path):
    results = tmp_path / "results"
    wanted = "digits and single and not adv"
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *command(tmp_path, wanted, "--benchmark-disable")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        # What a shell starts in the background inherits an ignored Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while len(list(results.glob("*.json"))) < 2 and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert "interrupted: the same command goes on where this one stopped" in printed
    assert process.returncode == pytest.ExitCode.INTERRUPTED
    page = (tmp_path / "LEADERBOARD.md").read_text()
    assert "| [single]" in page or "Not attacked yet at a ranked radius: single." in page
    assert len(records.read_all(results)) >= 2
