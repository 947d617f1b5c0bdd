import numpy as np
import pytest
import samples
from randomized_defense_bench.leaderboard.paper.correlation import correlations, mantel, parities


def test_ranks_are_correlated_not_values():
    rho, _ = mantel(np.array([1.0, 2.0, 3.0]), np.array([0.0, 0.1, 9.0]))
    assert rho == pytest.approx(1.0)
    rho, _ = mantel(np.array([1.0, 3.0, 2.0]), np.array([1.0, 2.0, 3.0]))
    assert rho == pytest.approx(0.5)
    # A pattern over all submodels is significant.
    first, second = np.triu_indices(10, 1)
    distance = (second - first).astype(float)
    rho, p = mantel(distance, distance**2)
    assert rho == pytest.approx(1.0)
    assert p < 0.001


@pytest.mark.parametrize("values", [np.array([1.0, 1.0, 1.0]), np.array([1.0])])
def test_what_does_not_vary_correlates_with_nothing(values):
    assert mantel(values, values) == (None, None)


def test_pairs_that_share_a_submodel_are_not_counted_as_independent():
    """One odd submodel out of six moves five pairs together: six relabelings, so p is 1 in 6."""
    first, second = np.triu_indices(6, 1)
    x = ((first == 0) | (second == 0)).astype(float)
    y = x + 1e-3 * np.arange(len(x))
    rho, p = mantel(x, y)
    assert rho > 0.8
    assert 0.1 < p < 0.25


def test_what_parity_alone_makes_is_no_correlation():
    """Pairs differ by their parities in both values, and by nothing else that goes together."""
    groups = parities(45)
    level = sum(k * groups[name].astype(float) for k, name in enumerate(groups))
    rng = np.random.default_rng(1)
    x, y = (level + 0.1 * rng.random(45) for _ in range(2))
    assert mantel(x, y)[0] > 0.8
    rho, p = mantel(x, y, within_parities=True)
    assert abs(rho) < 0.4
    assert p > 0.05


def test_each_group_of_parities_counts_by_its_size():
    """25 pairs of one of each that go together, 10 of two odd ones that go against each other."""
    groups = parities(45)
    x, y = np.zeros(45), np.zeros(45)
    x[groups["one of each"]] = y[groups["one of each"]] = np.arange(25)
    x[groups["two odd"]], y[groups["two odd"]] = np.arange(10), -np.arange(10)
    rho, _ = mantel(x, y, within_parities=True)
    together, against = ((k**2 - 1) * k / (k + 1) ** 2 for k in (25, 10))
    assert rho == pytest.approx((together - against) / (together + against))


def test_clm_is_correlated_within_parities_and_ulm_is_not():
    level = sum(k * mine.astype("f4") for k, mine in enumerate(parities(45).values()))
    noise = np.random.default_rng(1).random((2, 45)).astype("f4") / 10
    arrays = {}
    for name in ("ulm", "clm"):
        arrays[f"{name} measures"] = np.tile(level + noise[0], (4, 1))
        for outcome in ("transfer", "claimed", "worst"):
            arrays[f"{name} {outcome}"] = level + noise[1]
    found = correlations(samples.evidence("diversity", arrays=arrays))
    assert all(one.significant == (one.defense == "ulm") for one in found)


def test_pairs_are_told_apart_by_parity():
    found = parities(6)
    pairs = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert [p for p, mine in zip(pairs, found["two even"], strict=True) if mine] == [(0, 2)]
    assert [p for p, mine in zip(pairs, found["two odd"], strict=True) if mine] == [(1, 3)]
    assert found["one of each"].sum() == 4


def test_correlations_stay_within_a_population():
    measures = np.array([[1, 2, 3], [3, 2, 1], [1, 1, 1], [1, 3, 2]], np.float32)
    arrays = {}
    for name in ("ulm", "clm"):
        arrays[f"{name} measures"] = measures
        arrays[f"{name} transfer"] = arrays[f"{name} claimed"] = np.array([0.1, 0.2, 0.9], "f4")
        arrays[f"{name} worst"] = np.zeros(3, np.float32)
    found = correlations(samples.evidence("diversity", arrays=arrays))
    claimed = [c.rho for c in found if (c.defense, c.outcome) == ("ulm", "claimed")]
    assert claimed[:2] == pytest.approx([1.0, -1.0])
    assert claimed[2] is None
    assert claimed[3] == pytest.approx(0.5)
    assert all(c.rho is None and not c.significant for c in found if c.outcome == "worst")
    assert len(found) == 2 * 4 * 3
