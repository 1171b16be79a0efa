"""ONNX graphs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from onrecord.errors import ModelDirectoryError
from onrecord.serving.columns import Column
from onrecord.serving.input_schema import InputSchema
from onrecord.serving.outputs import Outputs, TargetOutput
from onrecord.serving.runtimes import (
    Row,
    check_features,
    classification,
    python_label,
    reconcile_classes,
    regression,
)
from onrecord.serving.runtimes.matrix import to_array
from onrecord.serving.runtimes.onnx_bytes import (
    declared_labels,
    external_tensors,
    is_ort_format,
)
from onrecord.serving.table import Table

__all__ = ["Graph", "OnnxRuntime"]

_DTYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
}
_TAKES: dict[str, tuple[str, ...]] = {
    "tensor(int64)": ("integer", "boolean", "categorical"),
    "tensor(int32)": ("integer", "boolean", "categorical"),
    "tensor(bool)": ("boolean",),
}
_LABELS = ("tensor(int64)", "tensor(string)")
_NUMBERS = ("tensor(float)", "tensor(double)")
_ERRORS_ONLY = 3
_TABLE = 2


def _onnxruntime() -> Any:
    """Import ONNX Runtime without what it tells Microsoft about the models that it runs.

    Its builds do so since 1.29, unless this is set before the first import:
    https://github.com/microsoft/onnxruntime/blob/main/docs/Privacy.md#disabling-telemetry
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    return onnxruntime


class Graph:
    """An ONNX graph that takes a table: one tensor [rows, columns], or one [rows, 1] a column.

    It runs on one thread: a server answers many calls at once, and waiting threads would take the
    processor from them. Raises ModelDirectoryError where its inputs are not the schema's columns,
    and whatever ONNX Runtime does where the bytes are no graph.
    """

    def __init__(self, raw: bytes, schema: InputSchema, file: str) -> None:
        onnxruntime = _onnxruntime()
        if is_ort_format(raw):
            raise ModelDirectoryError(
                file,
                None,
                "it is in ONNX Runtime's own format, whose values may lie in other files",
                "Save the graph as ONNX.",
            )
        if elsewhere := external_tensors(raw):
            raise ModelDirectoryError(
                file,
                elsewhere[0],
                "its values lie in another file, which would not be hashed",
                "Save the graph as one file, with save_as_external_data=False.",
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            raw, options, providers=["CPUExecutionProvider"]
        )
        inputs = self._session.get_inputs()
        for entry in inputs:
            if entry.type not in _DTYPES:
                raise ModelDirectoryError(
                    file,
                    f"input {entry.name}",
                    f"it is a {entry.type}, which no column of a table becomes",
                    f"Export the model with inputs of {', '.join(_DTYPES)}.",
                )
        self.output_types = {entry.name: entry.type for entry in self._session.get_outputs()}
        self._dtype: Any = None
        self._columns: list[tuple[str, Any, Column]] = []
        if len(inputs) == 1:
            self._take_table(inputs[0], schema, file)
        else:
            self._take_columns(inputs, schema, file)
        self._name = inputs[0].name
        self._one_row_only = any(entry.shape[:1] == [1] for entry in inputs)

    def _take_table(self, entry: Any, schema: InputSchema, file: str) -> None:
        width = entry.shape[1] if len(entry.shape) == _TABLE else None
        check_features(file, schema, names=None, count=width if isinstance(width, int) else None)
        self._dtype = _DTYPES[entry.type]
        for column in schema.columns:
            _check_number(column, entry.type, file)
            if self._dtype is np.object_ and not column.textual:
                raise ModelDirectoryError(
                    "input_schema.json",
                    f"columns: {column.name}",
                    f"it is {column.type}, but {file} takes one table of strings",
                    "Make it categorical or text, or export the model with one input a column.",
                )
        if self._dtype is not np.object_ and not schema.numeric_only:
            textual = next(column.name for column in schema.columns if column.textual)
            raise ModelDirectoryError(
                "input_schema.json",
                f"columns: {textual}",
                f"its values are strings, but {file} takes one table of numbers",
                "Encode the column inside the model, or give its categories as integers.",
            )

    def _take_columns(self, inputs: Sequence[Any], schema: InputSchema, file: str) -> None:
        types = {entry.name: entry.type for entry in inputs}
        named = set(types) == set(schema.names)  # a graph of named inputs has no order of its own
        names = list(schema.names) if named else list(types)
        check_features(file, schema, names=names, count=len(names))
        for column in schema.columns:
            dtype = _DTYPES[types[column.name]]
            if column.textual != (dtype is np.object_):
                raise ModelDirectoryError(
                    "input_schema.json",
                    f"columns: {column.name}",
                    f"its values are {'strings' if column.textual else 'numbers'}, "
                    f"but that input of {file} is a {types[column.name]}",
                    "Give the column the type that the model was trained with.",
                )
            _check_number(column, types[column.name], file)
            self._columns.append((column.name, dtype, column))

    def run(self, rows: Sequence[Row], outputs: Sequence[str]) -> list[Any]:
        """Return the named outputs of the graph for `rows`.

        ONNX Runtime multiplies one row by another kernel than several, which adds up in another
        order. A row is never run alone, so that its answer does not depend on its company.
        """
        if len(rows) > 1 or self._one_row_only:
            found: list[Any] = self._session.run(outputs, self._feed(rows))
            return found
        return [answer[:1] for answer in self._session.run(outputs, self._feed([rows[0]] * 2))]

    def run_table(self, table: Table, outputs: Sequence[str]) -> list[Any]:
        """Return the named outputs of the graph for a table, of which no row becomes a tuple."""
        if len(table) == 1:
            return self.run(table.rows(), outputs)
        if self._dtype is np.object_:
            stacked = [[_text(value) for value in array] for array in table.arrays]
            feed = {self._name: np.array(stacked, dtype=object).T}
        elif self._dtype is not None:
            feed = {self._name: table.matrix(self._dtype)}
        else:
            feed = {
                name: _strings([_text(value) for value in array], table)
                if dtype is np.object_
                else array.astype(dtype)[:, None]
                for (name, dtype, _), array in zip(self._columns, table.arrays, strict=True)
            }
        found: list[Any] = self._session.run(outputs, feed)
        return found

    def _feed(self, rows: Sequence[Row]) -> dict[str, Any]:
        if self._dtype is np.object_:
            return {self._name: _strings([_text(value) for row in rows for value in row], rows)}
        if self._dtype is not None:
            return {self._name: to_array(rows, self._dtype)}
        return {
            name: _strings([_text(value) for value in values], rows)
            if dtype is np.object_
            else np.array(values, dtype=dtype)[:, None]
            for (name, dtype, _), values in zip(self._columns, zip(*rows, strict=True), strict=True)
        }


