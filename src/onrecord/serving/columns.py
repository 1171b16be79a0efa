"""One column of a model's input: what it accepts, and what to say of a value it does not accept.

`make_check` and `explain` are two readings of one rule: the first is fast and says only no, the
second is slow and says why. A value passes the one exactly when it passes the other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

__all__ = [
    "INTEGER_LIMIT",
    "NUMBER_LIMIT",
    "Check",
    "Column",
    "ColumnType",
    "Reason",
    "Unfit",
    "Value",
    "explain",
    "is_text",
    "make_check",
]

ColumnType: TypeAlias = Literal["numeric", "boolean", "integer", "categorical", "text"]
Value: TypeAlias = float | int | bool | str | None
Check: TypeAlias = Callable[[Any], Value]

NUMBER_LIMIT = 3.4028235e38
"""The largest number of a numeric column: models compute in 32-bit floats."""

INTEGER_LIMIT = 2**53
"""The largest integer: above it a JSON reader that uses doubles changes the number."""

_SHOWN_CATEGORIES = 20


class Unfit(ValueError):
    """A value does not fit its column; `explain` says why."""


@dataclass(frozen=True, slots=True)
class Column:
    """One input of the model, in the order of the model's features.

    `minimum` and `maximum` are inclusive, None where there is no bound. `categories` are all
    strings or all integers, empty unless the type is "categorical". `example` is a JSON value that
    fits the column, None where none was given. A `subject` column tells whom a row is about; the
    values of a `sensitive` one are shown nowhere.
    """

    name: str
    type: ColumnType
    nullable: bool = False
    minimum: float | int | None = None
    maximum: float | int | None = None
    categories: tuple[str | int, ...] = ()
    description: str | None = None
    unit: str | None = None
    example: Any = None
    subject: bool = False
    sensitive: bool = False

    @property
    def low(self) -> float | int:
        """The smallest number accepted, for a numeric or integer column."""
        limit = INTEGER_LIMIT if self.type == "integer" else NUMBER_LIMIT
        return -limit if self.minimum is None else self.minimum

    @property
    def high(self) -> float | int:
        """The largest number accepted, for a numeric or integer column."""
        limit = INTEGER_LIMIT if self.type == "integer" else NUMBER_LIMIT
        return limit if self.maximum is None else self.maximum

    @property
    def textual(self) -> bool:
        """Whether the column's values are strings."""
        return self.type == "text" or (
            bool(self.categories) and isinstance(self.categories[0], str)
        )

    @property
    def expected(self) -> str:
        """What the column accepts, in words."""
        return _expected(self) + (" or null" if self.nullable else "")


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a value does not fit: a stable code and a sentence."""

    code: str
    detail: str


def is_text(value: str) -> bool:
    """Tell whether a string can be written as UTF-8, thus has no lone surrogate."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def make_check(column: Column) -> Check:
    """Return a function that turns a JSON value into the column's Python value or raises Unfit."""
    check = _make_check(column)
    if not column.nullable:
        return check

    def nullable(value: Any) -> Value:
        return None if value is None else check(value)

    return nullable


def explain(column: Column, value: Any) -> Reason | None:
    """Return why a JSON value does not fit the column, or None where it fits."""
    if value is None:
        if column.nullable:
            return None
        return Reason("null_not_allowed", "It is null, but this column always needs a value.")
    if isinstance(value, float) and not math.isfinite(value):
        return Reason("not_finite", "It is no finite number, or too large to be read as one.")
    match column.type:
        case "numeric":
            reason = _explain_number(column, value)
        case "integer":
            reason = _explain_integer(column, value)
        case "boolean":
            reason = _explain_boolean(value)
        case "categorical":
            reason = _explain_category(column, value)
        case "text":
            reason = _explain_text(value)
    return reason


def _make_check(column: Column) -> Check:
    match column.type:
        case "numeric":
            return _number_check(column.low, column.high)
        case "integer":
            return _integer_check(column.low, column.high)
        case "boolean":
            return _check_boolean
        case "categorical":
            return _category_check(column)
        case "text":
            return _check_text


