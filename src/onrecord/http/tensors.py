"""Tensors of the Open Inference Protocol: as JSON holds them, and as the bytes after it.

Source: Open Inference Protocol V2, "Tensor Data" and "Binary Tensor Data Extension".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onrecord.errors import CallError
from onrecord.http.translation import misshapen
from onrecord.serving.columns import Column
from onrecord.serving.outputs import Outputs, TargetOutput, class_key
from onrecord.serving.strict_json import shown

__all__ = ["DATATYPES", "Output", "binary_of", "datatype_of", "outputs_of", "shape_of", "values_of"]

_DTYPES: Mapping[str, str] = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
DATATYPES = (*_DTYPES, "BYTES")
"""The datatypes that are read here."""

_PYTHON_TYPES: Mapping[str, type] = {"BOOL": bool, "INT64": int, "FP64": float}
_MOST_DIMENSIONS = 2
_LENGTH_BYTES = 4
_BOOLEANS = ({"true"}, {"false"}, {"true", "false"})


@dataclass(frozen=True, slots=True)
class Output:
    """One output tensor of a model, for any number of rows.

    `target` is None where the model has one target only; `classes` are those of the columns of a
    tensor of probabilities, None for one of predictions.
    """

    name: str
    datatype: str
    target: str | None
    classes: tuple[str, ...] | None = None

    def values(self, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Return the tensor's values, row by row, from the answers to the rows in JSON.

        Raises KeyError or ValueError where those are of another model.
        """
        key = "prediction" if self.classes is None else "probabilities"
        told = [row[key] if self.target is None else row[key][self.target] for row in rows]
        if self.classes is not None:
            return [row[name] for row in told for name in self.classes]
        if self.datatype == "BYTES":
            return [class_key(value) for value in told]
        if not all(type(value) is _PYTHON_TYPES[self.datatype] for value in told):
            raise ValueError(self.name)
        return told

    def shape(self, rows: int) -> list[int]:
        """Return its shape for that many rows; -1 stands for any number."""
        return [rows] if self.classes is None else [rows, len(self.classes)]


def outputs_of(sample: Outputs) -> list[Output]:
    """Return the output tensors of a model, of which there is an answer to one row."""
    found = []
    for target in sample.targets:
        suffix = "" if target.name is None else f"_{target.name}"
        found.append(Output(f"prediction{suffix}", _datatype_of_target(target), target.name))
        if target.classes is not None and target.probabilities is not None:
            name = f"probabilities{suffix}"
            found.append(Output(name, "FP64", target.name, target.classes))
    return found


def _datatype_of_target(target: TargetOutput) -> str:
    """Return the datatype of predictions, which is the same whichever class is answered."""
    value, classes = target.values[0], target.classes or ()
    if isinstance(value, float):
        return "FP64"
    if isinstance(value, bool):
        return "BOOL" if not classes or set(classes) in _BOOLEANS else "BYTES"
    whole = all(name.removeprefix("-").isdigit() for name in classes)
    return "INT64" if isinstance(value, int) and whole else "BYTES"


def datatype_of(column: Column) -> str:
    """Return the datatype of a column's tensor."""
    if column.textual:
        return "BYTES"
    return {"numeric": "FP64", "boolean": "BOOL"}.get(column.type, "INT64")


def shape_of(tensor: Mapping[str, Any], place: str) -> list[int]:
    """Return the shape of an input tensor, which has one or two dimensions."""
    shape = tensor.get("shape")
    fits = isinstance(shape, list) and 0 < len(shape) <= _MOST_DIMENSIONS
    if not fits or not all(type(size) is int and size >= 0 for size in shape or ()):
        expected = "[rows], [rows, 1] or [rows, columns]"
        detail = "It must be a list of one or two sizes."
        raise misshapen(f"{place}/shape", detail, expected, shown(shape))
    return list(shape or ())


def values_of(
    tensor: Mapping[str, Any], shape: Sequence[int], binary: memoryview | None, place: str
) -> list[Any]:
    """Return the values of an input tensor in one list, row by row.

    `binary` are its bytes where they came after the JSON. Raises InvalidInput.
    """
    datatype = tensor.get("datatype")
    if datatype not in DATATYPES:
        expected = f"one of {', '.join(DATATYPES)}"
        detail = "It is no datatype that is read here."
        raise misshapen(f"{place}/datatype", detail, expected, shown(datatype))
    if binary is not None:
        values = _unpacked(datatype, binary, math.prod(shape), place)
    else:
        values = _flat(tensor.get("data"), len(shape), f"{place}/data")
        _check_types(datatype, values, f"{place}/data")
    if len(values) != math.prod(shape):
        detail = f"The tensor has {len(values)} values, but its shape is for {math.prod(shape)}."
        raise misshapen(f"{place}/data", detail, f"{math.prod(shape)} values")
    return values


def _flat(data: Any, dimensions: int, place: str) -> list[Any]:
    if not isinstance(data, list):
        received = None if data is None else shown(data)
        raise misshapen(place, "It must be a list of the tensor's values.", "a list", received)
    if dimensions == _MOST_DIMENSIONS and data and all(isinstance(row, list) for row in data):
        return [value for row in data for value in row]
    return data


def _check_types(datatype: str, values: Sequence[Any], place: str) -> None:
    """Raise InvalidInput where a JSON value is not of the datatype; null is a missing value."""
    fits: set[type] = {type(None)}
    if datatype == "BOOL":
        fits.add(bool)
    elif datatype == "BYTES":
        fits.add(str)
    else:
        fits.add(int)
        if datatype.startswith("FP"):
            fits.add(float)
    for n, value in enumerate(values):
        kind = float if isinstance(value, float) else type(value)
        if kind not in fits:
            detail = f"It is no value of {datatype}."
            raise misshapen(f"{place}/{n}", detail, f"a value of {datatype}", shown(value))


def _unpacked(datatype: str, raw: memoryview, count: int, place: str) -> list[Any]:
    """Return so many values, or one more or fewer where there are; raises InvalidInput."""
    if datatype != "BYTES":
        dtype = np.dtype(_DTYPES[datatype])
        if len(raw) != count * dtype.itemsize:
            detail = f"Its {len(raw)} bytes are not {count} values of {datatype}."
            raise misshapen(place, detail, f"{count * dtype.itemsize} bytes")
        if datatype == "BOOL":
            dtype = np.dtype(np.uint8)
        numbers = np.frombuffer(raw, dtype)
        values: list[Any] = (numbers != 0 if datatype == "BOOL" else numbers).tolist()
        return values
    found: list[Any] = []
    at = 0
    while at < len(raw) and len(found) <= count:
        start = at + _LENGTH_BYTES
        end = start + int.from_bytes(raw[at:start], "little")
        if end > len(raw) or start > len(raw):
            detail = "Its bytes end within a value; each is its length in 4 bytes, then itself."
            raise misshapen(place, detail)
        try:
            found.append(bytes(raw[start:end]).decode())
        except UnicodeDecodeError:
            raise _not_text(f"{place}/data/{len(found)}") from None
        at = end
    return found


def _not_text(place: str) -> CallError:
    return misshapen(place, "It is not UTF-8, as every string here is.", "a string in UTF-8")


def binary_of(datatype: str, values: Sequence[Any]) -> bytes:
    """Return a tensor's values as the bytes that follow the JSON."""
    if datatype != "BYTES":
        return np.array(values, dtype=_DTYPES[datatype]).tobytes()
    raw = [value.encode() for value in values]
    return b"".join([len(it).to_bytes(_LENGTH_BYTES, "little") + it for it in raw])
