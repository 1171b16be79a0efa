"""The schema file of a model directory: which columns the model takes, in which order."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from onrecord.serving.column_reader import ColumnReader, EntryReader
from onrecord.serving.columns import Column, Value, make_check

__all__ = ["InputSchema", "Label", "Task", "parse_input_schema"]

Task: TypeAlias = Literal["classification", "regression"]
Label: TypeAlias = str | int | bool

_EXTRA_KEYS = ("classes", "target", "task", "name", "version")


@dataclass(frozen=True)
class InputSchema:
    """What a model takes and, as far as the schema file says, what it answers.

    `classes` are labels in the model's order, or one tuple of labels per target; None where the
    file names none. `targets` is empty where the file names none.
    """

    columns: tuple[Column, ...]
    task: Task | None = None
    classes: tuple[Label, ...] | tuple[tuple[Label, ...], ...] | None = None
    targets: tuple[str, ...] = ()
    name: str | None = None
    version: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names, in the order of the model's features."""
        return tuple(column.name for column in self.columns)

    @property
    def numeric_only(self) -> bool:
        """Whether no column holds strings."""
        return not any(column.textual for column in self.columns)

    @property
    def sensitive(self) -> bool:
        """Whether any column is sensitive: then no input is shown or recorded as it came."""
        return any(column.sensitive for column in self.columns)

    def example_row(self) -> dict[str, Any]:
        """Return a row that validates, as JSON values by column name."""
        return {column.name: _example(column) for column in self.columns}

    def probe_row(self) -> tuple[Value, ...]:
        """Return the example row as the model gets it: Python values in column order."""
        return tuple(make_check(column)(_example(column)) for column in self.columns)


def parse_input_schema(raw: bytes, file: str) -> InputSchema:
    """Read the bytes of a schema file; `file` is what messages call it.

    Raises ModelDirectoryError at the first thing wrong, naming the field.
    """
    return _Reader(file).read(raw)


def _example(column: Column) -> Any:
    if column.example is not None:
        return column.example
    match column.type:
        case "boolean":
            return True
        case "categorical":
            return column.categories[0]
        case "text":
            return "text"
        case "integer":
            low, high = math.ceil(column.low), math.floor(column.high)
            middle = (low + high) // 2 if _bounded(column) else 0
            return min(max(middle, low), high)
        case "numeric":
            middle_number = column.low / 2 + column.high / 2 if _bounded(column) else 0.0
            return min(max(middle_number, column.low), column.high)


def _bounded(column: Column) -> bool:
    return column.minimum is not None and column.maximum is not None


class _Reader(EntryReader):
    def read(self, raw: bytes) -> InputSchema:
        document = self.object(self._json(raw), None)
        self.known(document, "", ("input_schema", *_EXTRA_KEYS))
        if "input_schema" not in document:
            raise self.error(
                "input_schema", "it is missing", 'Write {"input_schema": {"columns": [...]}}.'
            )
        inner = self.object(document["input_schema"], "input_schema")
        self.known(inner, "input_schema.", ("columns", *_EXTRA_KEYS))
        for key in _EXTRA_KEYS:
            if key in document and key in inner:
                raise self.error(
                    key, "it stands both inside and beside input_schema", "Keep one of the two."
                )
        extras = {key: value for key, value in (document | inner).items() if key in _EXTRA_KEYS}
        targets = self._targets(extras)
        task = self._task(extras)
        return InputSchema(
            columns=self._columns(inner),
            task=task,
            classes=self._classes(extras, task, targets),
            targets=targets,
            name=self.text(extras, "name", ""),
            version=self.text(extras, "version", ""),
        )

    def _json(self, raw: bytes) -> Any:
        def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            found: dict[str, Any] = {}
            for key, value in pairs:
                if key in found:
                    raise self.error(
                        None, f"the key {key!r} stands twice in one object", "Remove one."
                    )
                found[key] = value
            return found

        def refuse(literal: str) -> Any:
            raise self.error(None, f"{literal} is not JSON", "Write a finite number.")

        try:
            document = json.loads(
                raw.decode("utf-8-sig"), object_pairs_hook=unique, parse_constant=refuse
            )
            json.dumps(document, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise self.error(
                None, "a string has half of a surrogate pair", "Remove that escape."
            ) from error
        except UnicodeDecodeError as error:
            raise self.error(None, "it is not UTF-8", "Save the file as UTF-8.") from error
        except (ValueError, RecursionError) as error:
            raise self.error(None, f"it is not JSON: {error}", "Correct the JSON.") from error
        return document

    def _columns(self, inner: dict[str, Any]) -> tuple[Column, ...]:
        listed = inner.get("columns")
        if not isinstance(listed, list) or not listed:
            raise self.error(
                "columns",
                "it is missing or not a list with at least one column",
                "List the model's columns in the order of its features.",
            )
        reader = ColumnReader(self.file)
        columns: list[Column] = []
        places: dict[str, int] = {}
        for place, entry in enumerate(listed):
            column = reader.read(entry, f"columns[{place}]")
            if column.name in places:
                raise self.error(
                    f"columns[{place}].name",
                    f"{column.name!r} is also the name of columns[{places[column.name]}]",
                    "Give every column a name of its own.",
                )
            places[column.name] = place
            columns.append(column)
        return tuple(columns)

    def _targets(self, extras: dict[str, Any]) -> tuple[str, ...]:
        if "target" not in extras:
            return ()
        listed = extras["target"]
        names = listed if isinstance(listed, list) else [listed]
        if not names or not all(isinstance(name, str) and name.strip() for name in names):
            raise self.error(
                "target", "it is neither a name nor a list of names", "Write a name in quotes."
            )
        if len(set(names)) < len(names):
            raise self.error("target", "a name is listed twice", "List each target once.")
        return tuple(names)

    def _task(self, extras: dict[str, Any]) -> Task | None:
        task = extras.get("task")
        if "task" in extras and task not in get_args(Task):
            raise self.error("task", f"{task!r} is not a task", f"Use one of {get_args(Task)}.")
        return task

    def _classes(
        self, extras: dict[str, Any], task: Task | None, targets: tuple[str, ...]
    ) -> tuple[Label, ...] | tuple[tuple[Label, ...], ...] | None:
        if "classes" not in extras:
            return None
        if task == "regression":
            raise self.error(
                "classes", "a regression has none", 'Remove them, or make task "classification".'
            )
        listed = extras["classes"]
        if not isinstance(listed, list) or not any(isinstance(entry, list) for entry in listed):
            return self._labels(listed, "classes")
        if targets and len(targets) != len(listed):
            raise self.error(
                "classes",
                f"it has {len(listed)} lists for {len(targets)} targets",
                "Write one list of classes per target.",
            )
        return tuple(self._labels(entry, f"classes[{i}]") for i, entry in enumerate(listed))

    def _labels(self, listed: Any, field: str) -> tuple[Label, ...]:
        if not isinstance(listed, list) or not listed:
            raise self.error(
                field, "it is not a list with at least one class", "List the model's classes."
            )
        for place, label in enumerate(listed):
            if not isinstance(label, str | int):
                raise self.error(
                    f"{field}[{place}]",
                    "it is not a string, an integer or a boolean",
                    "Write the class as the model's answer should show it.",
                )
        if len({(type(label), label) for label in listed}) < len(listed):
            raise self.error(field, "a class is listed twice", "List each class once.")
        return tuple(listed)
