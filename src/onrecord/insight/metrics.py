"""How right predictions were, each figure with its number of rows and a 95 % interval.

Intervals of a mean are the normal approximation: the mean and 1.96 standard errors to either side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["Figure", "classification_metrics", "regression_metrics", "roc_auc"]

Figure = dict[str, Any]
"""`value`, and `low` and `high` of its 95 % interval; all None where it cannot be told."""

_Array = np.ndarray[Any, Any]
_Z = 1.959963984540054
_BINS = 10
_LEAST_PROBABILITY = np.finfo(np.float64).eps
_RESIDUALS = (0.05, 0.25, 0.5, 0.75, 0.95)


def classification_metrics(
    predicted: Sequence[str],
    actual: Sequence[str],
    scores: _Array | None,
    classes: Sequence[str],
) -> dict[str, Any]:
    """Return how right classes were; texts as they are keys among probabilities.

    `scores` [rows, classes] are the probabilities, None where not all rows have them; `classes` in
    their order. Of two classes the second is the positive one.
    """
    right = np.array(predicted) == np.array(actual)
    labels = [*classes, *sorted({*predicted, *actual} - {*classes})]
    metrics: dict[str, Any] = {
        "n": len(actual),
        "accuracy": wilson(int(right.sum()), len(right)),
        "confusion": _confusion(predicted, actual, labels),
    }
    if scores is None:
        return metrics
    places = {name: place for place, name in enumerate(classes)}
    known = np.array([name in places for name in actual])
    truth = np.array([places.get(name, -1) for name in actual])
    chance = np.where(known, scores[np.arange(len(truth)), truth], 0.0)
    # As scikit-learn has it: no probability counts for less than the smallest that makes a
    # difference.
    metrics["log_loss"] = mean(-np.log(np.clip(chance, _LEAST_PROBABILITY, 1.0)))
    if len(classes) == 2:  # noqa: PLR2004
        positive = (truth == 1).astype(np.float64)
        metrics["brier"] = mean((scores[:, 1] - positive) ** 2)
        metrics["roc_auc"] = roc_auc(scores[:, 1], positive == 1)
        metrics["calibration"] = _calibration(scores[:, 1], positive)
    else:
        hits = truth[:, None] == np.arange(len(classes))
        metrics["brier"] = mean(((scores - hits) ** 2).sum(axis=1))
        metrics["roc_auc"] = _macro_auc(scores, hits)
        metrics["calibration"] = _calibration(scores.max(axis=1), right.astype(np.float64))
    return metrics


def regression_metrics(predicted: _Array, actual: _Array) -> dict[str, Any]:
    """Return how right numbers were; residuals are the outcome less the prediction."""
    residuals = actual - predicted
    squares = mean(residuals**2)
    spread = float(((actual - actual.mean()) ** 2).sum())
    root = {name: None if it is None else math.sqrt(max(it, 0.0)) for name, it in squares.items()}
    return {
        "n": len(actual),
        "mae": mean(np.abs(residuals)),
        "rmse": root,
        "r2": {
            "value": 1 - float((residuals**2).sum()) / spread if spread > 0 else None,
            "low": None,
            "high": None,
        },
        "bias": mean(residuals),
        "residuals": {f"p{100 * it:g}": float(np.quantile(residuals, it)) for it in _RESIDUALS},
    }


def wilson(hits: int, n: int) -> Figure:
    """Return a share with its score interval (Wilson, JASA 22, 1927)."""
    if n == 0:
        return {"value": None, "low": None, "high": None}
    share, z2 = hits / n, _Z * _Z
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return {"value": share, "low": max(0.0, middle - half), "high": min(1.0, middle + half)}


def mean(values: _Array) -> Figure:
    """Return a mean with its interval; a single value has none."""
    middle = float(values.mean())
    if len(values) == 1:
        return {"value": middle, "low": None, "high": None}
    half = _Z * float(values.std(ddof=1)) / math.sqrt(len(values))
    return {"value": middle, "low": middle - half, "high": middle + half}


def roc_auc(scores: _Array, positive: _Array) -> Figure:
    """Return the area under the ROC curve: how often a positive row scores above a negative one.

    Ties count half (Mann and Whitney, 1947); the standard error is that of Hanley and McNeil
    (Radiology 143, 1982). None where all rows are of one class.
    """
    hits = int(positive.sum())
    rest = len(positive) - hits
    if hits == 0 or rest == 0:
        return {"value": None, "low": None, "high": None}
    area = (float(_ranks(scores)[positive].sum()) - hits * (hits + 1) / 2) / (hits * rest)
    q1, q2 = area / (2 - area), 2 * area * area / (1 + area)
    variance = area * (1 - area) + (hits - 1) * (q1 - area**2) + (rest - 1) * (q2 - area**2)
    half = _Z * math.sqrt(max(variance, 0.0) / (hits * rest))
    return {"value": area, "low": max(0.0, area - half), "high": min(1.0, area + half)}


def _ranks(values: _Array) -> _Array:
    """Return ranks from 1; equal values share the mean of theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: _Array = (last - (counts - 1) / 2)[places]
    return ranks


def _macro_auc(scores: _Array, hits: _Array) -> Figure:
    """Return the mean over the classes, each against the rest, of those that can be told."""
    areas = [roc_auc(scores[:, place], hits[:, place])["value"] for place in range(hits.shape[1])]
    known = [area for area in areas if area is not None]
    return {"value": float(np.mean(known)) if known else None, "low": None, "high": None}


def _calibration(chances: _Array, hits: _Array) -> list[dict[str, Any]]:
    """Return, for each tenth of the probabilities, what was said and how often it came about."""
    bins = np.minimum((chances * _BINS).astype(int), _BINS - 1)
    return [
        {
            "from": place / _BINS,
            "to": (place + 1) / _BINS,
            "n": int(inside.sum()),
            "predicted": float(chances[inside].mean()),
            "observed": wilson(int(hits[inside].sum()), int(inside.sum())),
        }
        for place in range(_BINS)
        if (inside := bins == place).any()
    ]


def _confusion(
    predicted: Sequence[str], actual: Sequence[str], labels: Sequence[str]
) -> dict[str, Any]:
    """Return counts [actual, predicted]."""
    places = {name: place for place, name in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels)), dtype=np.int64)
    np.add.at(counts, ([places[name] for name in actual], [places[name] for name in predicted]), 1)
    return {"classes": list(labels), "counts": counts.tolist()}