def _check_number(column: Column, kind: str, file: str) -> None:
    """Refuse a column of which the input's type would change the values."""
    if kind in _TAKES and (column.type not in _TAKES[kind] or column.nullable):
        what = f"nullable {column.type}" if column.nullable else column.type
        raise ModelDirectoryError(
            "input_schema.json",
            f"columns: {column.name}.nullable" if column.nullable else f"columns: {column.name}",
            f"it is {what}, but the input of {file} is a {kind}",
            f"Make it one of {', '.join(_TAKES[kind])}, and not nullable; or export the model "
            "with a float input.",
        )


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _strings(values: list[str], rows: Sequence[Row]) -> np.ndarray[Any, Any]:
    return np.array(values, dtype=object).reshape(len(rows), -1)


class OnnxRuntime:
    """A model that came as an ONNX graph.

    A classifier has an output of labels (int64 or string) and may have one of probabilities, as a
    tensor [rows, classes] or as one map a row (ZipMap). A graph with one output of numbers is a
    regression, or a classification where the schema names its classes: then the numbers are the
    probabilities, a lone column that of the second class. A missing number is NaN, a missing
    string is empty. Raises ModelDirectoryError where the schema is not the graph's.
    """

    name = "onnx"

    def __init__(self, raw: bytes, schema: InputSchema, file: str) -> None:
        self._graph = Graph(raw, schema, file)
        self._schema = schema
        types = self._graph.output_types
        self._label = next((name for name, kind in types.items() if kind in _LABELS), None)
        self._numbers = next(
            (name for name, kind in types.items() if kind in _NUMBERS or kind.startswith("seq(")),
            None,
        )
        if self._label is None and self._numbers is None:
            raise ModelDirectoryError(
                file,
                "outputs",
                f"none of them is a table of labels or numbers: {types}",
                "Export the model with a label output, or with one output of numbers.",
            )
        self._wanted = [name for name in (self._label, self._numbers) if name is not None]
        self._labels: list[Any] = []
        self._native: list[Any] = []
        self._named: dict[Any, Any] = {}
        self._maps = self._numbers is not None and types[self._numbers].startswith("seq(")
        if self._label is None and not schema.classes:
            return
        self._native = self._native_labels(raw, file)
        if self._native:
            self._labels = reconcile_classes(file, self._native, schema)
            self._named = dict(zip(self._native, self._labels, strict=True))

    def _native_labels(self, raw: bytes, file: str) -> list[Any]:
        answers = self._graph.run([self._schema.probe_row()], self._wanted)
        if self._label is None:
            width = np.asarray(answers[-1]).reshape(1, -1).shape[1]
            return list(range(max(width, 2)))
        if self._maps:
            return list(answers[-1][0])
        answer = answers[0].ravel().tolist()[0]
        declared = declared_labels(raw)
        if declared is not None and answer in declared:
            return declared
        if self._schema.classes:
            named = [python_label(label) for label in self._schema.classes]
            # A graph that answers with numbers and is not of these classes counts from zero.
            whole = isinstance(answer, int) and not all(type(label) is int for label in named)
            return list(range(len(named))) if whole else named
        if self._numbers is None:
            return []
        raise ModelDirectoryError(
            "input_schema.json",
            "classes",
            f"it is missing, and {file} does not say which class each probability belongs to",
            "List the model's classes in its order.",
        )

    def predict(self, rows: Sequence[Row]) -> Outputs:
        """Return the graph's answers."""
        return self._outputs(self._graph.run(rows, self._wanted))

    def predict_table(self, table: Table) -> Outputs:
        """Return the graph's answers to a table, as `predict` does to its rows."""
        return self._outputs(self._graph.run_table(table, self._wanted))

    def _outputs(self, answers: list[Any]) -> Outputs:
        if not self._labels:
            if self._label is None:
                return regression(answers[0], self._schema)
            return Outputs([TargetOutput(None, [python_label(v) for v in answers[0].ravel()])])
        values = None
        if self._label is not None:
            values = [self._name(label) for label in answers[0].ravel().tolist()]
        if self._numbers is None:
            return Outputs([TargetOutput(None, values or [])])
        numbers = answers[-1]
        if self._maps:
            numbers = np.array([[row[label] for label in self._native] for row in numbers])
        if numbers.ndim == 1 or numbers.shape[1] == 1:
            numbers = np.stack((1 - numbers.ravel(), numbers.ravel()), axis=1)
        return Outputs([classification(self._labels, numbers, values=values)])

    def _name(self, label: Any) -> Any:
        if label not in self._named:
            raise ValueError(f"the graph answered {label!r}, which is none of the classes")
        return self._named[label]
