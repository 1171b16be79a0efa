"""Structures in Thrift's compact protocol, as Parquet writes them.

Source: "Thrift compact protocol encoding" in the Apache Thrift specification.
"""

from __future__ import annotations

from typing import Any

from onrecord.serving.bounds import Damaged

__all__ = ["read_structure"]

_MAX_DEPTH = 16
_STOP, _TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY = range(9)
_LISTS = (9, 10)
_STRUCT = 12
_LONG_LIST = 15
_SIZES = {_BYTE: 1, _DOUBLE: 8}


def read_structure(raw: bytes, at: int) -> tuple[dict[int, Any], int]:
    """Return the structure that starts at a place in `raw`, and where it stops.

    It is a dictionary by field number: integers, booleans, bytes, lists and structures; None for
    what is of another type. Raises Damaged.
    """
    return _Reader(raw).structure(at, 0)


class _Reader:
    """Every method returns where it stopped."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def structure(self, at: int, depth: int) -> tuple[dict[int, Any], int]:
        if depth > _MAX_DEPTH:
            raise Damaged("it is nested too deeply")
        fields: dict[int, Any] = {}
        number = 0
        while (head := self._byte(at)) != _STOP:
            at += 1
            kind, step = head & 0x0F, head >> 4
            if step:
                number += step
            else:
                number, at = self._integer(at)
            if kind in (_TRUE, _FALSE):
                fields[number] = kind == _TRUE
            else:
                fields[number], at = self._value(kind, at, depth)
        return fields, at + 1

    def _value(self, kind: int, at: int, depth: int) -> tuple[Any, int]:
        if kind in (_I16, _I32, _I64):
            return self._integer(at)
        if kind == _BINARY:
            length, at = self._varint(at)
            if length > len(self._raw) - at:
                raise Damaged("it is cut off")
            return self._raw[at : at + length], at + length
        if kind == _STRUCT:
            return self.structure(at, depth + 1)
        if kind in _LISTS:
            return self._list(at, depth + 1)
        if kind not in _SIZES:
            raise Damaged("its metadata cannot be read")
        return None, at + _SIZES[kind]

    def _list(self, at: int, depth: int) -> tuple[list[Any], int]:
        if depth > _MAX_DEPTH:
            raise Damaged("it is nested too deeply")
        head = self._byte(at)
        count, kind, at = head >> 4, head & 0x0F, at + 1
        if count == _LONG_LIST:
            count, at = self._varint(at)
        if count > len(self._raw) - at:  # each takes at least a byte
            raise Damaged("it is cut off")
        found = []
        for _ in range(count):
            # An element that is a boolean takes a byte, unlike a field.
            value, at = self._value(_BYTE if kind in (_TRUE, _FALSE) else kind, at, depth)
            found.append(value)
        return found, at

    def _byte(self, at: int) -> int:
        if not 0 <= at < len(self._raw):
            raise Damaged("it is cut off")
        return self._raw[at]

    def _varint(self, at: int) -> tuple[int, int]:
        found = shift = 0
        while True:
            byte = self._byte(at)
            at += 1
            found |= (byte & 0x7F) << shift
            if byte < 0x80:  # noqa: PLR2004 - the bit that says that more follows
                return found, at
            shift += 7
            if shift > 63:  # noqa: PLR2004 - no number here is longer
                raise Damaged("its metadata cannot be read")

    def _integer(self, at: int) -> tuple[int, int]:
        found, at = self._varint(at)
        return (found >> 1) ^ -(found & 1), at