def _number_check(low: float, high: float) -> Check:
    def check(value: Any) -> Value:
        kind = type(value)
        if (kind is float or kind is int) and low <= value <= high:
            return float(value)
        raise Unfit

    return check


def _integer_check(low: float, high: float) -> Check:
    def check(value: Any) -> Value:
        kind = type(value)
        if kind is int:
            if low <= value <= high:
                return value  # type: ignore[no-any-return]
        elif kind is float and low <= value <= high and value.is_integer():
            return int(value)
        raise Unfit

    return check


def _check_boolean(value: Any) -> Value:
    if value is True or value is False:
        return value
    kind = type(value)
    if (kind is int or kind is float) and (value in {0, 1}):
        return bool(value)
    raise Unfit


def _category_check(column: Column) -> Check:
    members = {category: category for category in column.categories}
    kinds = {str} if column.textual else {int, float}

    def check(value: Any) -> Value:
        # 1.0 finds 1, since equal numbers hash alike; true would too, hence the test of its type.
        if type(value) in kinds and value in members:
            return members[value]
        raise Unfit

    return check


def _check_text(value: Any) -> Value:
    if type(value) is str:
        return value
    raise Unfit


def _explain_number(column: Column, value: Any) -> Reason | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _not_a_number(value, "a number")
    return _explain_range(column, value)


def _explain_integer(column: Column, value: Any) -> Reason | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _not_a_number(value, "an integer")
    if isinstance(value, float) and not value.is_integer():
        return Reason("not_integral", "It has a fractional part, but must be a whole number.")
    return _explain_range(column, value)


def _explain_range(column: Column, value: float) -> Reason | None:
    if value < column.low:
        return Reason("out_of_range", f"It is less than {_plain(column.low)}.")
    if value > column.high:
        return Reason("out_of_range", f"It is greater than {_plain(column.high)}.")
    return None


def _explain_boolean(value: Any) -> Reason | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        if value in {0, 1}:
            return None
        return Reason("wrong_type", "It is a number other than 0 and 1; send true or false.")
    hint = " without quotes" if isinstance(value, str) else ""
    return Reason("wrong_type", f"It is {_kind(value)}; send true or false{hint}.")


def _explain_category(column: Column, value: Any) -> Reason | None:
    if column.textual:
        if not isinstance(value, str):
            return Reason("wrong_type", f"It is {_kind(value)}, but must be a string.")
    elif isinstance(value, bool) or not isinstance(value, int | float):
        return _not_a_number(value, "an integer")
    elif isinstance(value, float) and not value.is_integer():
        return Reason("not_integral", "It has a fractional part, but must be a whole number.")
    if value in column.categories:
        return None
    return Reason("unknown_category", "It is none of the column's categories.")


def _explain_text(value: Any) -> Reason | None:
    if not isinstance(value, str):
        return Reason("wrong_type", f"It is {_kind(value)}, but must be a string.")
    if not is_text(value):
        return Reason("invalid_text", "It has half of a surrogate pair, which is no character.")
    return None


def _not_a_number(value: Any, wanted: str) -> Reason:
    if isinstance(value, str):
        return Reason(
            "wrong_type", f"It is a string, but must be {wanted}; send it without quotes."
        )
    return Reason("wrong_type", f"It is {_kind(value)}, but must be {wanted}.")


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "a list" if isinstance(value, list) else "an object"


def _expected(column: Column) -> str:
    if column.type == "boolean":
        return "true or false"
    if column.type == "text":
        return "a string"
    if column.type == "categorical":
        shown = [json.dumps(c, ensure_ascii=False) for c in column.categories[:_SHOWN_CATEGORIES]]
        more = len(column.categories) - len(shown)
        return f"one of {', '.join(shown)}" + (f" and {more} more" if more else "")
    noun = "an integer" if column.type == "integer" else "a number"
    return f"{noun} from {_plain(column.low)} to {_plain(column.high)}"


def _plain(number: float) -> str:
    return json.dumps(number)
