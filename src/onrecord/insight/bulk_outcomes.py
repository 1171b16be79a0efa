"""Outcomes of many predictions: which of them can be true, and all that can on record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from onrecord.errors import InvalidInput
from onrecord.insight.entities import Entities
from onrecord.insight.outcome_bodies import OutcomeRow
from onrecord.insight.outcome_values import checked_outcome
from onrecord.insight.recorded_calls import RecordedAnswer, decoded_answers
from onrecord.record import outcomes, reader
from onrecord.record.by import By
from onrecord.record.database import Database
from onrecord.record.ids import request_id_of, row_of
from onrecord.record.outcomes import Outcome, Said
from onrecord.serving.faults import Faults, pointer_to
from onrecord.serving.strict_json import shown

__all__ = ["tell"]


def tell(  # noqa: PLR0913 - which rows, of whose predictions, said by whom, and how
    database: Database,
    rows: Sequence[OutcomeRow],
    by: By,
    *,
    whose: reader.Filters,
    entities: Entities | None = None,
    whole: bool = False,
) -> list[tuple[Outcome, bool] | None]:
    """Put on record, in one transaction, what rows say of the predictions of calls that are meant.

    Of each row the outcome in force after it is returned, and whether it is new; None of one that
    is not taken: what is wrong with it is then among its faults. `entities` are the predictions
    where rows are about entities. With `whole` InvalidInput is raised, and nothing put on record,
    where there is a fault in any row. Raises Conflict where a call is erased meanwhile.
    """
    with database.read() as connection:
        said = _judged(connection, rows, whose, entities)
    if whole:
        _raise_faults(rows)
    good = [it for it in said if it is not None]
    with database.write() as connection:
        found = iter(outcomes.add_all(connection, good, by))
    return [None if it is None else next(found) for it in said]


def _raise_faults(rows: Sequence[OutcomeRow]) -> None:
    faults = Faults()
    for row in rows:
        for it in row.faults:
            faults.add(it.pointer, it.code, it.detail, it.expected, it.received)
    faults.raise_if_any()


def _judged(
    connection: Connection,
    rows: Sequence[OutcomeRow],
    whose: reader.Filters,
    entities: Entities | None,
) -> list[Said | None]:
    """Return what each row says as the model says such a thing, None where it has a fault."""
    by_call: dict[str, list[tuple[int, str]]] = {}
    for place, row in enumerate(rows):
        name = _prediction(row, entities)
        if name is not None:
            by_call.setdefault(request_id_of(name), []).append((place, name))
    said: list[Said | None] = [None] * len(rows)
    for call, output, content_type in reader.answers(connection, by_call, whose):
        answers = decoded_answers(output, content_type)
        for place, name in by_call.pop(call):
            said[place] = _said(rows[place], name, answers)
    for left in by_call.values():
        for place, _ in left:
            _refuse_unknown(rows[place])
    return said


def _prediction(row: OutcomeRow, entities: Entities | None) -> str | None:
    """Return the prediction that a row is about, None where that cannot be told."""
    if row.about is None or row.faults or entities is None:
        return None if row.faults else row.about
    found = entities.prediction(row.about, row.observed_at)
    if found is None:
        detail = "There is no answered prediction about it, or none before it happened."
        row.refuse(row.fields.about, "not_found", detail, None, row.about)
    return found


def _said(row: OutcomeRow, name: str, answers: list[RecordedAnswer] | None) -> Said | None:
    if answers is None:
        detail = "The call was not answered in JSON: outcomes of its rows are not taken yet."
        row.refuse(row.fields.about, "not_json", detail, None, row.about)
        return None
    if row_of(name) >= len(answers):
        _refuse_unknown(row)
        return None
    answer = answers[row_of(name)]
    value = row.outcome
    if row.as_text and isinstance(value, str) and isinstance(answer.prediction, float):
        value = _number(value)
    try:
        return Said(name, checked_outcome(value, answer), row.observed_at)
    except InvalidInput as error:
        place = pointer_to(f"/rows/{row.number}", row.fields.outcome)
        for fault in error.faults:
            pointer = place + fault.pointer.removeprefix("/outcome")
            row.faults.append(replace(fault, pointer=pointer, received=shown(row.outcome)))
        return None


def _refuse_unknown(row: OutcomeRow) -> None:
    detail = "There is no such answered prediction on record."
    row.refuse(row.fields.about, "not_found", detail, None, row.about)


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text
