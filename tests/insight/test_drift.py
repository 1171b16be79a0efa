"""Drift: what differs from the baseline is found, nothing else is, and no call counts twice."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import delete, update
from starlette.testclient import TestClient
from typer.testing import CliRunner, Result

from calls import Headers, recorded, register, sign_up
from onrecord.cli.main import _build
from onrecord.errors import ModelDirectoryError
from onrecord.insight.baselines import encoded, parse_baseline
from onrecord.insight.drift import DriftRules, compared_with
from onrecord.insight.sketch import Sketch, add_rows, emptied, merged, sketch_of
from onrecord.record import outcomes
from onrecord.record.by import By
from onrecord.record.database import Database
from onrecord.record.tables import baselines, drift_sketches
from onrecord.serving.input_schema import InputSchema, parse_input_schema
from onrecord.serving.outputs import Outputs, TargetOutput
from onrecord.serving.table import Table, array_of
from onrecord.settings import Settings

COLUMNS = [
    {"name": "age", "type": "numeric", "nullable": True},
    {"name": "visits", "type": "integer"},
    {"name": "smoker", "type": "boolean", "nullable": True},
    {"name": "ward", "type": "categorical", "categories": ["A", "B", "C"]},
    {"name": "note", "type": "text", "nullable": True},
    {"name": "secret", "type": "numeric", "sensitive": True},
]


def schema() -> InputSchema:
    raw = json.dumps({"input_schema": {"columns": COLUMNS}}).encode()
    return parse_input_schema(raw, "input_schema.json")


def some_rows(seed: int, n: int, **changed: Any) -> tuple[Table, Outputs]:
    """Return rows of each kind of column, missing values among them, and scores of them."""
    random = np.random.default_rng(seed)
    values: dict[str, Sequence[Any]] = {
        "age": [None if random.random() < 0.05 else float(it) for it in random.normal(50, 12, n)],
        "visits": random.poisson(2, n).tolist(),
        "smoker": [None if u < 0.1 else bool(u < 0.4) for u in random.random(n)],
        "ward": random.choice(["A", "B", "C"], n, p=[0.5, 0.3, 0.2]).tolist(),
        "note": ["x" * int(k) for k in random.integers(0, 30, n)],
        "secret": random.normal(0, 1, n).tolist(),
    }
    values |= {name: change(random, values[name]) for name, change in changed.items()}
    columns = schema().columns
    table = Table(columns, [array_of(column, values[column.name]) for column in columns])
    chance = random.beta(2, 5, n)
    scores = np.column_stack((1 - chance, chance))
    return table, Outputs([TargetOutput(None, chance > 0.5, ("no", "yes"), scores)])


def report(baseline: Sketch, table: Table, outputs: Outputs | None, **rules: Any) -> dict[str, Any]:
    window = emptied(baseline)
    add_rows(window, table, outputs)
    return compared_with(baseline, window, DriftRules(**rules))


def statuses(found: dict[str, Any]) -> dict[str, str]:
    return {it["name"]: it["status"] for it in found["features"] + found["scores"]}


BASELINE = sketch_of(*some_rows(1, 5000))


def test_windows_like_the_baseline_raise_no_alarm() -> None:
    alarms = 0
    for seed in range(200):
        n = (200, 500, 2000, 5000)[seed % 4]
        alarms += report(BASELINE, *some_rows(100 + seed, n))["status"] != "ok"

    # At a level of 0.01 for all features of a window together, 2 are to be expected without the
    # index, which asks for more.
    assert alarms <= 2


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("age", lambda random, values: [v and v + 12 for v in values]),
        ("age", lambda random, values: [None if random.random() < 0.4 else v for v in values]),
        ("visits", lambda random, values: random.poisson(4, len(values)).tolist()),
        ("smoker", lambda random, values: [bool(u < 0.8) for u in random.random(len(values))]),
        ("ward", lambda random, values: random.choice(["A", "B", "C"], len(values)).tolist()),
        ("note", lambda random, values: ["y" * int(k) for k in random.integers(20, 60, 1000)]),
    ],
    ids=["shifted", "missing", "integers", "boolean", "category", "text"],
)
def test_what_has_changed_is_found_and_nothing_else(name: str, change: Any) -> None:
    found = report(BASELINE, *some_rows(7, 1000, **{name: change}))

    told = statuses(found)
    assert told.pop(name) in {"drift", "warning"}
    assert set(told.values()) == {"ok"}
    assert found["status"] in {"drift", "warning"}


def test_of_a_sensitive_column_nothing_is_counted() -> None:
    assert "secret" not in BASELINE.features
    assert "secret" not in encoded(BASELINE).decode()


def test_scores_drift_too() -> None:
    table, _ = some_rows(8, 1000)
    chance = np.random.default_rng(8).beta(5, 3, 1000)
    scores = np.column_stack((1 - chance, chance))

    found = report(
        BASELINE, table, Outputs([TargetOutput(None, chance > 0.5, ("no", "yes"), scores)])
    )

    told = statuses(found)
    assert told["prediction"] == told["probability of yes"] == "drift"
    assert {it["status"] for it in found["features"]} == {"ok"}


def test_of_too_few_rows_nothing_is_said() -> None:
    found = report(BASELINE, *some_rows(9, 199, age=lambda random, values: [0.0] * len(values)))

    assert set(statuses(found).values()) == {found["status"]} == {"too few rows"}
    assert all(it["psi"] is it["p_value"] is None for it in found["features"])


def test_what_the_baseline_had_not_is_told() -> None:
    narrow = sketch_of(*some_rows(1, 1000, ward=lambda _, values: ["A"] * len(values)))

    found = report(
        narrow,
        *some_rows(2, 1000, age=lambda _, values: [1000.0] * 100 + list(values[100:])),
    )

    by_name = {it["name"]: it for it in found["features"]}
    assert by_name["ward"]["unseen"] == pytest.approx(0.5, abs=0.06)
    assert by_name["ward"]["status"] == "drift"
    assert by_name["age"]["outside"] >= 0.1


def test_parts_of_a_window_add_up_to_it() -> None:
    one, other = (some_rows(seed, 700) for seed in (3, 4))
    at_once = emptied(BASELINE)
    parts = [emptied(BASELINE), emptied(BASELINE)]
    for part, rows in zip(parts, (one, other), strict=True):
        add_rows(at_once, *rows)
        add_rows(part, *rows)

    assert merged(*parts) == at_once
    assert at_once.rows == 1400


def test_a_baseline_is_written_and_read_again() -> None:
    assert parse_baseline(encoded(BASELINE), schema()) == BASELINE
    for raw in (b"{}", b"[", encoded(BASELINE).replace(b'"age"', b'"old"')):
        with pytest.raises(ModelDirectoryError, match=r"baseline\.json"):
            parse_baseline(raw, schema())


def test_numbers_are_predicted_as_numbers() -> None:
    table, _ = some_rows(5, 800)
    random = np.random.default_rng(5)
    baseline = sketch_of(table, Outputs([TargetOutput(None, random.normal(0, 1, 800))]))

    found = report(baseline, table, Outputs([TargetOutput(None, random.normal(2, 1, 800))]))

    assert statuses(found)["prediction"] == "drift"


def ask(client: TestClient, headers: Headers, seed: int, n: int, older: float = 0.0) -> None:
    random = np.random.default_rng(seed)
    rows = [
        {
            "age": float(random.uniform(20, 60) + older),
            "pressure": float(random.uniform(80, 200)),
            "smoker": bool(random.random() < 0.5),
            "visits": int(random.integers(10)),
        }
        for _ in range(n)
    ]
    # Some alone, some together: both are counted.
    for row in rows[:40]:
        assert client.post("/predict", json=row, headers=headers).status_code == 200
    answer = client.post("/predict", json={"rows": rows[40:]}, headers=headers)
    assert answer.status_code == 200


def command(settings: Settings, *words: str) -> Result:
    environment = {
        "ONRECORD_DATABASE": settings.database_url,
        "ONRECORD_DATA_DIR": str(settings.data_dir),
    }
    return CliRunner().invoke(_build(), ["drift", *words], env=environment)


@pytest.fixture
def ada(client: TestClient, database: Database) -> Headers:
    with database.write() as connection:
        connection.execute(delete(drift_sketches))
        connection.execute(delete(baselines))
    return sign_up(client, database, "ada", "user")[1]


@pytest.fixture
def auditor(client: TestClient, database: Database) -> Headers:
    return sign_up(client, database, "vera", "auditor")[1]


def drift(client: TestClient, headers: Headers, **query: str) -> Any:
    return client.get("/models/risk/drift", params=query, headers=headers)


def test_a_deliberate_drift_is_found_from_the_record(
    client: TestClient, settings: Settings, ada: Headers, auditor: Headers, tmp_path: Path
) -> None:
    ask(client, ada, 1, 600)
    without = drift(client, auditor)
    frozen = command(settings, "freeze", "risk")
    ask(client, ada, 2, 300)
    calm = drift(client, auditor).json()
    ask(client, ada, 3, 600, older=25)
    shown = command(settings, "show", "risk", "--fail-on-drift", "--html", str(tmp_path / "d.html"))

    assert without.status_code == 409
    assert "has no baseline" in without.json()["detail"]
    assert "600 rows on record" in frozen.output, frozen.output
    assert (calm["status"], calm["rows"]) == ("ok", 300)
    assert calm["baseline"]["rows"] == 600
    assert shown.exit_code == 1
    assert "drift, of 900 rows" in shown.output
    found = drift(client, auditor).json()
    told = {it["name"]: it["status"] for it in found["features"]}
    assert told == {"age": "drift", "pressure": "ok", "smoker": "ok", "visits": "ok"}
    assert "age" in (tmp_path / "d.html").read_text()
    estimate = found["estimate"]
    assert (estimate["estimate"], estimate["calibrated"], estimate["n"]) == (True, False, 1500)
    assert 0.5 < estimate["accuracy"]["low"] < estimate["accuracy"]["high"] <= 1


def test_known_outcomes_calibrate_the_estimate(
    client: TestClient, settings: Settings, database: Database, ada: Headers, auditor: Headers
) -> None:
    ask(client, ada, 1, 400)
    command(settings, "freeze", "risk")
    (call,) = (it for it in recorded(database) if b"rows" in (it.input or b""))
    predictions = json.loads(call.output or b"")["predictions"]
    with database.write() as connection:
        for place, it in enumerate(predictions):
            value = 1 - it["prediction"] if place % 4 == 0 else it["prediction"]
            outcomes.add(connection, outcomes.Said(it["id"], value), By("", operator="test"))

    estimate = drift(client, auditor).json()["estimate"]

    # A quarter of the outcomes says otherwise, whatever the scores say of themselves.
    assert estimate["calibrated"] is True
    assert estimate["accuracy"]["value"] == pytest.approx(0.75, abs=0.05)


def test_no_call_is_counted_twice_however_many_look_at_once(
    client: TestClient, ada: Headers, auditor: Headers, settings: Settings
) -> None:
    ask(client, ada, 1, 300)
    assert command(settings, "freeze", "risk").exit_code == 0
    ask(client, ada, 2, 240)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: drift(client, auditor), range(8)))

    assert {answer.status_code for answer in answers} == {200}
    assert drift(client, auditor).json()["rows"] == 240


def test_an_hour_that_is_not_meant_does_not_count(
    client: TestClient, database: Database, settings: Settings, ada: Headers, auditor: Headers
) -> None:
    ask(client, ada, 1, 300)
    command(settings, "freeze", "risk")
    ask(client, ada, 2, 250)
    assert drift(client, auditor).json()["rows"] == 250
    long_ago = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=3)
    with database.write() as connection:
        connection.execute(update(drift_sketches).values(hour=long_ago))
    ask(client, ada, 3, 60)

    assert drift(client, auditor).json()["rows"] == 60
    week = (datetime.now(UTC) - timedelta(days=7)).isoformat()
    assert drift(client, auditor, since=week).json()["rows"] == 310
    assert drift(client, auditor, since=week, until=long_ago.isoformat()).json()["rows"] == 0


def test_calls_of_test_keys_are_no_drift(
    client: TestClient, settings: Settings, ada: Headers, auditor: Headers
) -> None:
    ask(client, ada, 1, 300)
    command(settings, "freeze", "risk")
    key = client.post("/keys", json={"name": "t", "kind": "test"}, headers=ada).json()["key"]

    ask(client, {"authorization": f"Bearer {key}"}, 2, 250, older=30)

    assert drift(client, auditor).json()["rows"] == 0


def test_strangers_see_no_drift_and_what_is_not_there_is_said(
    client: TestClient, ada: Headers, auditor: Headers, settings: Settings
) -> None:
    register(client, "eve")
    assert drift(client, ada).status_code == 403
    assert drift(client, auditor, version="9").status_code == 404
    assert drift(client, auditor, since="soon").status_code == 400
    assert "No call" in str(command(settings, "freeze", "risk").exception)


def test_training_data_is_the_baseline_that_comes_with_the_directory(tmp_path: Path) -> None:
    header = "age,smoker,ward,note,risk\n"
    random = np.random.default_rng(3)
    lines = [
        f"{random.normal(50, 9):.1f},{'true' if i % 3 else 'false'},{'AB'[i % 2]},,{i % 2}\n"
        for i in range(400)
    ]
    lines[7] = ",true,A,x,1\n"
    (tmp_path / "rows.csv").write_text(header + "".join(lines))
    (tmp_path / "model.pkl").write_bytes(b"not trusted, so never loaded")

    words = ["init", str(tmp_path / "model.pkl"), str(tmp_path / "rows.csv"), "--target", "risk"]
    made = CliRunner().invoke(_build(), [*words, "-o", str(tmp_path / "risk")])

    assert made.exit_code == 0, made.output
    assert "without scores" in made.output
    directory = tmp_path / "risk"
    read = parse_input_schema((directory / "input_schema.json").read_bytes(), "input_schema.json")
    baseline = parse_baseline((directory / "baseline.json").read_bytes(), read)
    assert baseline.rows == 400
    assert baseline.features["age"].missing == 1
    assert baseline.features["smoker"].counts == [134, 266, 0]
    assert baseline.features["ward"].values == ["A", "B"]
    assert baseline.scores == {}
    secret = json.loads((directory / "input_schema.json").read_text())
    age = secret["input_schema"]["columns"][0]
    del age["example"]
    age["sensitive"] = True
    hidden = parse_input_schema(json.dumps(secret).encode(), "input_schema.json")
    with pytest.raises(ModelDirectoryError, match="sensitive"):
        parse_baseline((directory / "baseline.json").read_bytes(), hidden)
