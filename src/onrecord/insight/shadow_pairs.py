"""What the live version and a shadow said to the same rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
from sqlalchemy import Connection, Row, Select, select

from onrecord.insight.comparison import compared, outputs_of
from onrecord.insight.metrics import Figure, mean, wilson
from onrecord.insight.quality import LEAST_ROWS, Told, figures, with_outcomes
from onrecord.insight.recorded_calls import (
    Meant,
    RecordedAnswer,
    answered_calls,
    decoded_answers,
)
from onrecord.record.database import Database
from onrecord.record.ids import row_of
from onrecord.record.tables import outcomes, requests, responses, shadow_answers
from onrecord.serving.outputs import class_key

__all__ = ["MOST_CALLS", "ShadowPairs", "latency"]

MOST_CALLS = 200_000
"""Of how many calls the answers are compared at most, the newest."""

_CALLS_AT_ONCE = 2000
_MOST_SHOWN = 20
_MOST_TRANSITIONS = 100
_QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}


class ShadowPairs:
    """The answers of a live version beside those that a shadow gave to the same calls.

    `live` says which calls are meant. A row's answers agree where the class is the same, or the
    numbers differ by no more than `tolerance`.
    """

    def __init__(
        self, database: Database, live: Meant, candidate_id: int, tolerance: float
    ) -> None:
        self._database = database
        self._live = live
        self._candidate_id = candidate_id
        self._tolerance = tolerance
        self._calls = self._rows = self._changed = self._errors = 0
        self._examples: list[dict[str, str]] = []
        self._left_out: Counter[str] = Counter()
        self._transitions: Counter[tuple[str, str]] = Counter()
        self._differences: list[np.ndarray[Any, Any]] = []
        self._live_us: list[float] = []
        self._candidate_us: list[float] = []
        self.first_id: str | None = None
        """The id of the oldest call that was read, None where there was none."""

    def report(self) -> dict[str, Any]:
        """Return what all calls together say; docs/shadow.md says what each figure means."""
        before: int | None = None
        while self._calls < MOST_CALLS and (rows := self._some(before)):
            self._add(rows)
            before = rows[-1].seq
            self.first_id = rows[-1].id
        differences = np.concatenate(self._differences) if self._differences else np.zeros(0)
        return {
            "calls": self._calls,
            "rows": self._rows,
            "enough": self._rows >= LEAST_ROWS,
            "agreement": wilson(self._rows - self._changed, self._rows),
            "transitions": [
                {"from": one, "to": other, "rows": rows}
                for (one, other), rows in self._transitions.most_common(_MOST_TRANSITIONS)
            ],
            "differences": {"mean": _mean(differences), **_quantiles(differences)},
            "errors": {"n": self._calls, **wilson(self._errors, self._calls)},
            "error_examples": self._examples,
            "duration_us": {
                "live": latency(self._live_us),
                "candidate": latency(self._candidate_us),
            },
            "left_out": dict(self._left_out),
            "outcomes": self._outcomes(),
        }

    def _query(self, *columns: Any) -> Select[Any]:
        query = answered_calls(select(*columns, *_ANSWERS), self._live)
        of_candidate = shadow_answers.c.model_version_id == self._candidate_id
        same_call = shadow_answers.c.request_id == requests.c.id
        return query.join(shadow_answers, of_candidate & same_call)

    def _some(self, before: int | None) -> list[Row[Any]]:
        query = self._query(requests.c.seq, requests.c.id, responses.c.duration_us)
        if before is not None:
            query = query.where(requests.c.seq < before)
        most = min(_CALLS_AT_ONCE, MOST_CALLS - self._calls)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(requests.c.seq.desc()).limit(most))
            return list(rows.all())

    def _add(self, rows: list[Row[Any]]) -> None:
        ours: list[RecordedAnswer] = []
        theirs: list[RecordedAnswer] = []
        self._calls += len(rows)
        for row in rows:
            self._live_us.append(row.duration_us)
            if row.error is not None:
                self._errors += 1
                if len(self._examples) < _MOST_SHOWN:
                    self._examples.append({"prediction_id": row.id, "error": row.error})
                continue
            self._candidate_us.append(row.shadow_us)
            pair = self._pair(row)
            if pair is not None:
                ours += pair[0]
                theirs += pair[1]
        if not ours:
            return
        found = compared(ours, outputs_of(theirs), self._tolerance)
        self._rows += len(ours)
        self._changed += int(np.count_nonzero(found.changed))
        self._differences.append(found.differences)
        for place in np.flatnonzero(found.changed).tolist():
            one, other = ours[place].prediction, theirs[place].prediction
            if isinstance(one, (str, int)) and isinstance(other, (str, int)):
                self._transitions[class_key(one), class_key(other)] += 1

    def _pair(self, row: Row[Any]) -> tuple[list[RecordedAnswer], list[RecordedAnswer]] | None:
        """Return the answers of both to the rows of a call, None where it has no pairs."""
        if row.output is None or row.shadow_output is None:
            self._left_out["erased"] += 1
            return None
        ours = decoded_answers(row.output, row.content_type)
        theirs = decoded_answers(row.shadow_output, None) or []
        if ours is None:
            self._left_out["answered in another form than JSON"] += 1
            return None
        if len(ours) != len(theirs):
            self._left_out["answers that do not match their rows"] += 1
            return None
        return ours, theirs

    def _outcomes(self) -> dict[str, Any]:
        """Return how right both were on the same rows, those whose outcome is known."""
        with self._database.read() as connection:
            pairs = list(self._told(connection))
        found: dict[str, Any] = {"n": len(pairs), "enough": len(pairs) >= LEAST_ROWS}
        if not pairs:
            return found | {"live": None, "candidate": None, "candidate_less_live": None}
        ours, theirs = ([pair[i] for pair in pairs] for i in (0, 1))
        return found | {
            "live": figures(ours),
            "candidate": figures(theirs),
            "candidate_less_live": _paired(ours, theirs),
        }

    def _told(self, connection: Connection) -> Iterator[tuple[Told, Told]]:
        query = with_outcomes(self._query(outcomes.c.prediction_id, outcomes.c.value))
        for row in connection.execute(query):
            if row.output is None or row.shadow_output is None:
                continue
            ours = decoded_answers(row.output, row.content_type)
            theirs = decoded_answers(row.shadow_output, None) or []
            place = row_of(row.prediction_id)
            if ours is not None and place < min(len(ours), len(theirs)):
                actual = msgspec.json.decode(row.value)
                yield Told("", ours[place], actual), Told("", theirs[place], actual)


_ANSWERS = [
    responses.c.output,
    responses.c.content_type,
    shadow_answers.c.output.label("shadow_output"),
    shadow_answers.c.error,
    shadow_answers.c.duration_us.label("shadow_us"),
]


def latency(durations: list[float]) -> dict[str, float | None]:
    """Return the median and the 99th percentile, None of nothing."""
    if not durations:
        return {"p50": None, "p99": None}
    return {name: float(np.quantile(durations, share)) for name, share in _LATENCY.items()}


_LATENCY = {"p50": 0.5, "p99": 0.99}


def _paired(ours: list[Told], theirs: list[Told]) -> dict[str, Figure] | None:
    """Return the mean over the rows of the candidate's figure less the live version's.

    None where there are several targets.
    """
    first = ours[0].answer.prediction
    if isinstance(first, dict):
        return None
    if isinstance(first, float):
        errors = [
            np.array([abs(it.actual - it.answer.prediction) for it in told], dtype=np.float64)
            for told in (ours, theirs)
        ]
        return {"mae": mean(errors[1] - errors[0])}
    right = [
        np.array(
            [class_key(it.actual) == class_key(it.answer.prediction) for it in told],
            dtype=np.float64,
        )
        for told in (ours, theirs)
    ]
    return {"accuracy": mean(right[1] - right[0])}


def _mean(values: np.ndarray[Any, Any]) -> Figure:
    return mean(values) if len(values) else {"value": None, "low": None, "high": None}


def _quantiles(values: np.ndarray[Any, Any]) -> dict[str, float | None]:
    return {
        name: float(np.quantile(values, share)) if len(values) else None
        for name, share in _QUANTILES.items()
    }
