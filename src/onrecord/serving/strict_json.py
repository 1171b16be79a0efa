"""JSON read slowly and exactly: nothing that could mean two things passes.

The numbers that JSON or a double cannot hold (NaN, Infinity, 1e999) become a `Literal`, so that the
field which has one can be named.
"""

from __future__ import annotations

import json
import math
from typing import Any, Self

from onrecord.errors import MalformedJson

__all__ = ["Literal", "read_strictly", "shown"]

_LONG_INTEGER = 300
"""Digits up to which an integer is read exactly; no column takes more than 39."""

_SHOWN = 80


class Literal(float):
    """A number that remembers how it was written."""

    __slots__ = ("text",)

    text: str

    def __new__(cls, text: str) -> Self:
        """Read the number as a double, infinite where it is too large for one."""
        number = super().__new__(cls, text)
        number.text = text
        return number


def read_strictly(body: bytes) -> Any:
    """Return the value that a body holds.

    Raises MalformedJson where the body is not UTF-8, not JSON, nested too deeply, or has one key
    twice in one object.
    """
    if not body.strip(b" \t\r\n"):
        raise MalformedJson("The body is empty; send one row as a JSON object.")
    try:
        text = body.decode()
        return json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=Literal,
            parse_float=_float,
            parse_int=_integer,
        )
    except UnicodeDecodeError as error:
        raise MalformedJson(
            f"The body is not UTF-8: byte {error.start} starts no character."
        ) from error
    except json.JSONDecodeError as error:
        raise MalformedJson(
            f"The body is not JSON: {error.msg}, at line {error.lineno}, column {error.colno}."
        ) from error
    except RecursionError as error:
        raise MalformedJson("The body is nested too deeply.") from error


def shown(value: Any) -> str:
    """Return a value as JSON, cut to 80 characters."""
    if isinstance(value, Literal):
        return _cut(value.text)
    try:
        text = json.dumps(value, ensure_ascii=False)
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(value)
    except RecursionError:
        text = "[...]" if isinstance(value, list) else "{...}"
    return _cut(text)


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise MalformedJson(f"The key {shown(key)} stands twice in one object.")
            seen.add(key)
    return found


def _float(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else Literal(text)


def _integer(text: str) -> int | float:
    # Reading an integer takes time that grows with the square of its digits.
    return int(text) if len(text) <= _LONG_INTEGER else Literal(text)
