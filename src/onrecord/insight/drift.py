"""Drift: whether what is asked, and what is answered, is still like the baseline.

How far apart the spreads are (the population stability index) decides, and a p-value that is
corrected for how many features are looked at guards against chance: with few rows the index is
large by itself, with many every difference is significant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from onrecord.insight.divergence import (
    chi_squared,
    coarse,
    cramers_v,
    holm,
    jensen_shannon,
    kolmogorov_smirnov,
    population_stability_index,
)
from onrecord.insight.sketch import Sketch, Spread

__all__ = ["DriftRules", "Status", "compared_with", "worst"]

Status = Literal["too few rows", "ok", "warning", "drift"]

_SEVERITY: dict[Status, int] = {"too few rows": 0, "ok": 1, "warning": 2, "drift": 3}
_MOST_BINS = 12


@dataclass(frozen=True, slots=True)
class DriftRules:
    """When a feature drifts: its index is `drift` or more, and the corrected p-value below `level`.

    It is a `warning` where the index is that or more. Of fewer than `least_rows` rows nothing is
    said.
    """

    least_rows: int = 200
    warning: float = 0.1
    drift: float = 0.25
    level: float = 0.01


def compared_with(baseline: Sketch, window: Sketch, rules: DriftRules) -> dict[str, Any]:
    """Return what differs between a window and its baseline: docs/drift.md says what it means.

    `features` and `scores` are lists, in the schema's order; `status` is the worst of them.
    """
    parts = {
        part: [
            _compared(name, before, now[name], rules)
            for name, before in spreads.items()
            if name in now
        ]
        for part, spreads, now in (
            ("features", baseline.features, window.features),
            ("scores", baseline.scores, window.scores),
        )
    }
    everything = [it for found in parts.values() for it in found]
    tested = {i: it["p_value"] for i, it in enumerate(everything) if it["p_value"] is not None}
    corrected = holm({str(i): p for i, p in tested.items()})
    for i, it in enumerate(everything):
        it["p_corrected"] = corrected.get(str(i))
        it["status"] = _status(it, rules)
    return {"status": worst([it["status"] for it in everything]), "rows": window.rows, **parts}


def worst(statuses: Sequence[Status]) -> Status:
    """Return the worst of some statuses."""
    return max(statuses, key=lambda it: _SEVERITY[it], default="too few rows")


def _status(it: dict[str, Any], rules: DriftRules) -> Status:
    if it["p_corrected"] is None:
        return "too few rows"
    if it["p_corrected"] >= rules.level or it["psi"] < rules.warning:
        return "ok"
    return "drift" if it["psi"] >= rules.drift else "warning"


def _compared(name: str, before: Spread, now: Spread, rules: DriftRules) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": name,
        "kind": before.kind,
        "rows": now.rows,
        "psi": None,
        "jensen_shannon": None,
        "test": "chi-squared" if before.kind == "category" else "Kolmogorov-Smirnov",
        "effect": None,
        "p_value": None,
        "missing": {"baseline": _share(before.missing, before), "window": _share(now.missing, now)},
        "outside": _share(now.outside, now) if before.kind == "number" else None,
        "unseen": _share(now.counts[-1], now) if before.kind == "category" else None,
        "bins": _bins(before, now),
    }
    if min(before.rows, now.rows) < rules.least_rows:
        return told
    if before.kind == "category":
        these, those = [*before.counts, before.missing], [*now.counts, now.missing]
        statistic, told["p_value"] = chi_squared(these, those)
        told["effect"] = cramers_v(statistic, sum(these) + sum(those))
        there = [i for i, pair in enumerate(zip(these, those, strict=True)) if any(pair)]
        these, those = [these[i] for i in there], [those[i] for i in there]
    else:
        told["effect"], told["p_value"] = _numbers(before, now)
        these, those = (it.tolist() for it in coarse(before.counts, now.counts))
        if before.missing or now.missing:
            these, those = [*these, before.missing], [*those, now.missing]
    told["psi"] = population_stability_index(these, those)
    told["jensen_shannon"] = jensen_shannon(these, those)
    return told


def _numbers(before: Spread, now: Spread) -> tuple[float | None, float]:
    """Return the effect and the p-value of numbers, of which some may be missing.

    That other rows have none is tested, too; of two tests the lower p-value counts twice.
    """
    effect, p = None, 1.0
    if sum(before.counts) and sum(now.counts):
        effect, p = kolmogorov_smirnov(before.counts, now.counts)
    if not before.missing and not now.missing:
        return effect, p
    there = [sum(before.counts), before.missing], [sum(now.counts), now.missing]
    return effect, min(1.0, 2 * min(p, chi_squared(*there)[1]))


def _share(count: int, spread: Spread) -> float | None:
    return count / spread.rows if spread.rows else None


def _bins(before: Spread, now: Spread) -> list[dict[str, Any]]:
    """Return the spreads in a few bins, as shares of all rows, for people to look at."""
    if before.kind == "category":
        names = [*before.values, "unseen in the baseline"]
        places = sorted(range(len(names)), key=lambda i: -max(before.counts[i], now.counts[i]))
        kept = sorted(places[:_MOST_BINS])
        bins = [(names[i], before.counts[i], now.counts[i]) for i in kept]
        rest = places[_MOST_BINS:]
        if rest:
            a, b = (sum(it.counts[i] for i in rest) for it in (before, now))
            bins.append(("others", a, b))
    else:
        bins = _ranges(before, now)
    bins.append(("missing", before.missing, now.missing))
    return [
        {"bin": name, "baseline": _share(a, before), "window": _share(b, now)}
        for name, a, b in bins
        if a or b
    ]


def _ranges(before: Spread, now: Spread) -> list[tuple[str, int, int]]:
    """Return ten bins with about as much of the baseline in each."""
    if not before.edges:
        return [("all", sum(before.counts), sum(now.counts))]
    inner = np.cumsum(before.counts)[:-1] / max(1, sum(before.counts))
    chosen = sorted({int(np.searchsorted(inner, share)) for share in np.arange(1, 10) / 10})
    # Where the baseline had one value only, all of it lies above the one edge.
    chosen = [place for place in chosen if place < len(before.edges)] or [0]
    texts = [f"{before.edges[place]:.6g}" for place in chosen]
    names = [f"< {texts[0]}", *(f"{a} to {b}" for a, b in pairwise(texts)), f">= {texts[-1]}"]
    starts = [0, *(place + 1 for place in chosen)]
    parts = [np.add.reduceat(it.counts, starts).tolist() for it in (before, now)]
    return list(zip(names, *parts, strict=True))
