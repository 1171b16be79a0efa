"""The distances of spreads, beside scipy's."""

import numpy as np
import pytest
from scipy import special, stats
from scipy.spatial import distance

from onrecord.insight.divergence import (
    chi_squared,
    coarse,
    cramers_v,
    holm,
    jensen_shannon,
    kolmogorov_smirnov,
    population_stability_index,
)


def two_samples(seed: int, bins: int) -> tuple[list[int], list[int]]:
    random = np.random.default_rng(seed)
    spread = random.dirichlet(np.ones(bins))
    other = random.dirichlet(np.ones(bins)) if seed % 2 else spread
    return (
        random.multinomial(int(random.integers(200, 5000)), spread).tolist(),
        random.multinomial(int(random.integers(200, 5000)), other).tolist(),
    )


@pytest.mark.parametrize("seed", range(30))
def test_chi_squared_and_its_effect_are_scipys(seed: int) -> None:
    one, other = (np.array(it) + 20 for it in two_samples(seed, 2 + seed % 12))

    statistic, p = chi_squared(one, other)

    wanted = stats.chi2_contingency([one, other], correction=False)
    assert statistic == pytest.approx(wanted.statistic)
    assert p == pytest.approx(wanted.pvalue, rel=1e-9, abs=1e-300)
    effect = stats.contingency.association(np.array([one, other]), method="cramer")
    assert cramers_v(statistic, int(one.sum() + other.sum())) == pytest.approx(effect)


@pytest.mark.parametrize("seed", range(30))
def test_kolmogorov_smirnov_is_scipys(seed: int) -> None:
    one, other = two_samples(seed, 40)

    found, p = kolmogorov_smirnov(one, other)

    values = [np.repeat(np.arange(40), counts) for counts in (one, other)]
    n, m = sum(one), sum(other)
    assert found == pytest.approx(stats.ks_2samp(*values, method="asymp").statistic)
    assert p == pytest.approx(special.kolmogorov(found * np.sqrt(n * m / (n + m))), abs=1e-12)


@pytest.mark.parametrize("seed", range(30))
def test_jensen_shannon_is_scipys(seed: int) -> None:
    one, other = two_samples(seed, 12)

    assert jensen_shannon(one, other) == pytest.approx(
        distance.jensenshannon(one, other, base=2), abs=1e-7
    )


def test_the_index_is_the_symmetric_divergence() -> None:
    one, other = np.array([40_000, 30_000, 30_000]), np.array([20_000, 30_000, 50_000])

    found = population_stability_index(one, other)

    p, q = one / one.sum(), other / other.sum()
    assert found == pytest.approx(stats.entropy(p, q) + stats.entropy(q, p), rel=1e-4)
    assert population_stability_index(one, one * 3) == pytest.approx(0, abs=1e-8)


def test_fine_bins_are_taken_together_where_the_baseline_has_as_much_in_each() -> None:
    baseline, window = coarse([10] * 50, [5] * 25 + [20] * 25)

    assert baseline.tolist() == [50] * 10
    assert window.tolist() == [25] * 5 + [100] * 5
    assert coarse([1000], [7])[1].tolist() == [7]
    assert sum(coarse([0, 0, 990, 5, 5], [1, 2, 3, 4, 5])[1]) == 15


def test_holm_corrects_as_by_hand() -> None:
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})

    assert found == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})


def test_rare_categories_do_not_make_a_difference_by_themselves() -> None:
    one, other = [5000, 5000, *([1] * 40)], [50, 50, *([0] * 40)]

    assert chi_squared(one, other)[1] > 0.5
    assert chi_squared([10, 0], [12, 0]) == (0.0, 1.0)
