"""How one column is read from the schema file, and what every entry of that file has in common."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, get_args

from onrecord.errors import ModelDirectoryError
from onrecord.serving.columns import INTEGER_LIMIT, NUMBER_LIMIT, Column, ColumnType, explain

__all__ = ["RESERVED_NAMES", "ColumnReader", "EntryReader"]

_COLUMN_KEYS = (
    "name",
    "type",
    "nullable",
    "minimum",
    "maximum",
    "categories",
    "description",
    "unit",
    "example",
    "subject",
    "sensitive",
)

RESERVED_NAMES = ("rows", "columns")
"""The keys by which a JSON body is known to hold many rows."""


@dataclass(frozen=True, slots=True)
class EntryReader:
    """Reads entries of the file called `file`; every method raises ModelDirectoryError."""

    file: str

    def text(self, entry: dict[str, Any], key: str, prefix: str) -> str | None:
        """Return the string at `key`, which must not be blank, or None where there is none."""
        if key not in entry:
            return None
        value = entry[key]
        if not isinstance(value, str) or not value.strip():
            raise self.error(
                f"{prefix}{key}", "it is not a string with something in it", "Write it in quotes."
            )
        return value

    def object(self, value: Any, field: str | None) -> dict[str, Any]:
        """Return `value`, which must be a JSON object."""
        if not isinstance(value, dict):
            raise self.error(field, "it is not a JSON object", "Write an object: {...}.")
        return value

    def known(self, entry: dict[str, Any], prefix: str, known: tuple[str, ...]) -> None:
        """Refuse every key of `entry` that is not in `known`."""
        for key in entry:
            if key not in known:
                raise self.error(
                    f"{prefix}{key}", "there is no such key", f"Known here: {', '.join(known)}."
                )

    def error(self, field: str | None, problem: str, remedy: str) -> ModelDirectoryError:
        """Return the error that names the file, the field, the problem and the remedy."""
        return ModelDirectoryError(self.file, field, problem, remedy)


class ColumnReader(EntryReader):
    """Reads the entries of "columns"."""

    def read(self, entry: Any, place: str) -> Column:
        """Return the column that an entry of "columns" describes; `place` is its field."""
        entry = self.object(entry, place)
        self.known(entry, f"{place}.", _COLUMN_KEYS)
        name = self.text(entry, "name", f"{place}.")
        if name is None:
            raise self.error(f"{place}.name", "it is missing", "Give the column a name.")
        if name in RESERVED_NAMES:
            raise self.error(
                f"{place}.name",
                f'"{name}" cannot name a column: a body with that key holds many rows',
                "Rename the column.",
            )
        kind = entry.get("type")
        if kind not in get_args(ColumnType):
            known = ", ".join(get_args(ColumnType))
            problem = f"{kind!r} is not a type" if "type" in entry else "it is missing"
            raise self.error(f"{place}.type", problem, f"Use one of {known}.")
        column = Column(
            name=name,
            type=kind,
            nullable=self._flag(entry, "nullable", place),
            minimum=self._bound(entry, "minimum", kind, place),
            maximum=self._bound(entry, "maximum", kind, place),
            categories=self._categories(entry, kind, place),
            description=self.text(entry, "description", f"{place}."),
            unit=self.text(entry, "unit", f"{place}."),
            example=entry.get("example"),
            subject=self._flag(entry, "subject", place),
            sensitive=self._flag(entry, "sensitive", place),
        )
        self._check_range(column, place)
        if column.sensitive and "example" in entry:
            raise self.error(
                f"{place}.example", "a sensitive column shows no value", "Remove the example."
            )
        if "example" in entry and (reason := explain(column, column.example)):
            raise self.error(
                f"{place}.example", reason.detail, f"Give {column.expected} as the example."
            )
        return column

    def _flag(self, entry: dict[str, Any], key: str, place: str) -> bool:
        value = entry.get(key, False)
        if not isinstance(value, bool):
            raise self.error(f"{place}.{key}", "it is not a boolean", "Write true or false.")
        return value

    def _bound(self, entry: dict[str, Any], key: str, kind: str, place: str) -> float | int | None:
        if key not in entry:
            return None
        value = entry[key]
        if kind not in {"numeric", "integer"}:
            raise self.error(
                f"{place}.{key}",
                f"a column of type {kind} has no order",
                "Remove it, or make the column numeric or integer.",
            )
        limit = INTEGER_LIMIT if kind == "integer" else NUMBER_LIMIT
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(f"{place}.{key}", "it is not a number", "Write a number.")
        if not -limit <= value <= limit:
            raise self.error(
                f"{place}.{key}",
                "no value of this type can be that large",
                f"Write a number from {-limit} to {limit}, or remove it.",
            )
        return value

    def _check_range(self, column: Column, place: str) -> None:
        low, high = column.low, column.high
        if low > high:
            raise self.error(
                f"{place}.minimum", f"{low} is more than the maximum, {high}", "Swap the two."
            )
        if column.type == "integer" and math.ceil(low) > math.floor(high):
            raise self.error(
                f"{place}.minimum",
                f"there is no integer from {low} to {high}",
                "Widen the range, or make the column numeric.",
            )

    def _categories(self, entry: dict[str, Any], kind: str, place: str) -> tuple[str | int, ...]:
        field = f"{place}.categories"
        if kind != "categorical":
            if "categories" in entry:
                raise self.error(
                    field, f"a column of type {kind} has none", 'Make its type "categorical".'
                )
            return ()
        listed = entry.get("categories")
        if not isinstance(listed, list) or not listed:
            raise self.error(
                field, "it is missing or not a list with at least one", "List the categories."
            )
        if {type(category) for category in listed} not in ({str}, {int}):
            raise self.error(
                field, "they are not all strings or all integers", "Use one of the two for all."
            )
        if isinstance(listed[0], int) and max(map(abs, listed)) > INTEGER_LIMIT:
            raise self.error(
                field, f"an integer exceeds {INTEGER_LIMIT}", "Use strings as categories."
            )
        if len(set(listed)) < len(listed):
            raise self.error(field, "a category is listed twice", "List each once.")
        return tuple(listed)
