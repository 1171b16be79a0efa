"""Conditions on a column's value, as people write them: `age>=50`."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

__all__ = ["COMPARE", "Condition"]

_FORM = re.compile(r"(.+?)(!=|<=|>=|=|<|>)(.*)", re.DOTALL)

COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": lambda one, other: bool(one == other),
    "!=": lambda one, other: bool(one != other),
    "<": lambda one, other: one is not None and bool(operator.lt(one, other)),
    ">": lambda one, other: one is not None and bool(operator.gt(one, other)),
    "<=": lambda one, other: one is not None and bool(operator.le(one, other)),
    ">=": lambda one, other: one is not None and bool(operator.ge(one, other)),
}
"""What each comparison says of a value and the one it is compared with; nothing is below null."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What a column's value is to be: `value` is text, `null` where it is to be missing."""

    column: str
    compare: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the condition that a text has; raises ValueError where it has none."""
        found = _FORM.fullmatch(text)
        if found is None:
            raise ValueError("write COLUMN=VALUE, or !=, <, <=, >, >= in place of =")
        condition = cls(found[1].strip(), found[2], found[3].strip())
        if condition.value == "null" and condition.compare not in {"=", "!="}:
            raise ValueError("null is neither more nor less than anything")
        return condition

    def holds(self, value: Any) -> bool:
        """Tell whether it holds for a value as JSON has it, whose type says how to compare.

        A number is never more or less than a text.
        """
        compare = COMPARE[self.compare]
        if self.value == "null" or value is None:
            return compare(value, None if self.value == "null" else self.value)
        if isinstance(value, bool):
            return compare(str(value).lower(), self.value.lower())
        number = self._number()
        if isinstance(value, int | float):
            return self.compare == "!=" if number is None else compare(value, number)
        if number is not None and self.compare not in {"=", "!="}:
            return False
        return compare(str(value), self.value)

    def _number(self) -> float | None:
        try:
            return float(self.value)
        except ValueError:
            return None

    def __str__(self) -> str:
        return f"{self.column}{self.compare}{self.value}"
