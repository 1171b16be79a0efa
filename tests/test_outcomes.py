"""Outcomes: what really happened, told one by one or by file, and live quality from it."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner, Result

from calls import Headers, predict, register, sign_up
from live import GOOD_ROW
from onrecord.cli.main import _build
from onrecord.record.database import Database
from onrecord.record.ids import prediction_id
from onrecord.settings import Settings


def tell(client: TestClient, headers: Headers, prediction: str, **body: Any) -> Any:
    return client.post(f"/predictions/{prediction}/outcome", json=body, headers=headers)


def command(settings: Settings, *words: str) -> Result:
    environment = {
        "ONRECORD_DATABASE": settings.database_url,
        "ONRECORD_DATA_DIR": str(settings.data_dir),
    }
    return CliRunner().invoke(_build(), [*words], env=environment)


def test_an_outcome_is_kept_corrected_and_not_told_twice(client: TestClient) -> None:
    ada = register(client)
    prediction = predict(client, ada)

    first = tell(client, ada, prediction, outcome=1, observed_at="2026-11-20T10:00:00Z")
    again = tell(client, ada, prediction, outcome=1, observed_at="2026-11-20T10:00:00Z")
    corrected = tell(client, ada, prediction, outcome=0)

    assert (first.status_code, again.status_code, corrected.status_code) == (201, 200, 201)
    assert again.json() == first.json()
    history = client.get(f"/predictions/{prediction}/outcomes", headers=ada).json()["outcomes"]
    assert [it["outcome"] for it in history] == [0, 1]
    assert history[1]["observed_at"] == "2026-11-20T10:00:00Z"


def test_the_same_outcome_told_twenty_times_at_once_is_on_record_once(client: TestClient) -> None:
    ada = register(client)
    prediction = predict(client, ada)

    with ThreadPoolExecutor(20) as pool:
        told = list(pool.map(lambda _: tell(client, ada, prediction, outcome=1), range(20)))

    assert sorted(it.status_code for it in told) == [200] * 19 + [201]
    history = client.get(f"/predictions/{prediction}/outcomes", headers=ada).json()["outcomes"]
    assert len(history) == 1


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"outcome": "ill"}, "/outcome"),
        ({"outcome": 7}, "/outcome"),
        ({"outcome": 0.5}, "/outcome"),
        ({"outcome": None}, "/outcome"),
        ({"outcome": {"a": 1}}, "/outcome"),
        ({}, "/outcome"),
        ({"outcome": 1, "observed_at": "yesterday"}, "/observed_at"),
        ({"outcome": 1, "because": "so"}, "/because"),
    ],
    ids=str,
)
def test_an_outcome_that_could_not_come_about_names_the_field(
    client: TestClient, body: dict[str, Any], pointer: str
) -> None:
    ada = register(client)

    refused = tell(client, ada, predict(client, ada), **body)

    assert refused.status_code == 400
    assert refused.json()["errors"][0]["pointer"].startswith(pointer)


def test_only_who_asked_and_an_admin_may_tell(client: TestClient, database: Database) -> None:
    _, ada = sign_up(client, database, "ada")
    _, eve = sign_up(client, database, "eve")
    _, vera = sign_up(client, database, "vera", "auditor")
    _, root = sign_up(client, database, "root", "admin")
    prediction = predict(client, ada)

    assert tell(client, eve, prediction, outcome=1).status_code == 404
    assert tell(client, vera, prediction, outcome=1).status_code == 403
    assert tell(client, root, prediction, outcome=1).status_code == 201
    assert client.get(f"/predictions/{prediction}/outcomes", headers=vera).status_code == 200
    assert client.get(f"/predictions/{prediction}/outcomes", headers=eve).status_code == 404


def test_a_key_tells_outcomes_only_where_it_is_for_that(client: TestClient) -> None:
    ada = register(client)
    prediction = predict(client, ada)
    for scopes, status in ((["predict", "read"], 403), (["outcome"], 201)):
        order = {"name": "lab", "scopes": scopes}
        key = client.post("/keys", json=order, headers=ada).json()["key"]
        told = tell(client, {"authorization": f"Bearer {key}"}, prediction, outcome=1)
        assert told.status_code == status, scopes


def test_of_many_rows_each_has_an_outcome_of_its_own(client: TestClient) -> None:
    ada = register(client)
    body = {"rows": [GOOD_ROW, GOOD_ROW]}
    rows = client.post("/predict", json=body, headers=ada).json()["predictions"]

    assert tell(client, ada, rows[1]["id"], outcome=1).status_code == 201
    assert client.get(f"/predictions/{rows[0]['id']}/outcomes", headers=ada).json() == {
        "outcomes": []
    }
    beyond = prediction_id(rows[0]["id"], 2)
    assert tell(client, ada, beyond, outcome=1).status_code == 404


def test_a_refused_call_has_no_outcome(client: TestClient) -> None:
    ada = register(client)
    client.post("/predict", json={}, headers=ada)
    refused = client.get("/predictions", headers=ada).json()["predictions"][0]["id"]

    assert tell(client, ada, refused, outcome=1).status_code == 409


def test_an_erasure_takes_the_outcomes_along(
    client: TestClient, database: Database, settings: Settings
) -> None:
    ada_id, ada = sign_up(client, database, "ada")
    _, root = sign_up(client, database, "root", "admin")
    prediction = predict(client, ada)
    tell(client, ada, prediction, outcome=1)

    order = {"user_id": ada_id, "reason": "asked for"}
    assert client.post("/erasures", json=order, headers=root).status_code == 201

    history = client.get(f"/predictions/{prediction}/outcomes", headers=ada).json()
    assert history == {"outcomes": []}
    assert tell(client, ada, prediction, outcome=1).status_code == 409
    verified = command(settings, "verify")
    assert verified.exit_code == 0, verified.output


def test_a_file_of_outcomes_is_loaded_once_and_its_bad_rows_are_told(
    client: TestClient, settings: Settings, tmp_path: Path
) -> None:
    ada = register(client)
    ids = [predict(client, ada) for _ in range(4)]
    file, rejects = tmp_path / "outcomes.csv", tmp_path / "rejects.csv"
    lines = [f"{name},{i % 2},2026-11-2{i}T08:00:00" for i, name in enumerate(ids)]
    bad = ["nothing,1,", f"{ids[0]},ill,", f"{ids[0]},1,tomorrow"]
    file.write_text("\n".join(["prediction_id,outcome,observed_at", *lines, *bad]))

    first = command(settings, "outcomes", "load", str(file), "--rejects", str(rejects))
    again = command(settings, "outcomes", "load", str(file))

    assert first.exit_code == again.exit_code == 3, first.output
    assert "4 outcomes are new" in first.stdout
    assert "0 outcomes are new, 4 were on record, 3 rows" in again.stdout
    told = rejects.read_text().splitlines()
    assert [line.split(",")[0] for line in told[1:]] == ["5", "6", "7"]
    assert "classes: 0, 1" in told[2]


def test_an_entity_is_found_by_its_key_and_its_latest_prediction_before_the_outcome_counts(
    client: TestClient, settings: Settings, tmp_path: Path
) -> None:
    ada = register(client)
    first = predict(client, ada, {**GOOD_ROW, "age": 44.5})
    second = predict(client, ada, {**GOOD_ROW, "age": 44.5})
    file = tmp_path / "outcomes.csv"
    load = ["outcomes", "load", str(file), "--model", "risk", "--key-column", "age"]

    file.write_text("age,outcome\n44.5,1\n")
    assert command(settings, *load).exit_code == 0
    between = client.get(f"/predictions/{second}", headers=ada).json()["received_at"]
    file.write_text(f"age,outcome,observed_at\n44.5,0,{between}\n")
    before = command(settings, *load)
    file.write_text("age,outcome,observed_at\n44.5,0,2020-01-01T00:00:00Z\n99,1,\n")
    none = command(settings, *load)

    def known(name: str) -> list[int]:
        history = client.get(f"/predictions/{name}/outcomes", headers=ada).json()["outcomes"]
        return [it["outcome"] for it in history]

    assert before.exit_code == 0
    assert none.exit_code == 3
    assert "2 rows are not taken" in none.stdout
    assert sorted(known(first) + known(second)) == [0, 1]
    assert 1 in known(second)


def test_live_quality_follows_each_outcome_at_once(
    client: TestClient, database: Database, settings: Settings
) -> None:
    _, ada = sign_up(client, database, "ada")
    _, vera = sign_up(client, database, "vera", "auditor")
    rows = [{**GOOD_ROW, "age": 25 + 6 * i, "smoker": bool(i % 2)} for i in range(10)]
    answers = [client.post("/predict", json=row, headers=ada).json() for row in rows]
    for i, answer in enumerate(answers[:8]):
        right = i != 3
        actual = answer["prediction"] if right else 1 - answer["prediction"]
        tell(client, ada, answer["id"], outcome=actual)

    found = client.get("/models/risk/quality", headers=vera).json()
    assert (found["calls"], found["outcomes"]) == (10, 8)
    (group,) = found["groups"]
    assert group["accuracy"]["value"] == 7 / 8
    assert group["enough"] is False
    tell(client, ada, answers[3]["id"], outcome=answers[3]["prediction"])
    (group,) = client.get("/models/risk/quality", headers=vera).json()["groups"]
    assert group["accuracy"]["value"] == 1
    parts = client.get("/models/risk/quality?by=segment&column=smoker", headers=vera).json()
    assert [(it["group"], it["n"]) for it in parts["groups"]] == [("false", 4), ("true", 4)]
    for by in ("version", "hour", "day", "week"):
        (group,) = client.get(f"/models/risk/quality?by={by}", headers=vera).json()["groups"]
        assert group["n"] == 8
    assert client.get("/models/risk/quality?by=segment", headers=vera).status_code == 400
    assert client.get("/models/risk/quality", headers=ada).status_code == 403
    told = command(settings, "quality", "risk", "--json")
    assert json.loads(told.stdout)["outcomes"] == 8
    assert "accuracy" in command(settings, "quality", "risk").stdout
