"""What is trained, measured and re-used, on digits at the smoke budget."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from randomized_defense_bench.attacks import ATTACKS, ThreatModel
from randomized_defense_bench.benchmarks.datasets import DATASETS
from randomized_defense_bench.benchmarks.populations import DefenseError
from randomized_defense_bench.benchmarks.session import NoRadiusError, Session
from randomized_defense_bench.defenses import DEFENSES, load_network, register_checkpoint
from randomized_defense_bench.leaderboard import records
from randomized_defense_bench.leaderboard.rows import populations, rows

from randomized_defense_bench import leaderboard

AT = ThreatModel("Linf", 0.25)
NEARER = ThreatModel("Linf", 0.1)


def later(options, **changes):
    """Another run of the suite."""
    return Session(replace(options, run="second", **changes))


def test_a_population_is_trained_once_and_a_first_run_measures_everything_once(options):
    session = Session(options)
    prepared = session.prepare("digits", "single")
    assert prepared.trained
    assert session.measure(prepared, "fgsm", AT)[1] is False
    assert session.measure(prepared, "fgsm", AT)[1] is True

    second = later(options)
    loaded = second.prepare("digits", "single")
    assert not loaded.trained
    assert loaded.sha256 == prepared.sha256
    assert second.measure(loaded, "fgsm", AT)[1] is True
    assert second.measure(loaded, "fgsm", NEARER)[1] is False


def test_a_record_of_other_weights_is_measured_again(options):
    session = Session(options)
    record, _ = session.measure(session.prepare("digits", "single"), "fgsm", AT)
    records.write(replace(record, population_sha256="0" * 64), options.results)
    second = later(options)
    again, reused = second.measure(second.prepare("digits", "single"), "fgsm", AT)
    assert not reused
    assert again.population_sha256 == record.population_sha256


def test_what_is_committed_is_re_used_compared_and_left_as_it_is(options, monkeypatch):
    local = options.results.with_name("local")
    monkeypatch.setattr(leaderboard, "RESULTS", options.results)
    monkeypatch.setattr(leaderboard, "LOCAL", local)
    session = Session(options)
    record, _ = session.measure(session.prepare("digits", "single"), "fgsm", AT)
    assert session.compared == {}

    def run(**changes):
        """Measure the same for the local folder: whether it was there, and the agreement."""
        session = later(options, results=local, **changes)
        _, reused = session.measure(session.prepare("digits", "single"), "fgsm", AT)
        return reused, [*session.compared.values()]

    assert run() == (True, [])
    assert not local.exists()
    assert run(rerun=True) == (False, ["confirmed"])
    assert [known.local for known in records.read_all(local)] == [False]

    turned = record.correct.copy()
    turned[:, 0] = ~turned[:, 0]
    path = records.write(replace(record, correct=turned), options.results)
    before = path.read_bytes()
    assert run(rerun=True) == (False, ["within the interval"])
    assert path.read_bytes() == before
    assert [known.local for known in records.read_all(local)] == [False, True]
    records.write(replace(record, correct=np.ones_like(turned)), options.results)
    (agreement,) = run(rerun=True)[1]
    assert "in place of 100.0 (" in agreement


EDITED = """
from torch import nn
from randomized_defense_bench import register_attack, register_checkpoint, register_defense

@register_defense("{0}-trained", members=1)
def train(population, task):
    nn.init.constant_(next(population.parameters()), {1})

@register_checkpoint("{0}-loaded", datasets=("digits",))
def load(data):
    network = data.standard_network()
    for weight in network.parameters():
        nn.init.ones_(weight)
    return [network]

@register_attack("{0}-attack")
def attack(model, images, labels, *, threat_model):
    return threat_model.project(images + {1}, images)
