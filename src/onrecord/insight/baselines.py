"""Baselines of model versions, and the sketches of what they were asked since, kept up to date."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import msgspec
import numpy as np
from sqlalchemy import Connection

from onrecord.errors import Conflict, ModelDirectoryError
from onrecord.insight.comparison import outputs_of
from onrecord.insight.drift import DriftRules, compared_with
from onrecord.insight.estimated_quality import estimated_quality
from onrecord.insight.recorded_calls import Meant, RecordedCall, recorded_calls
from onrecord.insight.recorded_rows import RowsReader, joined
from onrecord.insight.sketch import Sketch, add_rows, emptied, merged, sketch_of
from onrecord.record import baselines
from onrecord.record.baselines import Baseline
from onrecord.record.by import By
from onrecord.record.commit_order import complete_up_to
from onrecord.record.database import Database
from onrecord.record.ids import milliseconds_of
from onrecord.record.model_versions import StoredVersion, files_of, input_schema_of
from onrecord.record.tables import utc_text
from onrecord.serving.input_schema import InputSchema, parse_input_schema
from onrecord.serving.model_files import BASELINE_FILE, SCHEMA_FILE

__all__ = ["OF_FILE", "Drifts", "add_of_file", "encoded", "parse_baseline"]

OF_FILE = By("", operator="file")
"""Who is said to have made a baseline that was taken from the file of a model directory."""

_MOST_ROWS = 200_000
_BATCHES_A_TRANSACTION = 25
_HOUR_MILLISECONDS = 3_600_000


def encoded(sketch: Sketch) -> bytes:
    """Return a sketch as the JSON of a `baseline.json`."""
    return msgspec.json.encode(sketch)


def parse_baseline(raw: bytes, schema: InputSchema) -> Sketch:
    """Return the sketch in the bytes of a `baseline.json`; raises ModelDirectoryError."""
    try:
        sketch = msgspec.json.decode(raw, type=Sketch)
    except msgspec.MsgspecError as error:
        raise _unusable(str(error)) from None
    unknown = sketch.features.keys() - set(schema.names)
    if unknown:
        raise _unusable(f"the schema has no column {min(unknown)!r}")
    secret = {column.name for column in schema.columns if column.sensitive}
    if secret & sketch.features.keys():
        name = min(secret & sketch.features.keys())
        raise _unusable(f"it tells of {name!r}, which the schema marks as sensitive")
    for name, spread in (sketch.features | sketch.scores).items():
        bins = spread.edges if spread.kind == "number" else spread.values
        if len(spread.counts) != len(bins) + 1:
            raise _unusable(f"{name!r} has not one count for each bin")
    return sketch


def add_of_file(connection: Connection, model_version_id: int, raw: bytes) -> Baseline:
    """Put the bytes of a `baseline.json` on record, in force from now on; raises as it is read."""
    schema = parse_input_schema(input_schema_of(connection, model_version_id), SCHEMA_FILE)
    sketch = parse_baseline(raw, schema)
    source = f"{BASELINE_FILE} of the model directory, {sketch.rows} rows"
    document = encoded(sketch).decode()
    return baselines.add(connection, model_version_id, source, document, OF_FILE)


def _unusable(problem: str) -> ModelDirectoryError:
    return ModelDirectoryError(
        BASELINE_FILE, None, problem, "Have `onrecord init` write it again, or remove it."
    )


class Drifts:
    """The drift of model versions on one record; `reveal` decrypts recorded inputs."""

    def __init__(self, database: Database, reveal: Callable[[bytes], bytes]) -> None:
        self._database = database
        self._reveal = reveal

    def freeze(
        self, version: StoredVersion, since: datetime | None, until: datetime | None, by: By
    ) -> Baseline:
        """Make what a version was asked and answered in a time its baseline, from now on.

        Of at most 200,000 rows, the newest. Raises Conflict where there is none.
        """
        done = complete_up_to(self._database)
        meant = Meant(
            version.name, since, until, frozenset({version.id}), newest=_MOST_ROWS, up_to_seq=done
        )
        reader = RowsReader(self._schema(version))
        tables, answers = [], []
        for calls in recorded_calls(self._database, meant, self._reveal):
            found = reader.read(calls)
            if found.table is not None:
                tables.append(found.table)
                answers += found.answers
        if not tables:
            raise Conflict(f"No call that {version} answered in JSON at that time is on record.")
        table = joined(tables)
        newest = np.arange(max(0, len(table) - _MOST_ROWS), len(table))
        sketch = sketch_of(table.take(newest), outputs_of(answers[-_MOST_ROWS:]))
        span = " to ".join(
            "..." if it is None else f"{it:%Y-%m-%dT%H:%MZ}" for it in (since, until)
        )
        source = f"{sketch.rows} rows on record, {span}"
        with self._database.write() as connection:
            document = encoded(sketch).decode()
            return baselines.add(connection, version.id, source, document, by, done)

    def baseline(self, version: StoredVersion) -> Baseline | None:
        """Return the baseline of a version: the newest on record, else that of its directory."""
        with self._database.read() as connection:
            found = baselines.newest(connection, version.id)
            files = {} if found is not None else files_of(connection, version.id, [BASELINE_FILE])
        if found is not None or BASELINE_FILE not in files:
            return found
        with self._database.write() as connection:
            there = baselines.newest(connection, version.id)
            return there or add_of_file(connection, version.id, files[BASELINE_FILE])

    def update(self, version: StoredVersion, baseline: Baseline) -> int:
        """Count what came onto the record since into the sketches; return how many calls.

        Whoever else does so meanwhile counts no call twice.
        """
        return self._update(version, baseline, _sketch(baseline))

    def _update(self, version: StoredVersion, baseline: Baseline, whole: Sketch) -> int:
        reader = RowsReader(self._schema(version))
        complete, done, counted = complete_up_to(self._database), baseline.done_up_to, 0
        meant = Meant(version.name, versions=frozenset({version.id}), up_to_seq=complete)
        batches = recorded_calls(self._database, replace(meant, after_seq=done), self._reveal)
        while some := list(islice(batches, _BATCHES_A_TRANSACTION)):
            found: dict[datetime, Sketch] = {}
            for calls in some:
                _add_calls(found, whole, reader, calls)
            to = some[-1][-1].seq
            if not self._put(baseline.id, done, to, found):
                return counted
            done = to
            counted += sum(map(len, some))
        self._put(baseline.id, done, complete, {})
        return counted

    def report(
        self,
        version: StoredVersion,
        since: datetime | None,
        until: datetime | None,
        rules: DriftRules,
    ) -> dict[str, Any]:
        """Return the drift of a version in the hours that begin in a time; see docs/drift.md.

        An hour that has begun before `since` is left out. Raises Conflict where the version has no
        baseline.
        """
        baseline = self.baseline(version)
        if baseline is None:
            raise Conflict(
                f"{version} has no baseline: freeze a window of the record with "
                "`onrecord drift freeze`, or have `onrecord init` make one of its training data."
            )
        meant = Meant(version.name, since, until, frozenset({version.id}))
        return {
            **self.compared(version, baseline, since, until, rules),
            "estimate": estimated_quality(self._database, meant),
        }

    def compared(
        self,
        version: StoredVersion,
        baseline: Baseline,
        since: datetime | None,
        until: datetime | None,
        rules: DriftRules,
    ) -> dict[str, Any]:
        """Return what `report` does, but for the estimate, which reads thousands of answers."""
        whole = _sketch(baseline)
        self._update(version, baseline, whole)
        window = emptied(whole)
        with self._database.read() as connection:
            found = baselines.sketches(connection, baseline.id, since, until)
        for document in found.values():
            window = merged(window, msgspec.json.decode(document, type=Sketch))
        schema = self._schema(version)
        return {
            "model": version.name,
            "number": version.number,
            "version": version.version,
            "sha256": version.sha256,
            "since": since and utc_text(since),
            "until": until and utc_text(until),
            "baseline": {
                "id": baseline.id,
                "made_at": utc_text(baseline.made_at),
                "source": baseline.source,
                "rows": whole.rows,
            },
            "left_out": [column.name for column in schema.columns if column.sensitive],
            **compared_with(whole, window, rules),
        }

    def _schema(self, version: StoredVersion) -> InputSchema:
        with self._database.read() as connection:
            raw = input_schema_of(connection, version.id)
        return parse_input_schema(raw, SCHEMA_FILE)

    def _put(self, baseline_id: str, done: int, to: int, found: dict[datetime, Sketch]) -> bool:
        if to == done:
            return True
        with self._database.write() as connection:
            if not baselines.advance(connection, baseline_id, done, to):
                return False
            if not found:
                return True
            there = baselines.sketches(connection, baseline_id, min(found))
            for hour in found.keys() & there.keys():
                before = msgspec.json.decode(there[hour], type=Sketch)
                found[hour] = merged(before, found[hour])
            documents = {hour: encoded(sketch).decode() for hour, sketch in found.items()}
            baselines.put_sketches(connection, baseline_id, documents)
        return True


def _sketch(baseline: Baseline) -> Sketch:
    return msgspec.json.decode(baseline.document, type=Sketch)


def _add_calls(
    found: dict[datetime, Sketch], whole: Sketch, reader: RowsReader, calls: Sequence[RecordedCall]
) -> None:
    """Count some calls into the sketches of their hours, in the bins of the baseline."""
    hours: dict[int, list[RecordedCall]] = {}
    for call in calls:
        hours.setdefault(milliseconds_of(call.id) // _HOUR_MILLISECONDS, []).append(call)
    for number, its in hours.items():
        rows = reader.read(its)
        if rows.table is not None:
            hour = datetime.fromtimestamp(number * _HOUR_MILLISECONDS / 1000, UTC)
            sketch = found.setdefault(hour, emptied(whole))
            add_rows(sketch, rows.table, outputs_of(rows.answers))
