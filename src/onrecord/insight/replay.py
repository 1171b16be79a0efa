"""Replay: what a model would have answered to the calls on record, beside what was answered.

A row's answer is *changed* where its class is another one, or its number differs by more than the
tolerance; its scores have *moved* where a probability does, whether or not the class changed.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from onrecord.insight.comparison import Compared, compared
from onrecord.insight.recorded_calls import (
    RecordedCall,
    row_id,
)
from onrecord.insight.recorded_rows import NO_ANSWER, ReadRows, RowsReader, finite_answers
from onrecord.insight.segments import Segments
from onrecord.serving.artifact import Model
from onrecord.serving.outputs import Outputs
from onrecord.serving.table import Table

__all__ = ["Change", "Replay", "ReplayReport", "Where"]

Where = Callable[[Mapping[str, Any]], bool]
"""Tells whether a row, by column name, is meant."""

_MOST_SHOWN = 20
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
    rows are how far. `most_changed` are the rows changed most and `first` is the first in the order
    of the record. `new_errors` rows have an answer on record and none from the candidate, with
    `error_examples`; `left_out` counts calls that could not be compared, by why. Times are in
    microseconds a row, the candidate's in batches.
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
    """Replays calls against one model; used by one thread.

    `where` says which rows are meant, None: all of them. `on_change` is told of each row whose
    answer changed. While the model answers a batch, the next one is read.
    """

    def __init__(
        self,
        candidate: Model,
        *,
        tolerance: float = 1e-6,
        where: Where | None = None,
        on_change: Callable[[Change], object] = lambda _: None,
    ) -> None:
        self._candidate = candidate
        self._tolerance = tolerance
        self._where = where
        self._on_change = on_change
        self._reader = RowsReader(candidate.schema)
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
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="replay")
        self._under_way: tuple[ReadRows, Table, Future[Outputs | None]] | None = None

    def feed(self, calls: Sequence[RecordedCall]) -> None:
        """Replay a batch of calls."""
        self._calls += len(calls)
        self._recorded_us += sum([call.duration_us for call in calls])
        found = self._reader.read(calls)
        self._left_out.update(found.left_out)
        for refused in found.refused:
            self._refused(*refused)
        if self._where is not None:
            found = self._meant(found, self._where)
        self._settle()
        if found.table is not None:
            self._under_way = (found, found.table, self._thread.submit(self._predict, found.table))

    def report(self) -> ReplayReport:
        """Return what was found in all that was fed; nothing more can be fed."""
        self._settle()
        self._thread.shutdown()
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

    def _meant(self, found: ReadRows, where: Where) -> ReadRows:
        rows = [] if found.table is None else found.table.rows()
        pairs = (dict(zip(self._names, row, strict=True)) for row in rows)
        return found.take([i for i, values in enumerate(pairs) if where(values)])

    def _refused(self, prediction_id: str, why: str, rows: int = 1) -> None:
        self._new_errors += rows
        if len(self._errors) < _MOST_SHOWN:
            self._errors.append({"prediction_id": prediction_id, "error": why})

    def _settle(self) -> None:
        """Compare the batch that the model is answering."""
        if self._under_way is None:
            return
        rows, table, future = self._under_way
        self._under_way = None
        outputs = future.result()
        if outputs is not None:
            self._judge(rows, table, outputs)
            return
        for i, (call, place) in enumerate(rows.places):  # one has no answer: each is tried alone
            alone = table.take(np.array([i]))
            outputs = self._predict(alone)
            if outputs is None:
                self._refused(row_id(call, place), NO_ANSWER)
            else:
                self._judge(rows.take([i]), alone, outputs)

    def _predict(self, table: Table) -> Outputs | None:
        """Return the candidate's answers, None where it does not answer all rows with numbers."""
        began = time.perf_counter()
        outputs = finite_answers(self._candidate.runtime, table)
        self._seconds += time.perf_counter() - began
        return outputs

    def _judge(self, rows: ReadRows, table: Table, outputs: Outputs) -> None:
        found = compared(rows.answers, outputs, self._tolerance)
        self._rows += len(rows.places)
        self._moved += int(np.count_nonzero(found.moved))
        self._differences.append(found.differences)
        self._segments.add(table, found.changed)
        least = self._most[0].difference if len(self._most) == _MOST_SHOWN else -1.0
        noted = found.changed | (found.moved & (found.differences > least))
        if self._first is None:
            noted |= found.moved
        places = np.flatnonzero(noted).tolist()
        now = Outputs([part.take(places) for part in outputs.targets]).in_lists()
        for i, place in enumerate(places):
            self._note(rows, place, now.row(i), found)

    def _note(self, rows: ReadRows, place: int, now: dict[str, Any], found: Compared) -> None:
        answer = rows.answers[place]
        before: dict[str, Any] = {"prediction": answer.prediction}
        if answer.probabilities is not None:
            before["probabilities"] = answer.probabilities
        difference = float(found.differences[place])
        change = Change(difference, row_id(*rows.places[place]), before, now)
        self._first = self._first or change
        if found.changed[place]:
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
