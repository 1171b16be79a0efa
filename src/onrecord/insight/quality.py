"""Live quality: what was predicted beside what really happened."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
from sqlalchemy import Connection, Select, exists, func, select

from onrecord.insight.metrics import classification_metrics, regression_metrics
from onrecord.insight.recorded_calls import (
    Meant,
    RecordedAnswer,
    answered_calls,
    decoded_answers,
)
from onrecord.record.database import Database
from onrecord.record.ids import row_of, time_of
from onrecord.record.tables import model_versions, outcomes, requests, responses
from onrecord.serving.outputs import class_key
from onrecord.serving.subjects import values_in_json

__all__ = ["LEAST_ROWS", "By", "Told", "figures", "quality", "told_rows", "with_outcomes"]

By: TypeAlias = Literal["version", "hour", "day", "week", "segment"]
"""What live quality is parted by: the version that answered, the time it did, or a column."""

LEAST_ROWS = 30
"""Below so many outcomes figures are shown, and said to be too few to judge by."""

_MOST_ROWS = 200_000
_MOST_GROUPS = 100


@dataclass(frozen=True, slots=True)
class Told:
    """One row whose outcome is known."""

    group: str
    answer: RecordedAnswer
    actual: Any


def quality(
    database: Database,
    meant: Meant,
    by: By | None = None,
    column: str | None = None,
    reveal: Callable[[bytes], bytes] = lambda raw: raw,
) -> dict[str, Any]:
    """Return how right the answers were of which the outcome is known, newest 200,000 at most.

    `calls` is how many were answered, `outcomes` of how many rows the outcome is known, and
    `groups` has the figures of each group by its name, of each target where there are several.
    """
    with database.read() as connection:
        calls = connection.execute(answered_calls(select(func.count()), meant)).scalar_one()
        told = list(told_rows(connection, meant, by, column, reveal))
    groups: dict[str, list[Told]] = {}
    for it in told:
        groups.setdefault(it.group, []).append(it)
    return {
        "model": meant.model,
        "calls": int(calls),
        "outcomes": len(told),
        "by": by,
        "column": column,
        "groups": [
            {"group": name, **figures(groups[name])} for name in sorted(groups)[:_MOST_GROUPS]
        ],
    }


def told_rows(
    connection: Connection,
    meant: Meant,
    by: By | None = None,
    column: str | None = None,
    reveal: Callable[[bytes], bytes] = lambda raw: raw,
) -> Iterator[Told]:
    """Yield the rows whose outcome is known, the latest outcomes first; see `quality`."""
    columns = [
        outcomes.c.prediction_id,
        outcomes.c.value,
        responses.c.output,
        responses.c.content_type,
        model_versions.c.version,
        model_versions.c.number,
    ]
    if by == "segment":
        columns.append(requests.c.input)
    query = with_outcomes(answered_calls(select(*columns), meant)).join(
        model_versions, model_versions.c.id == requests.c.model_version_id
    )
    for row in connection.execute(query):
        answers = None if row.output is None else decoded_answers(row.output, row.content_type)
        place = row_of(row.prediction_id)
        if answers is None or place >= len(answers):
            continue
        match by:
            case "version":
                group = f"{row.number} ({row.version})"
            case "hour" | "day" | "week":
                group = _window(time_of(row.prediction_id), by)
            case "segment":
                group = _segment(row.input, place, column or "", reveal)
            case None:
                group = "all"
        yield Told(group, answers[place], msgspec.json.decode(row.value))


def with_outcomes(query: Select[Any]) -> Select[Any]:
    """Return a query of calls joined to the outcomes in force, the newest 200,000 at most."""
    later = outcomes.alias()
    corrected = exists().where(
        later.c.prediction_id == outcomes.c.prediction_id, later.c.id > outcomes.c.id
    )
    return (
        query.join(outcomes, outcomes.c.request_id == requests.c.id)
        .where(~corrected)
        .order_by(outcomes.c.id.desc())
        .limit(_MOST_ROWS)
    )


def _window(moment: datetime, by: str) -> str:
    if by == "hour":
        return f"{moment:%Y-%m-%dT%H:00Z}"
    return f"{moment:%Y-%m-%d}" if by == "day" else f"{moment:%G-W%V}"


def _segment(raw: bytes | None, place: int, column: str, reveal: Callable[[bytes], bytes]) -> str:
    """Return the value of a column in a row, as it is written in JSON."""
    try:
        value = values_in_json(reveal(bytes(raw or b"")), column)[place]
    except (ValueError, LookupError, AttributeError, TypeError):
        return "not readable"
    return "missing" if value is None else class_key(value)


def figures(told: list[Told]) -> dict[str, Any]:
    """Return how right the answers of some rows were, of which there is at least one."""
    found: dict[str, Any] = {"n": len(told), "enough": len(told) >= LEAST_ROWS}
    first = told[0].answer.prediction
    if isinstance(first, dict):
        found["targets"] = {
            name: _of_target(
                [
                    (
                        it.answer.prediction[name],
                        (it.answer.probabilities or {}).get(name),
                        it.actual[name],
                    )
                    for it in told
                ]
            )
            for name in first
        }
        return found
    return found | _of_target(
        [(it.answer.prediction, it.answer.probabilities, it.actual) for it in told]
    )


def _of_target(rows: list[tuple[Any, Any, Any]]) -> dict[str, Any]:
    predicted, chances, actual = zip(*rows, strict=True)
    if all(isinstance(value, float) for value in predicted):
        return regression_metrics(
            np.array(predicted, dtype=np.float64), np.array(actual, dtype=np.float64)
        )
    classes = list(chances[0]) if isinstance(chances[0], dict) else []
    scores = None
    if classes and all(isinstance(it, dict) and list(it) == classes for it in chances):
        scores = np.array([list(it.values()) for it in chances], dtype=np.float64)
    return classification_metrics(
        [class_key(value) for value in predicted],
        [class_key(value) for value in actual],
        scores,
        classes,
    )
