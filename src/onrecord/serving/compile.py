"""Turns a model into an ONNX graph, and serves the graph only where both give the same answers."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import msgspec
import numpy as np

from onrecord.serving.conversion import NotCompiled, convert, edges
from onrecord.serving.generated_rows import compared_range, generated_rows
from onrecord.serving.input_schema import InputSchema
from onrecord.serving.outputs import Outputs, TargetOutput, class_key
from onrecord.serving.runtimes import (
    Row,
    Runtime,
    first_line,
    predict_table,
    python_label,
    regression,
)
from onrecord.serving.runtimes.onnx import Graph
from onrecord.serving.runtimes.sklearn import SklearnRuntime
from onrecord.serving.table import Table
from onrecord.serving.table_answers import merged, named, stray_rows, tied_rows

__all__ = ["CompiledGraph", "CompiledRuntime", "DeferredRuntime", "NotCompiled", "compile_runtime"]

_NUMBERS = {"numeric", "integer"}

TOLERANCE = 1e-5
"""The largest difference of a probability, absolute, and of a regression's value, relative."""


class CompiledGraph(msgspec.Struct, frozen=True):
    """A converted model, and what its answers mean.

    `labels` are the classes to answer with, in the order of the probabilities, and `natives` what
    the graph calls them; None and empty for a regression. `edges` are described in `conversion`.
    """

    graph: bytes
    labels: list[Any] | None
    natives: list[Any]
    probabilities: bool
    edges: list[float]


def compile_runtime(
    original: Runtime, schema: InputSchema, samples: Sequence[Row] = ()
) -> CompiledRuntime:
    """Return a faster runtime that gives the same answers, or raise NotCompiled.

    The answers are compared on `samples` and on generated rows that cover each column's range,
    categories and missing values.
    """
    if any(column.type == "text" for column in schema.columns):
        raise NotCompiled("text columns are not compiled")
    if isinstance(original, SklearnRuntime) and not original.one_answer:
        raise NotCompiled("only one class of known ones, or numbers, are compiled")
    rows = [*generated_rows(schema), *samples]
    try:
        expected = original.predict(rows)
    except Exception as error:
        raise NotCompiled(f"the original fails on compared rows: {first_line(error)}") from error
    reasons = []
    for layout in ("table", "columns") if schema.numeric_only else ("columns",):
        try:
            raw = convert(original, schema, layout)
            if raw is None:
                continue
            compiled = CompiledRuntime(_describe(raw, original, schema), original, schema)
            reason = _difference(expected, compiled.predict(rows))
        except NotCompiled as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001 - converters raise anything for what they lack
            reason = f"the conversion failed: {first_line(error)}"
        if reason is None:
            return compiled
        reasons.append(reason)
    raise NotCompiled(reasons[0] if reasons else f"there is no conversion for {original.name}")


class CompiledRuntime:
    """An ONNX graph beside the model it was made from.

    The original answers a row that the graph may answer otherwise: one with a number outside the
    range in which the two were compared, or on the edge of a tree's branch (see `edges`), and one
    whose two likeliest classes are as good as equally likely.
    """

    name = "onnx"

    def __init__(self, compiled: CompiledGraph, original: Runtime, schema: InputSchema) -> None:
        self.compiled = compiled
        self._graph = Graph(compiled.graph, schema, "the converted model")
        self._original = original
        self._schema = schema
        numbers = [(i, c) for i, c in enumerate(schema.columns) if c.type in _NUMBERS]
        self._open = [
            (i, *compared_range(column))
            for i, column in numbers
            if compared_range(column) != (column.low, column.high)
        ]
        self._edges = frozenset(compiled.edges)
        self._edged = [i for i, _ in numbers] if self._edges else []
        self._labels = compiled.labels
        self._proba = compiled.labels is not None and compiled.probabilities
        self._wanted = list(self._graph.output_types)[: 2 if self._proba else 1]
        self._classes = tuple(map(class_key, compiled.labels or ()))
        self._label_of: dict[Any, Any] = {}
        for native, label in zip(compiled.natives, compiled.labels or (), strict=True):
            # A graph may know a label as itself or as text; True it knows as 1, which is its equal.
            self._label_of |= {native: label, class_key(native): label}

    def attempt(self, rows: Sequence[Row]) -> Outputs | None:
        """Return the graph's answers to `rows`, None where a row needs the original."""
        if (self._open or self._edged) and self._strays(rows):
            return None
        outputs = self._outputs(self._graph.run(rows, self._wanted))
        chances = outputs.targets[0].probabilities
        return None if chances is not None and any(map(_tied, chances)) else outputs

    def predict(self, rows: Sequence[Row]) -> Outputs:
        """Return the answers to `rows`."""
        strays = self._strays(rows) if self._open or self._edged else set()
        if len(strays) == len(rows):
            return self._original.predict(rows)
        places = [i for i in range(len(rows)) if i not in strays]
        close = self._outputs(self._graph.run([rows[i] for i in places], self._wanted))
        chances = close.targets[0].probabilities
        if chances is not None and (ties := [i for i, row in enumerate(chances) if _tied(row)]):
            strays |= {places[tie] for tie in ties}
        if not strays:
            return close
        alone = close.split([1] * len(places))
        return self._merged(rows, strays, dict(zip(places, alone, strict=True)))

    def original(self) -> Runtime:
        """Return the model that the graph was made from."""
        return self._original

    def predict_table(self, table: Table) -> Outputs:
        """Return the answers to a table, the same as `predict` gives to its rows."""
        strays = stray_rows(table, self._open, self._edged, self._sorted_edges)
        if strays.all():
            return predict_table(self._original, table)
        near = ~strays
        rest = table.take(near) if strays.any() else table
        close = self._table_outputs(self._graph.run_table(rest, self._wanted))
        chances = close.targets[0].probabilities
        if chances is not None:
            strays[np.flatnonzero(near)[tied_rows(np.asarray(chances), 2 * TOLERANCE)]] = True
        if not strays.any():
            return close
        return merged(close, near, predict_table(self._original, table.take(strays)), strays)

    def _table_outputs(self, answers: list[Any]) -> Outputs:
        if self._labels is None:
            return regression(answers[0], self._schema)
        values = named(answers[0], self._label_of)
        if not self._proba:
            return Outputs([TargetOutput(None, values)])
        chances = answers[1].astype(np.float64)
        return Outputs([TargetOutput(None, values, self._classes, chances)])

    @cached_property
    def _sorted_edges(self) -> np.ndarray[Any, Any]:
        return np.sort(np.array(list(self._edges), dtype=np.float32))

    def _outputs(self, answers: list[Any]) -> Outputs:
        if self._labels is None:
            return regression(answers[0], self._schema)
        values = [self._label_of[label] for label in answers[0].ravel().tolist()]
        if not self._proba:
            return Outputs([TargetOutput(None, values)])
        return Outputs([TargetOutput(None, values, self._classes, answers[1].tolist())])

    def _strays(self, rows: Sequence[Row]) -> set[int]:
        """Return the places of the rows whose numbers the graph may take otherwise."""
        strays = set()
        for place, row in enumerate(rows):
            for i, low, high in self._open:
                value = row[i]
                if value is not None and not low <= value <= high:
                    strays.add(place)
                    break
        if self._edged:
            singles = np.array([[row[i] for i in self._edged] for row in rows], dtype=np.float32)
            for place, numbers in enumerate(singles.tolist()):
                if not self._edges.isdisjoint(numbers):
                    strays.add(place)
        return strays

    def _merged(self, rows: Sequence[Row], strays: set[int], close: dict[int, Outputs]) -> Outputs:
        """Return the graph's answers, by place, with the original's in those of the strays."""
        places = sorted(strays)
        far = self._original.predict([rows[i] for i in places]).split([1] * len(places))
        answers = close | dict(zip(places, far, strict=True))
        return Outputs.join([answers[i] for i in range(len(rows))])