"""


@pytest.mark.parametrize("version", [None, 1])
def test_an_edited_file_is_trained_and_measured_anew_unless_it_has_a_version(
    options, monkeypatch, tmp_path, version
):
    own = "" if version is None else f", version={version}"

    def run(name, number):
        """Whether a run on the file re-uses the training and the records; rows of the page."""
        file = tmp_path / "edited.py"
        file.write_text(EDITED.replace(")\ndef", f"{own})\ndef").format("my", number))
        with monkeypatch.context() as patch:
            for registry in (ATTACKS, DEFENSES):
                patch.setattr(registry, "_entries", dict(registry._entries))
            exec(compile(file.read_text(), file, "exec"), {})
            session = Session(replace(options, run=name))
            names = ("my-trained", "my-loaded", "single")
            prepared = [session.prepare("digits", name) for name in names]
            reused = [session.measure(one, "my-attack", AT)[1] for one in prepared]
        listed = rows(populations(records.read_all(options.results)), "Linf", AT.eps)
        return [not prepared[0].trained, *reused], len(listed)

    assert run("first", 0.5)[0] == [False, False, False, False]
    assert run("second", 0.5) == ([True, True, True, True], 3)
    assert run("third", 0.25) == ([version is not None] * 4, 3)


def test_retrain_trains_once_a_run_and_rerun_measures_again(options):
    first = Session(options)
    first.measure(first.prepare("digits", "single"), "fgsm", AT)
    rerun = later(options, rerun=True)
    assert rerun.measure(rerun.prepare("digits", "single"), "fgsm", AT)[1] is False
    retrain = later(options, retrain=True)
    assert retrain.prepare("digits", "single").trained
    retrain.prepare("digits", "single")
    assert len(retrain.trained) == 1
    # Another process of the same run does not train it again.
    assert later(options, retrain=True).trained == []
    other = later(options, retrain=True)
    other.prepare("digits", "single")
    assert other.trained == []


def test_clm_is_trained_again_when_its_ulm_has_other_weights(options):
    session = Session(options)
    clm = session.prepare("digits", "clm")
    assert [name.split("-s0")[0] for name in session.trained] == ["digits-ulm", "digits-clm"]
    assert later(options).prepare("digits", "clm").sha256 == clm.sha256

    ulm = session.prepare("digits", "ulm")
    folder = next((options.store / "populations").glob("digits-ulm-s0-" + 16 * "?"))
    with torch.no_grad():
        next(ulm.population.parameters()).add_(1.0)
    session.store.save(
        ulm.population, folder, identity={}, seconds=1.0, parents={}, run="x", metrics={}
    )
    second = later(options)
    assert second.prepare("digits", "clm").sha256 != clm.sha256
    assert [name.split("-s0")[0] for name in second.trained] == ["digits-clm"]


def test_options_change_what_is_measured_and_the_key(options):
    plain = Session(options)
    record, _ = plain.measure(plain.prepare("digits", "ulm"), "fgsm", AT)
    for name, value in (("submodels", 3), ("seed", 1)):
        session = later(options, **{name: value})
        other, reused = session.measure(session.prepare("digits", "ulm"), "fgsm", AT)
        assert getattr(other.case, name) == value
        assert not reused
        assert other.case.key != record.case.key
    assert len(later(options, submodels=3).prepare("digits", "single").population) == 1


@pytest.mark.parametrize(
    ("attack", "repeatable"), [("fgsm", (None, None)), ("pgd-clipped-margin", (None, True))]
)
def test_a_point_of_a_curve_becomes_a_headline_when_it_is_ranked_at(options, attack, repeatable):
    """It is measured again where it must be repeated."""
    session = Session(options)
    point, _ = session.measure(session.prepare("digits", "single"), attack, NEARER)
    assert (point.headline, point.repeatable) == (False, repeatable[0])
    for again in (repeatable[1], None):
        ranked = later(options, eps=(0.1,))
        record, reused = ranked.measure(ranked.prepare("digits", "single"), attack, NEARER)
        assert (reused, record.headline, record.repeatable) == (not again, True, repeatable[1])
    (kept,) = records.read_all(options.results)
    assert kept.headline


def test_the_cascade_keeps_images_for_the_gallery(options):
    """The first ones and what it made of them, at the first radius."""
    session = Session(replace(options, eps=(0.25, 0.1)))
    prepared = session.prepare("digits", "ulm")
    record, _ = session.measure(prepared, "worst-case", AT)
    plain, attacked = record.examples.astype(int)
    first = session.subject(prepared).images[: len(plain)]
    assert np.array_equal(plain, (first * 255).round().numpy())
    moved = np.abs(attacked - plain).reshape(len(plain), -1).max(axis=1)
    assert (moved <= 0.25 * 255 + 1).all()
    assert moved.max() > 0
    for attack, at, protocol in (("worst-case", NEARER, "draw"), ("worst-case", AT, "doubled")):
        assert session.measure(prepared, attack, at, protocol)[0].examples is None
    # An old record without them is as good.
    records.write(replace(record, examples=None), options.results)
    second = later(options, eps=(0.25, 0.1))
    assert second.measure(second.prepare("digits", "ulm"), "worst-case", AT)[1]


def test_the_cascade_is_doubled_and_what_the_gates_look_at_is_measured(options):
    session = Session(options)
    prepared = session.prepare("digits", "ulm")
    record, _ = session.measure(prepared, "worst-case", AT, "doubled")
    assert record.correct.shape == (2, 50)
    doubled = record.case.attack_parameters
    once = session.experiment("digits").attacks["worst-case"]
    assert doubled["cycles"] == 2 * once["cycles"]
    assert doubled["members"] == once["members"]
    curve, _ = session.measure(prepared, "pgd-clipped-margin", AT)
    assert curve.repeatable is True
    clean, _ = session.measure(prepared, "none", ThreatModel("Linf", 0.0))
    assert clean.zero_gradients == 0.0


@pytest.mark.parametrize("defense", ["noise", "resize-pad"])
def test_a_random_defense_scores_the_same_bits_in_every_run(options, defense):
    """Its network is the plainly trained one; what it draws follows from the seed."""
    first, second = (later(options, results=options.results / str(k)) for k in (1, 2))
    prepared = first.prepare("digits", defense)
    torch.rand(3)
    again = second.prepare("digits", defense)
    assert again.sha256 == prepared.sha256
    for attack in ("none", "pgd", "pgd-mean-ce"):
        one, _ = first.measure(prepared, attack, AT)
        two, _ = second.measure(again, attack, AT)
        assert one.case == two.case
        assert one.case.draws == 4
        assert np.array_equal(one.correct, two.correct)
        assert np.array_equal(one.selecting, two.selecting)


def test_radii_are_of_the_norm(options, monkeypatch):
    assert later(options, norm="L2").radii("digits") == (ThreatModel("L2", 1.0),)
    assert later(options, norm="L2", eps=(0.5,)).radii("digits") == (ThreatModel("L2", 0.5),)
    budgets = DATASETS["digits"].experiments
    smoke = replace(budgets["smoke"], radii={"Linf": (0.25,)})
    entry = replace(DATASETS["digits"], experiments={**budgets, "smoke": smoke})
    monkeypatch.setitem(DATASETS._entries, "digits", entry)
    with pytest.raises(NoRadiusError, match="digits has no radius in L2: name one with --eps"):
        later(options, norm="L2").radii("digits")


@pytest.mark.parametrize(
    ("load", "words"),
    [
        (lambda data: [data.standard_network()] * 3, "loaded 3 networks, .* members=2"),
        (lambda data: [load_network(__file__)] * 2, "cannot be loaded: .* is not TorchScript"),
    ],
)
def test_a_checkpoint_that_is_not_what_it_says_is_named(options, monkeypatch, load, words):
    monkeypatch.setattr(DEFENSES, "_entries", dict(DEFENSES._entries))
    register_checkpoint("mine", datasets=("digits",), members=2)(load)
    with pytest.raises(DefenseError, match=f"'mine' {words}"):
        Session(options).prepare("digits", "mine")
