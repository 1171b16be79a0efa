"""How fast `onrecord replay` goes through recorded calls of one row: a forest of 100 trees.

The record is filled directly, as the writer would fill it; what is timed is the replay alone, from
opening the database to the report. `python benchmarks/replay.py [CALLS] [ROUNDS]`.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from sklearn.ensemble import RandomForestClassifier

from onrecord.insight.recorded_calls import Meant, recorded_calls
from onrecord.insight.replay import Replay
from onrecord.parts import build_versions, load_served_model
from onrecord.record.batch import committer
from onrecord.record.by import By
from onrecord.record.call import RecordedCall
from onrecord.record.database import Database
from onrecord.record.ids import new_request_id
from onrecord.record.users import add
from onrecord.serving.artifact import Model, read_model_directory
from onrecord.serving.prediction import Predictor
from onrecord.settings import Settings, load_settings

COLUMNS = 8


def model_in(home: Path) -> Settings:
    """Train the forest and return the settings that serve it."""
    import skops.io

    random = np.random.default_rng(1)
    rows = random.normal(size=(2000, COLUMNS)).astype(np.float32)
    labels = (rows[:, 0] + rows[:, 1] * rows[:, 2] > 0).astype(int)
    directory = home / "risk"
    directory.mkdir()
    forest = RandomForestClassifier(100, max_depth=8, random_state=1).fit(rows, labels)
    skops.io.dump(forest, directory / "model.skops")
    columns = [{"name": f"f{i}", "type": "numeric"} for i in range(COLUMNS)]
    (directory / "input_schema.json").write_text(json.dumps({"input_schema": {"columns": columns}}))
    return load_settings(
        model_dir=directory,
        data_dir=home / "data",
        log_level="error",
        trusted_types=["sklearn.tree._tree.Tree"],
    )


def fill(database: Database, model: Model, version: int, calls: int, user: str = "b") -> None:
    """Put so many calls on record, answered by the model itself."""
    with database.write() as connection:
        user_id = add(connection, username=user, email=None, password_hash="-", role="user").id
    random = np.random.default_rng(2)
    predictor = Predictor(model, version, None, None, None)  # type: ignore[arg-type]
    raw = database.raw_connection()
    commit = committer(raw.driver_connection, database.dialect)
    for start in range(0, calls, 1000):
        values = random.normal(size=(min(1000, calls - start), COLUMNS)).round(4)
        outputs = model.runtime.predict([tuple(map(float, row)) for row in values])
        commit(
            [
                _call(user_id, version, model, predictor, outputs, i, row)
                for i, row in enumerate(values.tolist())
            ]
        )
    raw.close()


def _call(user_id, version, model, predictor, outputs, place, row):  # type: ignore[no-untyped-def] # noqa: PLR0913, PLR0917
    name = new_request_id()
    now = datetime.now(UTC)
    return RecordedCall(
        id=name,
        user_id=user_id,
        model=model.name,
        model_version_id=version,
        x_request_id=None,
        content_type="application/json",
        input=json.dumps({f"f{i}": value for i, value in enumerate(row)}).encode(),
        received_at=now,
        status=200,
        output=predictor._encode_row(name, outputs.row(place)),  # noqa: SLF001
        error_code=None,
        error_fields=(),
        duration_us=500,
        responded_at=now,
    )


def main() -> None:
    """Print the rows a second of each round and their median."""
    calls, rounds = (int(word) for word in (*sys.argv[1:], "200000", "3")[:2])
    with tempfile.TemporaryDirectory() as home:
        settings = model_in(Path(home))
        model = load_served_model(settings)
        database = Database(settings.database_url)
        database.upgrade()
        files = read_model_directory(settings.model_dir[0])
        version, _ = build_versions(settings, database).start(files, model, By("benchmark"))
        fill(database, model, version.id, calls)
        print(f"{model.runtime_reason}; {calls} calls of one row on SQLite")
        rates = []
        for _ in range(rounds):
            began = time.perf_counter()
            replay = Replay(model, tolerance=0)
            for batch in recorded_calls(database, Meant(model.name)):
                replay.feed(batch)
            report = replay.report()
            rates.append(report.rows / (time.perf_counter() - began))
            share = report.candidate_us_per_row * rates[-1] / 1e6
            print(
                f"  {rates[-1]:,.0f} rows/s, {share:.0%} of it in the model, "
                f"{report.changed} changed, {report.moved} moved"
            )
        print(f"median {statistics.median(rates):,.0f} rows/s")


if __name__ == "__main__":
    main()
