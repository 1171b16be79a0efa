"""What `compile` does to rows, done to a whole table: strays, ties, labels, merging."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from onrecord.serving.outputs import Outputs, TargetOutput
from onrecord.serving.table import Table

__all__ = ["label_array", "merged", "named", "stray_rows", "tied_rows"]

_Array = np.ndarray[Any, Any]
_DTYPES: Mapping[type, Any] = {int: np.int64, float: np.float64, bool: np.bool_}


def stray_rows(
    table: Table,
    open_columns: Sequence[tuple[int, float, float]],
    edged: Sequence[int],
    edges: _Array,
) -> _Array:
    """Return a mask [rows] of the rows whose numbers a graph may take otherwise.

    Those are rows with a number outside the range of one of `open_columns` (place, low, high), or
    with one in the columns `edged` that is, as a 32-bit float, among the sorted `edges`.
    """
    strays = np.zeros(len(table), dtype=np.bool_)
    for place, low, high in open_columns:
        numbers = table.arrays[place]
        if low <= numbers.min() and numbers.max() <= high:
            continue  # nearly always; with a NaN among them it is not known yet
        strays |= (numbers < low) | (numbers > high)
    if len(edges):
        for place in edged:
            singles = table.arrays[place].astype(np.float32)
            nearest = np.searchsorted(edges, singles).clip(max=len(edges) - 1)
            strays |= edges[nearest] == singles
    return strays


def tied_rows(chances: _Array, least: float) -> _Array:
    """Return a mask [rows] of the rows whose two largest probabilities differ by less than that."""
    count = chances.shape[1]
    if count < 2:  # noqa: PLR2004 - one class alone has no rival
        return np.zeros(len(chances), dtype=np.bool_)
    if count == 2:  # noqa: PLR2004 - nothing is to be sorted
        gap = np.abs(chances[:, 0] - chances[:, 1])
    else:
        largest = np.partition(chances, count - 2, axis=1)[:, -2:]
        gap = largest[:, 1] - largest[:, 0]
    tied: _Array = gap < least
    return tied


def named(answers: _Array, label_of: Mapping[Any, Any]) -> _Array:
    """Return the labels [rows] that a graph's own labels stand for.

    Raises KeyError where an answer is none of those.
    """
    found = answers.ravel()
    if found.dtype.kind not in "iu":
        return label_array([label_of[answer] for answer in found.tolist()])
    natives = sorted(native for native in label_of if isinstance(native, int))
    if not natives:
        raise KeyError(found[0])
    known = np.array(natives, dtype=np.int64)
    places = np.searchsorted(known, found).clip(max=len(known) - 1)
    wrong = known[places] != found
    if wrong.any():
        raise KeyError(found[wrong][0])
    labels: _Array = label_array([label_of[native] for native in natives])[places]
    return labels


def label_array(labels: Sequence[Any] | _Array) -> _Array:
    """Return labels or numbers as an array of the one type they have, of objects if they differ."""
    if isinstance(labels, np.ndarray):
        return labels
    kinds = {type(label) for label in labels}
    dtype = _DTYPES.get(kinds.pop(), np.object_) if len(kinds) == 1 else np.object_
    return np.array(labels, dtype=dtype)


def merged(close: Outputs, near: _Array, far: Outputs, strays: _Array) -> Outputs:
    """Return answers to all rows: those of `close` where `near`, then those of `far` at `strays`.

    Both are masks [rows]; a row in both has the answer of `far`.
    """
    targets = []
    for ours, theirs in zip(close.targets, far.targets, strict=True):
        values = _merged(label_array(ours.values), near, label_array(theirs.values), strays)
        chances = None
        if ours.probabilities is not None and theirs.probabilities is not None:
            chances = _merged(
                np.asarray(ours.probabilities, dtype=np.float64),
                near,
                np.asarray(theirs.probabilities, dtype=np.float64),
                strays,
            )
        targets.append(TargetOutput(ours.name, values, ours.classes, chances))
    return Outputs(targets)


def _merged(ours: _Array, near: _Array, theirs: _Array, strays: _Array) -> _Array:
    dtype = ours.dtype if ours.dtype == theirs.dtype else np.dtype(np.object_)
    values = np.empty((len(near), *ours.shape[1:]), dtype=dtype)
    values[near] = ours
    values[strays] = theirs
    return values
