"""How far two spreads are apart, and how likely chance alone puts them so far.

All of them work on counts in the same bins. With many rows every difference is significant, so
what is judged by is the size of the difference; the p-value only guards against too few rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = [
    "chi_squared",
    "coarse",
    "cramers_v",
    "holm",
    "jensen_shannon",
    "kolmogorov_smirnov",
    "population_stability_index",
]

_Array = np.ndarray[Any, Any]
_Counts = Sequence[int] | _Array

_HALF = 0.5
"""What is added to each count where a logarithm is taken: an empty bin is no infinite distance."""

_PRECISION = 1e-14
_MOST_TERMS = 10_000
_LEAST_EXPECTED = 1.0


def coarse(baseline: _Counts, window: _Counts, bins: int = 10) -> tuple[_Array, _Array]:
    """Return both counts in at most so many bins, each with about as much of the baseline.

    Fine bins make the index of two samples of one spread large by chance alone: it is expected to
    be (bins - 1) (1/n + 1/m).
    """
    share = sum(baseline) / bins
    edges, held = [0], 0.0
    for place, count in enumerate(baseline):
        held += count
        if held >= share and place + 1 < len(baseline):
            edges.append(place + 1)
            held = 0.0
    return np.add.reduceat(baseline, edges), np.add.reduceat(window, edges)


def population_stability_index(baseline: _Counts, window: _Counts) -> float:
    """Return the PSI: the symmetric Kullback-Leibler divergence of two spreads, in nats.

    Below 0.1 is usually taken for no change and above 0.25 for a large one (Siddiqi, Credit Risk
    Scorecards, 2006).
    """
    p, q = _shares(baseline), _shares(window)
    return float(((q - p) * np.log(q / p)).sum())


def jensen_shannon(baseline: _Counts, window: _Counts) -> float:
    """Return the Jensen-Shannon distance of two spreads: 0 where they are one, 1 at most.

    It is the square root of the divergence in bits (Endres and Schindelin, IEEE TIT 49, 2003).
    """
    p = np.asarray(baseline, dtype=np.float64) / sum(baseline)
    q = np.asarray(window, dtype=np.float64) / sum(window)
    middle = (p + q) / 2
    divergence = (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2
    return math.sqrt(min(1.0, max(0.0, divergence)))


def kolmogorov_smirnov(baseline: _Counts, window: _Counts) -> tuple[float, float]:
    """Return the largest distance of two cumulative spreads, and its p-value.

    The distance, 0 to 1, is the effect's size. Of binned values it is at most that of the values,
    so the p-value, which is that of large samples (Kolmogorov, 1933), errs to the side of no drift.
    """
    n, m = sum(baseline), sum(window)
    distance = float(np.abs(np.cumsum(baseline) / n - np.cumsum(window) / m).max())
    return distance, _kolmogorov(distance * math.sqrt(n * m / (n + m)))


def chi_squared(baseline: _Counts, window: _Counts) -> tuple[float, float]:
    """Return Pearson's statistic that two samples are of one spread, and its p-value.

    Categories that neither has are left out, and those of which less than one row is expected are
    taken together, as they would make the statistic large by chance.
    """
    table = np.array([baseline, window], dtype=np.float64)
    table = table[:, table.sum(axis=0) > 0]
    smaller = min(table.sum(axis=1)) / table.sum()
    rare = table.sum(axis=0) * smaller < _LEAST_EXPECTED
    if rare.any():
        table = np.column_stack([table[:, ~rare], table[:, rare].sum(axis=1)])
    freedom = table.shape[1] - 1
    if freedom == 0:
        return 0.0, 1.0
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    statistic = float(((table - expected) ** 2 / expected).sum())
    return statistic, _upper_gamma(freedom / 2, statistic / 2)


def cramers_v(statistic: float, rows: int) -> float:
    """Return the effect's size of a chi-squared statistic of two samples: 0 to 1 (Cramér, 1946)."""
    return math.sqrt(min(1.0, statistic / rows)) if rows else 0.0


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return p-values corrected for their number (Holm, Scand. J. Statistics 6, 1979).

    The chance that any of them falls below a level where nothing has changed is at most that level.
    """
    corrected: dict[str, float] = {}
    highest = 0.0
    for place, name in enumerate(sorted(p_values, key=lambda it: p_values[it])):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[name]))
        corrected[name] = highest
    return corrected


def _shares(counts: _Counts) -> _Array:
    held = np.asarray(counts, dtype=np.float64) + _HALF
    shares: _Array = held / held.sum()
    return shares


def _relative_entropy(p: _Array, q: _Array) -> float:
    there = p > 0
    return float((p[there] * np.log2(p[there] / q[there])).sum())


def _kolmogorov(x: float) -> float:
    """Return the chance that the limit of sqrt(n) D is above `x`."""
    if x < 0.2:  # noqa: PLR2004 - the series converges too slowly there, and 1 is exact to 1e-12
        return 1.0
    total = 0.0
    for k in range(1, 101):
        term = math.exp(-2.0 * k * k * x * x)
        total += term if k % 2 else -term
        if term < _PRECISION:
            break
    return min(1.0, max(0.0, 2.0 * total))


def _upper_gamma(a: float, x: float) -> float:
    """Return the regularised upper incomplete gamma function Q(a, x).

    By its series below a + 1 and its continued fraction above (Press et al., Numerical Recipes,
    section 6.2).
    """
    if x <= 0:
        return 1.0
    scale = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1:
        term = total = 1.0 / a
        for n in range(1, _MOST_TERMS):
            term *= x / (a + n)
            total += term
            if term < total * _PRECISION:
                break
        return max(0.0, 1.0 - total * scale)
    b = x + 1.0 - a
    c, d = math.inf, 1.0 / b
    fraction = d
    for n in range(1, _MOST_TERMS):
        factor = -n * (n - a)
        b += 2.0
        d = 1.0 / (factor * d + b)
        c = b + (0.0 if math.isinf(c) else factor / c)
        fraction *= c * d
        if abs(c * d - 1.0) < _PRECISION:
            break
    return min(1.0, scale * fraction)
