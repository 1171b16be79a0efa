"""Which prediction an entity's outcome is about: the latest of its rows that came before it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from onrecord.errors import Fault, InvalidInput
from onrecord.insight.recorded_calls import Meant, recorded_calls, row_id
from onrecord.record.database import Database
from onrecord.record.ids import time_of
from onrecord.record.model_versions import input_schemas, versions_of
from onrecord.serving.input_schema import parse_input_schema
from onrecord.serving.model_files import SCHEMA_FILE
from onrecord.serving.outputs import class_key
from onrecord.serving.subjects import values_in_json

__all__ = ["Entities", "check_key_column", "predictions_of"]


@dataclass
class Entities:
    """The predictions of some entities, by the value of their key column as text."""

    _found: dict[str, list[tuple[datetime, str]]] = field(default_factory=dict)

    def add(self, key: str, prediction_id: str) -> None:
        """Note a prediction of an entity; they come in the order of the record."""
        self._found.setdefault(key, []).append((time_of(prediction_id), prediction_id))

    def prediction(self, key: str, before: datetime | None) -> str | None:
        """Return an entity's latest prediction, made before a moment where one is given."""
        found = self._found.get(key, [])
        last = len(found) if before is None else bisect_right(found, before, key=lambda it: it[0])
        return found[last - 1][1] if last else None


def check_key_column(database: Database, model: str, column: str) -> None:
    """Raise NotFound where no model of that name is on record, InvalidInput where no column."""
    with database.read() as connection:
        versions_of(connection, model)
        schemas = [raw for _, name, raw in input_schemas(connection) if name == model]
    names = {name for raw in schemas for name in parse_input_schema(raw, SCHEMA_FILE).names}
    if column not in names:
        detail = "The input of no version of the model has such a column."
        fault = Fault("/key_column", "unknown_field", detail, ", ".join(sorted(names)))
        raise InvalidInput("The key column does not fit.", faults=(fault,))


def predictions_of(  # noqa: PLR0913 - where from, of whom, and how
    database: Database,
    meant: Meant,
    column: str,
    keys: Collection[str],
    *,
    reveal: Callable[[bytes], bytes] = lambda raw: raw,
    advance: Callable[[int], object] = lambda _: None,
) -> Entities:
    """Return the predictions of the entities that have `keys` in a column of their input.

    The record is read once; calls in another form than JSON are passed by. `advance` is told of
    calls as they go.
    """
    wanted = frozenset(keys)
    entities = Entities()
    for calls in recorded_calls(database, meant, reveal):
        for call in calls:
            for place, value in enumerate(_values(call.input, column)):
                key = class_key(value)
                if key in wanted:
                    entities.add(key, row_id(call, place))
        advance(len(calls))
    return entities


def _values(raw: bytes | None, column: str) -> list[Any]:
    try:
        return values_in_json(raw or b"", column)
    except (ValueError, TypeError, AttributeError):
        return []
