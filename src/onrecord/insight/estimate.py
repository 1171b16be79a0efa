"""What a model's quality probably is while outcomes are still to come: estimated from its scores.

A calibrated probability says how often an answer is right, so the mean of many estimates the share
that is (confidence-based performance estimation, CBPE: NannyML, 2022). It is an estimate, and holds
as long as the scores stay calibrated: it sees that harder cases come, and not that the same case
means something else now.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from onrecord.insight.metrics import Figure

__all__ = ["calibration", "estimated"]

_Array = np.ndarray[Any, Any]

_Z = 1.959963984540054
_LEAST_KNOWN = 300


def calibration(scores: _Array, hits: _Array) -> tuple[_Array, _Array] | None:
    """Return what scores mean: ascending scores and the share of hits at each, both arrays.

    By isotonic regression (pool adjacent violators; Ayer et al., Ann. Math. Stat. 26, 1955). None
    of fewer than 300 known outcomes, or where all are the same.
    """
    if len(scores) < _LEAST_KNOWN or hits.all() or not hits.any():
        return None
    order = np.argsort(scores, kind="stable")
    values, first = np.unique(scores[order], return_index=True)
    sums = np.add.reduceat(hits[order].astype(np.float64), first)
    counts = np.diff([*first, len(order)])
    blocks: list[tuple[float, float, int]] = []
    for total, count in zip(sums, counts, strict=True):
        blocks.append((float(total), float(count), 1))
        while len(blocks) > 1 and blocks[-2][0] * blocks[-1][1] >= blocks[-1][0] * blocks[-2][1]:
            more, n, width = blocks.pop()
            before, m, wide = blocks.pop()
            blocks.append((before + more, m + n, wide + width))
    levels = [total / count for total, count, _ in blocks]
    return values, np.repeat(levels, [width for _, _, width in blocks])


def estimated(
    scores: _Array, predicted: Sequence[bool] | _Array, known: tuple[_Array, _Array] | None
) -> dict[str, Any]:
    """Return the accuracy and the ROC AUC that so many answers of two classes probably have.

    `scores` [rows] are the probabilities of the second class and `predicted` says whether it was
    the answer; `known` is what `calibration` returned. The intervals, 95 %, are those of chance
    alone.
    """
    chances = scores if known is None else np.interp(scores, *known)
    positive = np.asarray(predicted, dtype=bool)
    right = np.where(positive, chances, 1 - chances)
    return {
        "estimate": True,
        "calibrated": known is not None,
        "n": len(scores),
        "accuracy": _mean_of_chances(right),
        "roc_auc": _area(scores, chances),
    }


def _mean_of_chances(chances: _Array) -> Figure:
    """Return how many of some events come about, each with its own chance."""
    share = float(chances.mean())
    half = _Z * math.sqrt(float((chances * (1 - chances)).sum())) / len(chances)
    return {"value": share, "low": max(0.0, share - half), "high": min(1.0, share + half)}


def _area(scores: _Array, chances: _Array) -> Figure:
    """Return the expected area under the ROC curve: over all pairs, ties counted half."""
    order = np.argsort(scores, kind="stable")
    _, first = np.unique(scores[order], return_index=True)
    hits = np.add.reduceat(chances[order], first)
    misses = np.add.reduceat(1 - chances[order], first)
    below = np.cumsum(misses) - misses
    pairs = float(hits.sum() * misses.sum())
    if pairs == 0:
        return {"value": None, "low": None, "high": None}
    area = float((hits * (below + misses / 2)).sum()) / pairs
    q1, q2 = area / (2 - area), 2 * area * area / (1 + area)
    n, m = float(hits.sum()), float(misses.sum())
    variance = area * (1 - area) + (n - 1) * (q1 - area**2) + (m - 1) * (q2 - area**2)
    half = _Z * math.sqrt(max(variance, 0.0) / (n * m))
    return {"value": area, "low": max(0.0, area - half), "high": min(1.0, area + half)}
