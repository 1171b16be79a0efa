"""One module for each model library: rows in, `Outputs` out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from onrecord.errors import ModelDirectoryError
from onrecord.serving.input_schema import InputSchema
from onrecord.serving.outputs import Outputs, TargetOutput, class_key
from onrecord.serving.table import Table

__all__ = [
    "Row",
    "Runtime",
    "TableRuntime",
    "check_features",
    "classification",
    "first_line",
    "predict_table",
    "python_label",
    "reconcile_classes",
    "reconcile_several",
    "regression",
    "target_names",
]

Row = tuple[Any, ...]
"""A row's values in the schema's order: float, int, bool, str, or None where missing."""


class Runtime(Protocol):
    """A loaded model; `name` is its library's."""

    name: str

    def predict(self, rows: Sequence[Row]) -> Outputs:
        """Return the answers to `rows`, of which there is at least one."""
        ...


@runtime_checkable
class TableRuntime(Protocol):
    """A runtime that takes a table as it is, with no row made of it."""

    def predict_table(self, table: Table) -> Outputs:
        """Return the answers to a table, the same as `predict` gives to its rows."""
        ...


def predict_table(runtime: Runtime, table: Table) -> Outputs:
    """Return a runtime's answers to a table; it gets rows where it cannot take the table."""
    if isinstance(runtime, TableRuntime):
        return runtime.predict_table(table)
    return runtime.predict(table.rows())


def first_line(error: Exception) -> str:
    """Return an error's class and first line: some libraries add a stack trace of their own."""
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0] if said else 'no reason given'}"[:300]


def python_label(label: Any) -> Any:
    """Return a model's class label as an int, str or bool."""
    value = label.item() if isinstance(label, np.generic) else label
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, (bool, int, str)) else str(value)


def reconcile_classes(file: str, native: Sequence[Any], schema: InputSchema) -> list[Any]:
    """Return the labels to answer with, in the model's order.

    They are the model's own; a schema may name classes that the model knows as 0..K-1 only.
    Raises ModelDirectoryError where the schema's classes are not the model's.
    """
    labels = [python_label(label) for label in native]
    if not schema.classes:
        return labels
    return _reconcile(file, labels, list(schema.classes), "classes")


def reconcile_several(
    file: str, natives: Sequence[Sequence[Any]], schema: InputSchema
) -> list[list[Any]]:
    """Return `reconcile_classes` of each of several targets."""
    target_names(len(natives), schema)
    labels = [[python_label(label) for label in native] for native in natives]
    if not schema.classes:
        return labels
    if len(schema.classes) != len(labels) or not isinstance(schema.classes[0], tuple):
        raise ModelDirectoryError(
            "input_schema.json",
            "classes",
            f"it is not one list per target, of which {file} has {len(labels)}",
            "Write a list of classes for each target.",
        )
    return [
        _reconcile(file, ours, list(named), f"classes[{i}]")
        for i, (ours, named) in enumerate(zip(labels, schema.classes, strict=True))
    ]


def _reconcile(file: str, labels: list[Any], named: list[Any], field: str) -> list[Any]:
    if len(named) != len(labels):
        raise ModelDirectoryError(
            "input_schema.json",
            field,
            f"it lists {len(named)} classes, but {file} has {len(labels)}: {labels}",
            "List exactly the model's classes, in its order.",
        )
    if {class_key(label) for label in named} == {class_key(label) for label in labels}:
        return labels
    if labels == list(range(len(labels))):
        return named
    raise ModelDirectoryError(
        "input_schema.json",
        field,
        f"it lists {named}, but the classes of {file} are {labels}",
        "List exactly the model's classes, in its order.",
    )


def check_features(
    file: str, schema: InputSchema, *, names: Sequence[str] | None, count: int | None
) -> None:
    """Compare the features that a model was trained on with the schema's columns.

    `names` and `count` are None where the model does not know them. Raises ModelDirectoryError.
    """
    ours = list(schema.names)
    remedy = "Make the columns of input_schema.json those that the model was trained on, in order."
    field = "columns"
    if names is not None and list(names) != ours:
        missing = [name for name in names if name not in ours]
        extra = [name for name in ours if name not in names]
        parts = []
        if missing:
            parts.append(f"the schema lacks {', '.join(missing)}")
        if extra:
            parts.append(f"the model does not know {', '.join(extra)}")
        if not parts:
            parts.append(f"the order differs: the model's is {', '.join(names)}")
        problem = f"they are not the features of {file}: {'; '.join(parts)}"
        raise ModelDirectoryError("input_schema.json", field, problem, remedy)
    if count is not None and count != len(ours):
        problem = f"there are {len(ours)}, but {file} takes {count} features"
        raise ModelDirectoryError("input_schema.json", field, problem, remedy)


def classification(
    labels: Sequence[Any],
    probabilities: Any,
    *,
    values: list[Any] | None = None,
    name: str | None = None,
) -> TargetOutput:
    """Return a target from an array [rows, classes]; the likeliest class unless `values` says."""
    chances = np.asarray(probabilities)
    if values is None:
        values = [labels[i] for i in chances.argmax(axis=1).tolist()]
    return TargetOutput(name, values, tuple(map(class_key, labels)), chances.tolist())


def target_names(count: int, schema: InputSchema) -> list[str | None]:
    """Return the names of `count` targets; a lone one needs none.

    Raises ModelDirectoryError where the schema names another number of targets.
    """
    named = schema.targets
    if named and len(named) != count:
        raise ModelDirectoryError(
            "input_schema.json",
            "target",
            f"it names {len(named)}, but the model has {count}",
            "Name each of the model's targets, in its order.",
        )
    if count == 1:
        return [None]
    return [*named] or [f"target_{i}" for i in range(count)]


def regression(numbers: Any, schema: InputSchema) -> Outputs:
    """Return outputs from an array of floats [rows] or [rows, targets]."""
    table = np.asarray(numbers, dtype=np.float64)
    if table.ndim == 1:
        table = table[:, None]
    names = target_names(table.shape[1], schema)
    return Outputs(
        [TargetOutput(name, column) for name, column in zip(names, table.T.tolist(), strict=True)]
    )
