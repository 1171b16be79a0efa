"""Replay: what a model would have answered to the calls on record, beside what was answered.

A row's answer is *changed* where its class is another one, or its number differs by more than the
tolerance; its scores have *moved* where a probability does, whether or not the class changed.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from onrecord.errors import CallError
from onrecord.insight.recorded_calls import RecordedAnswer, RecordedCall, answers_of, row_id
from onrecord.insight.segments import Segments
from onrecord.serving.artifact import Model
from onrecord.serving.bounds import Damaged
from onrecord.serving.forms import kind_of
from onrecord.serving.outputs import Outputs
from onrecord.serving.runtimes import Row
from onrecord.serving.validation import Validator

__all__ = ["Change", "Replay", "ReplayReport", "Where"]

Where = Callable[[Mapping[str, Any]], bool]
"""Tells whether a row, by column name, is meant."""

_MOST_SHOWN = 20
_MAX_ROWS = 1 << 40
_EDGES = (0.0, 1e-6, 1e-4, 1e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}


@dataclass(frozen=True, slots=True, order=True)
class Change:
    """One row whose answer is another: `difference` is the greatest of its scores or its number."""

    difference: float
    prediction_id: str
    before: Any = field(compare=False)
    after: Any = field(compare=False)


@dataclass(slots=True)
class ReplayReport:
    """What a replay found.

    `rows` of `calls` were compared. `changed` have another answer, by `transitions` from which
    class to which; `moved` have another score. `differences` are quantiles, over all rows, of how
    far the answer's scores (or its number) are from what was answered, `histogram` says how many
    rows are how far. `most_changed` are the rows
    changed most and `first` is the first in the order of the record. `new_errors` rows have an
    answer on record and none from the candidate, with `error_examples`; `left_out` counts calls
    that could not be compared, by why. Times are in microseconds a row, the candidate's in batches.
    """

    model: str
    candidate: dict[str, Any]
    tolerance: float
    calls: int
    rows: int
    changed: int
    moved: int
    transitions: list[dict[str, Any]]
    differences: dict[str, float]
    histogram: list[dict[str, Any]]
    first: Change | None
    most_changed: list[Change]
    new_errors: int
    error_examples: list[dict[str, str]]
    left_out: dict[str, int]
    segments: dict[str, list[dict[str, Any]]]
    candidate_us_per_row: float
    recorded_us_per_call: float

    @property
    def share_changed(self) -> float:
        """Which share of the rows has another answer, or none at all: 0 to 1."""
        rows = self.rows + self.new_errors
        return (self.changed + self.new_errors) / rows if rows else 0.0


class Replay:
    """Replays calls against one model.

    `where` says which rows are meant, None: all of them. `on_change` is told of each row whose
    answer changed.
    """

    def __init__(
        self,
        candidate: Model,
        *,
        tolerance: float = 1e-6,
        where: Where | None = None,
        on_change: Callable[[Change], object] = lambda _: None,
    ) -> None:
        self._on_change = on_change
        self._candidate = candidate
        self._tolerance = tolerance
        self._where = where
        self._validator = Validator(candidate.schema, max_rows=_MAX_ROWS)
        self._names = candidate.schema.names
        self._segments = Segments(candidate.schema)
        self._calls = self._rows = self._changed = self._moved = 0
        self._new_errors = 0
        self._errors: list[dict[str, str]] = []
        self._left_out: Counter[str] = Counter()
        self._transitions: Counter[tuple[str, str]] = Counter()
        self._first: Change | None = None
        self._most: list[Change] = []
        self._differences: list[np.ndarray[Any, Any]] = []
        self._seconds = 0.0
        self._recorded_us = 0

    def feed(self, calls: Iterable[RecordedCall]) -> int:
        """Replay a batch of calls and return how many rows of them were compared."""
        rows: list[Row] = []
        ids: list[str] = []
        answers: list[RecordedAnswer] = []
        for call in calls:
            self._calls += 1
            self._recorded_us += call.duration_us
            for row, place, answer in self._rows_of(call):
                rows.append(row)
                ids.append(row_id(call, place))
                answers.append(answer)
        if rows:
            self._compare(rows, ids, answers)
        return len(rows)

    def report(self) -> ReplayReport:
        """Return what was found so far."""
        candidate = self._candidate
        differences = np.concatenate(self._differences) if self._differences else np.zeros(0)
        return ReplayReport(
            model=candidate.name,
            candidate={"version": candidate.version, "sha256": candidate.sha256},
            tolerance=self._tolerance,
            calls=self._calls,
            rows=self._rows,
            changed=self._changed,
            moved=self._moved,
            transitions=[
                {"from": before, "to": after, "rows": rows}
                for (before, after), rows in self._transitions.most_common()
            ],
            differences={
                name: float(np.quantile(differences, share)) if len(differences) else 0.0
                for name, share in _QUANTILES.items()
            },
            histogram=_histogram(differences),
            first=self._first,
            most_changed=sorted(self._most, reverse=True),
            new_errors=self._new_errors,
            error_examples=self._errors,
            left_out=dict(self._left_out),
            segments=self._segments.table(),
            candidate_us_per_row=1e6 * self._seconds / self._rows if self._rows else 0.0,
            recorded_us_per_call=self._recorded_us / self._calls if self._calls else 0.0,
        )

    def _rows_of(self, call: RecordedCall) -> Iterator[tuple[Row, int, RecordedAnswer]]:
        """Yield the rows of a call that are meant, their places and what they were answered."""
        if call.input is None or call.output is None:
            self._left_out["erased"] += 1
            return
        answers = answers_of(call)
        if answers is None:
            self._left_out["answered in another form than JSON"] += 1
            return
        try:
            rows = self._read(call)
        except (CallError, Damaged) as error:
            faults = error.faults if isinstance(error, CallError) else ()
            why = f"{faults[0].pointer}: {faults[0].detail}" if faults else str(error)
            self._refused(row_id(call, 0), why, len(answers))
            return
        if len(rows) != len(answers):
            self._left_out["answers that do not match their rows"] += 1
            return
        for place, (row, answer) in enumerate(zip(rows, answers, strict=True)):
            if self._where is None or self._where(dict(zip(self._names, row, strict=True))):
                yield row, place, answer

    def _read(self, call: RecordedCall) -> Sequence[Row]:
        body = call.input or b""
        kind = kind_of(call.content_type or "application/json")
        if kind in {"csv", "arrow", "parquet"}:
            return self._validator.read_table(body, kind).rows()
        rows = self._validator.validate_fast(body) or self._validator.validate(body)
        return rows.values

    def _refused(self, prediction_id: str, why: str, rows: int = 1) -> None:
        self._new_errors += rows
        if len(self._errors) < _MOST_SHOWN:
            self._errors.append({"prediction_id": prediction_id, "error": why})

    def _compare(self, rows: list[Row], ids: list[str], answers: list[RecordedAnswer]) -> None:
        outputs = self._predict(rows)
        if outputs is None:  # one of them has no answer: each is tried alone
            for row, name, answer in zip(rows, ids, answers, strict=True):
                alone = self._predict([row])
                if alone is None:
                    self._refused(name, "the model has no answer to these values")
                else:
                    self._judge([row], [name], [answer], alone)
            return
        self._judge(rows, ids, answers, outputs)

    def _predict(self, rows: list[Row]) -> Outputs | None:
        began = time.perf_counter()
        try:
            outputs = self._candidate.runtime.predict(rows)
            return outputs if len(outputs) == len(rows) else None
        except Exception:  # noqa: BLE001 - whatever a model raises, it has no answer
            return None
        finally:
            self._seconds += time.perf_counter() - began

    def _judge(
        self,
        rows: list[Row],
        ids: list[str],
        answers: list[RecordedAnswer],
        outputs: Outputs,
    ) -> None:
        changed = np.zeros(len(rows), dtype=np.bool_)
        differences = np.zeros(len(rows))
        for place, answer in enumerate(answers):
            try:
                now = outputs.row(place)
            except CallError:
                self._refused(ids[place], "the model's answer is not a finite number")
                continue
            is_changed, moved, difference = difference_of(
                answer.prediction,
                answer.probabilities,
                now["prediction"],
                now.get("probabilities"),
                self._tolerance,
            )
            self._rows += 1
            differences[place] = difference
            changed[place] = is_changed
            self._moved += moved
            if is_changed or moved:
                self._note(ids[place], answer, now, difference, is_changed=is_changed)
        self._segments.add(rows, changed)
        self._differences.append(differences)

    def _note(
        self,
        prediction_id: str,
        answer: RecordedAnswer,
        now: dict[str, Any],
        difference: float,
        *,
        is_changed: bool,
    ) -> None:
        before = {"prediction": answer.prediction}
        if answer.probabilities is not None:
            before["probabilities"] = answer.probabilities
        change = Change(difference, prediction_id, before, now)
        self._first = self._first or change
        if is_changed:
            self._changed += 1
            self._on_change(change)
            if not isinstance(answer.prediction, float):
                self._transitions[str(answer.prediction), str(now["prediction"])] += 1
        if len(self._most) < _MOST_SHOWN:
            heapq.heappush(self._most, change)
        elif change > self._most[0]:
            heapq.heapreplace(self._most, change)


def _histogram(differences: np.ndarray[Any, Any]) -> list[dict[str, Any]]:
    """Return how many rows have which difference, in bins that grow tenfold and then double."""
    places = np.searchsorted(_EDGES, differences, side="left")
    counts = np.bincount(places, minlength=len(_EDGES) + 1).tolist()
    pairs = pairwise(_EDGES)
    names = ["none", *(f"up to {high:g}" for _, high in pairs), f"above {_EDGES[-1]:g}"]
    return [
        {"difference": name, "rows": rows} for name, rows in zip(names, counts, strict=True) if rows
    ]


def difference_of(
    before: Any, scores: Any, after: Any, new_scores: Any, tolerance: float
) -> tuple[bool, bool, float]:
    """Return whether an answer changed, whether its scores moved, and by how much at most.

    Answers of several targets are compared target by target.
    """
    if isinstance(before, dict):
        if not isinstance(after, dict) or before.keys() != after.keys():
            return True, True, 1.0
        parts = [
            difference_of(
                before[name],
                (scores or {}).get(name),
                after[name],
                (new_scores or {}).get(name),
                tolerance,
            )
            for name in before
        ]
        changed, moved, differences = zip(*parts, strict=True)
        return any(changed), any(moved), max(differences)
    difference = 0.0
    if scores is not None or new_scores is not None:
        old, new = scores or {}, new_scores or {}
        difference = max(
            (abs(old.get(name, 0.0) - new.get(name, 0.0)) for name in old.keys() | new.keys()),
            default=0.0,
        )
    if isinstance(before, float) and isinstance(after, (float, int)):
        distance = abs(before - after)
        return distance > tolerance, distance > tolerance, distance
    changed = before != after
    return changed, difference > tolerance, max(difference, float(changed and scores is None))
