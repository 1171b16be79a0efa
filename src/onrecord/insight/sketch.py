"""Sketches: how the values of each feature and score are spread, in counts that can be added up.

A baseline's sketch decides the bins; every window is counted into the same ones, so that an hour
and a month are compared with it in the same way and no row is read twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec
import numpy as np

from onrecord.serving.columns import Column
from onrecord.serving.outputs import Outputs, TargetOutput, class_key
from onrecord.serving.table import Table

__all__ = ["Sketch", "Spread", "add_rows", "emptied", "merged", "sketch_of"]

_Array = np.ndarray[Any, Any]
_Values = tuple[str, Literal["number", "category"], _Array | list[str | None]]

_BINS = 50
_MOST_VALUES = 200


class Spread(msgspec.Struct):
    """How the values of one feature or score are spread.

    Of a `number`, `counts` has one more than `edges`: a value at an edge is above it. Of a
    `category`, `counts` has one for each of `values`, and one more for those that the baseline had
    not. `missing` are in neither. `outside` counts the numbers beyond `low` and `high`, the least
    and the greatest of the baseline.
    """

    kind: Literal["number", "category"]
    counts: list[int]
    edges: list[float] = []
    values: list[str] = []
    missing: int = 0
    low: float = 0.0
    high: float = 0.0
    outside: int = 0

    @property
    def rows(self) -> int:
        """How many values were counted, missing ones included."""
        return sum(self.counts) + self.missing


class Sketch(msgspec.Struct):
    """The spreads of so many rows: of each feature, and of what a model said to them.

    Scores are named `prediction` and `probability of CLASS`; of several targets the target's name
    comes first. Of a text column the length is counted, of a sensitive one nothing.
    """

    rows: int
    features: dict[str, Spread]
    scores: dict[str, Spread]


def sketch_of(table: Table, outputs: Outputs | None) -> Sketch:
    """Return the sketch of some rows, which decides the bins; `outputs` are the answers to them."""
    return Sketch(
        len(table),
        {name: _spread(kind, values) for name, kind, values in _features(table)},
        {name: _spread(kind, values) for name, kind, values in _scores(outputs)},
    )


def emptied(sketch: Sketch) -> Sketch:
    """Return a sketch of no row with the same bins."""

    def of(spreads: dict[str, Spread]) -> dict[str, Spread]:
        return {
            name: msgspec.structs.replace(it, counts=[0] * len(it.counts), missing=0, outside=0)
            for name, it in spreads.items()
        }

    return Sketch(0, of(sketch.features), of(sketch.scores))


def add_rows(sketch: Sketch, table: Table, outputs: Outputs | None) -> None:
    """Count some rows, and the answers to them, into a sketch's bins."""
    sketch.rows += len(table)
    for spreads, found in (
        (sketch.features, _features(table)),
        (sketch.scores, _scores(outputs)),
    ):
        for name, kind, values in found:
            spread = spreads.get(name)
            if spread is not None and spread.kind == kind:
                _count(spread, values)


def merged(one: Sketch, other: Sketch) -> Sketch:
    """Return the sketch of the rows of both, which have the same bins."""

    def of(these: dict[str, Spread], those: dict[str, Spread]) -> dict[str, Spread]:
        return {
            name: msgspec.structs.replace(
                it,
                counts=[a + b for a, b in zip(it.counts, those[name].counts, strict=True)],
                missing=it.missing + those[name].missing,
                outside=it.outside + those[name].outside,
            )
            for name, it in these.items()
        }

    return Sketch(
        one.rows + other.rows,
        of(one.features, other.features),
        of(one.scores, other.scores),
    )


def _spread(kind: Literal["number", "category"], values: _Array | list[str | None]) -> Spread:
    if isinstance(values, np.ndarray):
        known = values[~np.isnan(values)]
        if not len(known):
            spread = Spread("number", [0])
        else:
            edges = np.unique(np.quantile(known, np.linspace(0, 1, _BINS + 1)[1:-1]))
            low, high = float(known.min()), float(known.max())
            spread = Spread("number", [0] * (len(edges) + 1), edges=edges.tolist())
            spread.low, spread.high = low, high
    else:
        counts = Counter(value for value in values if value is not None)
        names = sorted(name for name, _ in counts.most_common(_MOST_VALUES))
        spread = Spread(kind, [0] * (len(names) + 1), values=names)
    _count(spread, values)
    return spread


def _count(spread: Spread, values: _Array | list[str | None]) -> None:
    if isinstance(values, np.ndarray):
        missing = np.isnan(values)
        known = values[~missing]
        places = np.searchsorted(spread.edges, known, side="right")
        more = np.bincount(places, minlength=len(spread.counts)).tolist()
        spread.missing += int(np.count_nonzero(missing))
        spread.outside += int(np.count_nonzero((known < spread.low) | (known > spread.high)))
    else:
        found = Counter(values)
        spread.missing += found.pop(None, 0)
        more = [found.pop(name, 0) for name in spread.values]
        more.append(sum(found.values()))
    spread.counts = [before + new for before, new in zip(spread.counts, more, strict=True)]


def _features(table: Table) -> Iterator[_Values]:
    for column, array in zip(table.columns, table.arrays, strict=True):
        if not column.sensitive:
            yield _feature(column, array)


def _feature(column: Column, array: _Array) -> _Values:
    if column.type == "text":
        lengths = [np.nan if value is None else len(value) for value in array.tolist()]
        return column.name, "number", np.array(lengths, dtype=np.float64)
    if column.type in {"numeric", "integer"}:
        return column.name, "number", array.astype(np.float64)
    values = array.tolist()
    if array.dtype.kind == "f":  # NaN is missing
        kind = bool if column.type == "boolean" else int
        values = [None if value != value else kind(value) for value in values]  # noqa: PLR0124
    return column.name, "category", [None if it is None else class_key(it) for it in values]


def _scores(outputs: Outputs | None) -> Iterator[_Values]:
    for target in outputs.targets if outputs is not None else ():
        prefix = "" if target.name is None else f"{target.name}: "
        yield from _target(prefix, target)


def _target(prefix: str, target: TargetOutput) -> Iterator[_Values]:
    values = target.values
    if target.probabilities is None and _are_numbers(values):
        yield f"{prefix}prediction", "number", np.array(values, dtype=np.float64)
        return
    labels = values.tolist() if isinstance(values, np.ndarray) else values
    yield f"{prefix}prediction", "category", [class_key(label) for label in labels]
    if target.probabilities is not None and target.classes is not None:
        chances = np.asarray(target.probabilities, dtype=np.float64)
        for place, name in enumerate(target.classes):
            yield f"{prefix}probability of {name}", "number", chances[:, place]


def _are_numbers(values: Sequence[Any] | _Array) -> bool:
    if isinstance(values, np.ndarray):
        return bool(values.dtype.kind == "f")
    return all(type(value) is float for value in values)
