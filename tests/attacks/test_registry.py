import warnings
from types import SimpleNamespace

import pytest
from randomized_defense_bench.attacks import registry
from randomized_defense_bench.attacks.registry import Registry


def test_duplicate_names_are_refused():
    names = Registry("attack")
    names.add("pgd", 1)
    with pytest.raises(ValueError, match="'pgd' is registered already"):
        names.add("pgd", 2)


@pytest.mark.parametrize(
    "name", ["PGD", "a b", "../x", "/x", "..", "x\n", "<b>", "", "a--b", "a_b"]
)
def test_names_that_would_break_ids_or_files_are_refused(name):
    with pytest.raises(ValueError, match="lower-case"):
        Registry("attack").add(name, 1)


def test_unknown_name_suggests_the_nearest_and_lists_all():
    names = Registry("attack")
    names.add("mifgsm", 1)
    names.add("pgd", 2)
    with pytest.raises(
        LookupError, match=r"'mifgms'; did you mean 'mifgsm'\? \(known: mifgsm, pgd"
    ):
        names["mifgms"]


def test_plugins_register_on_import_and_a_broken_one_is_only_a_warning(monkeypatch):
    names = Registry("defense")

    def broken():
        raise ImportError("no such module")

    good = SimpleNamespace(value="good", load=lambda: names.add("mine", 1))
    offered = {
        "randomized_defense_bench.defenses": [SimpleNamespace(value="bad", load=broken), good]
    }
    monkeypatch.setattr(registry, "entry_points", lambda group: offered[group])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        names.load_plugins()
    assert list(names) == ["mine"]
    assert "defense plug-in 'bad' failed: no such module" in str(caught[0].message)