class DeferredRuntime:
    """A model that is loaded when it is first needed, from bytes that are in memory already."""

    def __init__(self, name: str, load: Callable[[], Runtime]) -> None:
        self.name = name
        self._load = load
        self._loaded: Runtime | None = None
        self._lock = threading.Lock()

    def predict(self, rows: Sequence[Row]) -> Outputs:
        """Return the model's answers to `rows`."""
        return self.original().predict(rows)

    def original(self) -> Runtime:
        """Return the model itself."""
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load()
        return self._loaded


def _describe(raw: bytes, original: Any, schema: InputSchema) -> CompiledGraph:
    labels: list[Any] | None = original.labels
    probe = original.predict([schema.probe_row()])
    natives = getattr(original, "native_labels", None) or range(len(labels or ()))
    return CompiledGraph(
        graph=raw,
        labels=labels,
        natives=[python_label(native) for native in natives],
        probabilities=labels is not None and probe.targets[0].probabilities is not None,
        edges=sorted(edges(raw, original)),
    )


def _tied(chances: list[float]) -> bool:
    """Tell whether the two largest probabilities differ by less than they may be wrong."""
    if len(chances) == 2:  # noqa: PLR2004 - most have two, which need no sorting
        return abs(chances[0] - chances[1]) < 2 * TOLERANCE
    if len(chances) < 2:  # noqa: PLR2004 - one class alone has no rival
        return False
    second, first = sorted(chances)[-2:]
    return first - second < 2 * TOLERANCE


def _difference(expected: Outputs, found: Outputs) -> str | None:
    """Return in which way two sets of answers differ, None where they agree."""
    if len(expected.targets) != len(found.targets):
        return "the graph has another number of targets"
    for ours, theirs in zip(expected.targets, found.targets, strict=True):
        if type(ours.values[0]) is not type(theirs.values[0]):
            return "the graph answers with another type"
        if isinstance(ours.values[0], float):
            worst = _largest_relative(ours.values, theirs.values)
            found_one = None if worst <= TOLERANCE else f"values differ by up to {worst:.1e}"
        else:
            found_one = _difference_of_classes(ours, theirs)
        if found_one:
            return found_one
    return None


def _difference_of_classes(ours: TargetOutput, theirs: TargetOutput) -> str | None:
    wrong = sum(a != b for a, b in zip(ours.values, theirs.values, strict=True))
    if wrong:
        return f"{wrong} of {len(ours.values)} compared rows get another class"
    if ours.classes != theirs.classes:
        return "the graph has other classes"
    if ours.probabilities is None:
        return None
    gap = np.abs(np.subtract(ours.probabilities, theirs.probabilities or math.nan)).max()
    return None if gap <= TOLERANCE else f"probabilities differ by up to {gap:.1e}"


def _largest_relative(ours: Any, theirs: Any) -> float:
    """Return the largest difference relative to the value, or to the median if that is more."""
    left = np.asarray(ours)
    size = np.maximum(np.abs(left), np.median(np.abs(left)))
    gap = np.abs(left - np.asarray(theirs))
    return float(np.divide(gap, size, out=np.zeros_like(gap), where=gap != 0).max())
