"""What is trained, measured and re-used, on digits at the smoke budget."""

from dataclasses import replace

import pytest
import torch

from benchmarks.experiment import REPEATED_ATTACK
from benchmarks.session import Options, Session
from leaderboard import records


@pytest.fixture
def options(tmp_path):
    return Options(
        budget="smoke",
        data_root=tmp_path / "data",
        store=tmp_path / "store",
        results=tmp_path / "results",
        run="first",
    )


def later(options, **changes):
    """Another run of the suite."""
    return Session(replace(options, run="second", **changes))


def test_a_population_is_trained_once_and_a_first_run_measures_everything_once(options):
    session = Session(options)
    prepared = session.prepare("digits", "single")
    assert prepared.trained
    assert session.measure(prepared, "fgsm", 0.25)[1] is False
    assert session.measure(prepared, "fgsm", 0.25)[1] is True

    second = later(options)
    loaded = second.prepare("digits", "single")
    assert not loaded.trained
    assert loaded.sha256 == prepared.sha256
    assert second.measure(loaded, "fgsm", 0.25)[1] is True
    assert second.measure(loaded, "fgsm", 0.1)[1] is False


def test_a_record_of_other_weights_is_measured_again(options):
    session = Session(options)
    record, _ = session.measure(session.prepare("digits", "single"), "fgsm", 0.25)
    records.write(replace(record, population_sha256="0" * 64), options.results)
    second = later(options)
    again, reused = second.measure(second.prepare("digits", "single"), "fgsm", 0.25)
    assert not reused
    assert again.population_sha256 == record.population_sha256


def test_retrain_trains_once_a_run_and_rerun_measures_again(options):
    first = Session(options)
    first.measure(first.prepare("digits", "single"), "fgsm", 0.25)
    rerun = later(options, rerun=True)
    assert rerun.measure(rerun.prepare("digits", "single"), "fgsm", 0.25)[1] is False
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
    record, _ = plain.measure(plain.prepare("digits", "ulm"), "fgsm", 0.25)
    for changes, expected in (
        ({"submodels": 3}, lambda cell: cell.submodels == 3),
        ({"images_per_draw": 10}, lambda cell: cell.images_per_draw == 10),
        ({"seed": 1}, lambda cell: cell.seed == 1),
    ):
        session = later(options, **changes)
        other, reused = session.measure(session.prepare("digits", "ulm"), "fgsm", 0.25)
        assert expected(other.case)
        assert not reused
        assert other.case.key != record.case.key
    assert len(later(options, submodels=3).prepare("digits", "single").population) == 1


def test_clm_from_scratch_needs_no_ulm(options):
    session = later(options, clm_from_scratch=True)
    prepared = session.prepare("digits", "clm")
    assert prepared.parameters["from_scratch"] is True
    assert [name.split("-s0")[0] for name in session.trained] == ["digits-clm"]


def test_a_point_of_a_curve_becomes_a_headline_when_it_is_ranked_at(options):
    session = Session(options)
    prepared = session.prepare("digits", "single")
    assert session.measure(prepared, "fgsm", 0.1)[0].headline is False
    ranked = later(options, eps=(0.1,))
    record, reused = ranked.measure(ranked.prepare("digits", "single"), "fgsm", 0.1)
    assert reused
    assert record.headline
    assert next(r for r in records.read_all(options.results) if r.case.eps == 0.1).headline


def test_a_point_of_a_curve_is_measured_again_where_it_must_be_repeated(options):
    session = Session(options)
    point, _ = session.measure(session.prepare("digits", "single"), REPEATED_ATTACK, 0.1)
    assert (point.headline, point.repeatable) == (False, None)
    ranked = later(options, eps=(0.1,))
    record, reused = ranked.measure(ranked.prepare("digits", "single"), REPEATED_ATTACK, 0.1)
    assert (reused, record.headline, record.repeatable) == (False, True, True)
    again = later(options, eps=(0.1,))
    assert again.measure(again.prepare("digits", "single"), REPEATED_ATTACK, 0.1)[1]


def test_other_protocols_have_their_shapes_and_checks(options):
    session = Session(options)
    prepared = session.prepare("digits", "ulm")
    for protocol, attack, shape in (
        ("alone", "worst-case", (2, 50)),
        ("average", "worst-case", (1, 50)),
        ("transfer", "pgd", (2, 2, 50)),
        ("doubled", "worst-case", (2, 50)),
    ):
        record, _ = session.measure(prepared, attack, 0.25, protocol)
        assert record.correct.shape == shape
        assert records.read(options.results / f"{record.case.key}.json").case == record.case
    doubled = record.case.attack_parameters
    once = session.experiment("digits").attacks["worst-case"]
    assert doubled["apgd_steps"] == 2 * once["apgd_steps"]
    assert doubled["targets"] == once["targets"]
    curve, _ = session.measure(prepared, "pgd-clipped-margin", 0.25)
    assert curve.repeatable is True
    clean, _ = session.measure(prepared, "none", 0.0)
    assert clean.zero_gradients == 0.0
