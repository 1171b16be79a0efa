"""What the bytes of an ONNX graph say that ONNX Runtime does not tell.

ONNX is protobuf, of which only the wire format is read here: the package `onnx` is a compiler's
need and not a server's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["declared_labels", "external_tensors", "is_ort_format"]

_GRAPH, _NODE, _ATTRIBUTE, _TENSOR, _SPARSE, _FUNCTION, _TRAINING = range(7)
_MODEL = 7

# Where messages lie in messages: {kind: {field number: kind}}, by onnx.proto.
_CHILDREN: dict[int, dict[int, int]] = {
    _MODEL: {7: _GRAPH, 20: _TRAINING, 25: _FUNCTION},
    _GRAPH: {1: _NODE, 5: _TENSOR, 15: _SPARSE},
    _FUNCTION: {7: _NODE, 11: _ATTRIBUTE},
    _TRAINING: {1: _GRAPH, 2: _GRAPH},
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE},
    _SPARSE: {1: _TENSOR, 2: _TENSOR},
    _TENSOR: {},
}
_TENSOR_NAME, _EXTERNAL_DATA, _DATA_LOCATION = 8, 13, 14
_ATTRIBUTE_NAME, _INTS, _STRINGS = 1, 8, 9
_VARINT, _LENGTH = 0, 2
_SIZES = {1: 8, 5: 4}
_VARINT_BITS = 64


def is_ort_format(raw: bytes) -> bool:
    """Tell whether the bytes are ONNX Runtime's own format, which it reads as readily as ONNX."""
    return raw[4:8] == b"ORTM"


def external_tensors(raw: bytes) -> list[str]:
    """Return the names of the tensors whose values lie in other files; raises ValueError."""
    found = []
    for kind, message in _walk(memoryview(raw), _MODEL):
        if kind == _TENSOR:
            fields = list(_fields(message))
            if any(n == _EXTERNAL_DATA or (n == _DATA_LOCATION and value) for n, value in fields):
                found += [bytes(v).decode() for n, v in fields if n == _TENSOR_NAME] or ["?"]
    return found


def declared_labels(raw: bytes) -> list[Any] | None:
    """Return the labels written in the graph's one classifier, None where none or several are."""
    found: list[list[Any]] = []
    for kind, message in _walk(memoryview(raw), _MODEL):
        if kind != _ATTRIBUTE:
            continue
        fields = list(_fields(message))
        name = next((bytes(v) for n, v in fields if n == _ATTRIBUTE_NAME), b"")
        if name in {b"classlabels_ints", b"classlabels_int64s"}:
            found.append([signed for n, v in fields if n == _INTS for signed in _integers(v)])
        elif name == b"classlabels_strings":
            found.append([bytes(value).decode() for n, value in fields if n == _STRINGS])
    labels = [entry for entry in found if entry]
    return labels[0] if len(labels) == 1 else None


def _walk(message: memoryview, kind: int) -> Iterator[tuple[int, memoryview]]:
    """Yield every message with its kind."""
    yield kind, message
    children = _CHILDREN[kind]
    for number, value in _fields(message):
        if number in children:
            yield from _walk(memoryview(value), children[number])


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """Yield each field's number and value: an int, or the bytes of anything else."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        wire = key & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if wire == _LENGTH:
            size, at = _varint(message, at)
        elif wire in _SIZES:
            size = _SIZES[wire]
        else:
            raise ValueError("it is not protobuf")
        if at + size > len(message):
            raise ValueError("it is cut short")
        yield key >> 3, message[at : at + size]
        at += size


def _integers(value: Any) -> list[int]:
    """Return the signed integers of a repeated field's entry, packed or not."""
    if isinstance(value, int):
        return [_signed(value)]
    found, at = [], 0
    while at < len(value):
        number, at = _varint(value, at)
        found.append(_signed(number))
    return found


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(message):
            raise ValueError("it is cut short")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the bit that says there is more
            return value, at
        shift += 7
        if shift >= _VARINT_BITS:
            raise ValueError("it is not protobuf")
