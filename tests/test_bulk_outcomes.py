"""Outcomes of many predictions in one body: all of them on record or none, and nobody else's."""

import io
import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from pyarrow import parquet
from sqlalchemy import func, select
from starlette.testclient import TestClient

from calls import Headers, bearer, known, predict, sign_up
from live import GOOD_ROW
from onrecord.insight import recorded_calls
from onrecord.record.database import Database
from onrecord.record.ids import new_request_id, prediction_id
from onrecord.record.tables import outcomes
from onrecord.settings import Settings

ADDRESS = "/models/risk/outcomes"


@pytest.fixture
def ada(settings: Settings) -> Headers:
    """What a user sends."""
    return known(settings)


def tell(client: TestClient, headers: Headers, rows: Any, address: str = ADDRESS) -> Any:
    return client.post(address, json=rows, headers=headers)


def said(name: str, outcome: Any = 1, **more: Any) -> dict[str, Any]:
    return {"prediction_id": name, "outcome": outcome, **more}


def told(client: TestClient, headers: Headers, name: str) -> list[Any]:
    history = client.get(f"/predictions/{name}/outcomes", headers=headers).json()["outcomes"]
    return [it["outcome"] for it in history]


def on_record(database: Database) -> int:
    with database.read() as connection:
        return connection.execute(select(func.count()).select_from(outcomes)).scalar_one()


def faults(answer: Any) -> list[tuple[str, str]]:
    return [(it["pointer"], it["code"]) for it in answer.json()["errors"]]


def make_key(client: TestClient, headers: Headers, **order: Any) -> Headers:
    made = client.post("/keys", json={"name": "lab", **order}, headers=headers)
    assert made.status_code == 201, made.text
    return bearer(made.json()["key"])


def in_parquet(table: pa.Table) -> bytes:
    out = io.BytesIO()
    parquet.write_table(table, out)
    return out.getvalue()


def in_arrow(table: pa.Table) -> bytes:
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table)
    return out.getvalue()


def body_of(form: str, ids: list[str]) -> tuple[bytes, str]:
    """Return outcomes 0, 1, 0, ... that came about on the first day of 2026, and a media type."""
    values = [i % 2 for i in range(len(ids))]
    rows = [
        said(name, value, observed_at="2026-01-01T00:00:00Z")
        for name, value in zip(ids, values, strict=True)
    ]
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    table = pa.table(
        {
            "observed_at": pa.array([moment] * len(ids), pa.timestamp("ns", "Europe/Berlin")),
            "prediction_id": pa.array(ids).dictionary_encode(),
            "outcome": pa.array(values, pa.int8()),
        }
    )
    match form:
        case "list":
            return json.dumps(rows).encode(), "application/json"
        case "rows":
            return json.dumps({"rows": rows}).encode(), "application/json"
        case "lines":
            return b"\n".join(map(msgspec.json.encode, rows)) + b"\n", "application/x-ndjson"
        case "csv":
            lines = [f"{it['outcome']},{it['prediction_id']},2026-01-01T00:00:00" for it in rows]
            text = "\r\n".join(["outcome,prediction_id,observed_at", *lines])
            return text.encode(), "text/csv"
        case "arrow":
            return in_arrow(table), "application/vnd.apache.arrow.stream"
        case _:
            return in_parquet(table), "application/vnd.apache.parquet"


@pytest.mark.parametrize("form", ["list", "rows", "lines", "csv", "arrow", "parquet"])
def test_outcomes_come_in_every_form_and_once(client: TestClient, ada: Headers, form: str) -> None:
    many = client.post("/predict", json={"rows": [GOOD_ROW] * 2}, headers=ada).json()
    ids = [predict(client, ada), *(it["id"] for it in many["predictions"])]
    body, media_type = body_of(form, ids)
    headers = ada | {"content-type": media_type}

    first = client.post(ADDRESS, content=body, headers=headers)
    again = client.post(ADDRESS, content=body, headers=headers)

    assert first.status_code == 201, first.text
    assert [it["prediction_id"] for it in first.json()["outcomes"]] == ids
    assert first.json()["new"] == 3
    assert again.status_code == 200
    assert again.json()["new"] == 0
    assert [it["id"] for it in again.json()["outcomes"]] == [
        it["id"] for it in first.json()["outcomes"]
    ]
    assert [told(client, ada, name) for name in ids] == [[0], [1], [0]]
    history = client.get(f"/predictions/{ids[0]}/outcomes", headers=ada).json()["outcomes"]
    assert history[0]["observed_at"] == "2026-01-01T00:00:00Z"


def test_what_is_told_later_corrects_what_was_told_before_also_in_one_body(
    client: TestClient, ada: Headers
) -> None:
    first, second = predict(client, ada), predict(client, ada)
    tell(client, ada, [said(first, 1)])

    corrected = tell(client, ada, [said(second, 1), said(first, 0), said(second, 0)])

    assert corrected.json()["new"] == 3
    assert told(client, ada, first) == told(client, ada, second) == [0, 1]


def test_one_bad_row_keeps_all_off_the_record_and_every_bad_row_is_named(
    client: TestClient, ada: Headers, database: Database
) -> None:
    good = predict(client, ada)
    client.post("/predict", json={}, headers=ada)
    refused = client.get("/predictions", headers=ada).json()["predictions"][0]["id"]
    rows: list[Any] = [
        said(good),
        said("nothing"),
        said(good, "ill"),
        said(good, None),
        said(good, observed_at="tomorrow"),
        said(good, because="so"),
        {"outcome": 1},
        7,
        said(refused),
        said(prediction_id(good, 1)),
        said(new_request_id()),
        said(good, [1]),
        {"prediction_id": 5, "outcome": {}},
    ]

    answer = tell(client, ada, rows)

    assert answer.status_code == 400
    assert sorted(faults(answer)) == sorted(
        [
            ("/rows/1/prediction_id", "wrong_form"),
            ("/rows/2/outcome", "wrong"),
            ("/rows/3/outcome", "missing"),
            ("/rows/4/observed_at", "wrong_form"),
            ("/rows/5/because", "unknown_field"),
            ("/rows/6/prediction_id", "missing"),
            ("/rows/7", "wrong_shape"),
            ("/rows/8/prediction_id", "not_found"),
            ("/rows/9/prediction_id", "not_found"),
            ("/rows/10/prediction_id", "not_found"),
            ("/rows/11/outcome", "wrong"),
            ("/rows/12/prediction_id", "wrong_form"),
        ]
    )
    assert "classes: 0, 1" in answer.text
    assert on_record(database) == 0


def test_at_most_a_thousand_faults_are_listed_and_all_are_counted(
    client: TestClient, ada: Headers
) -> None:

    answer = tell(client, ada, [said("nothing")] * 1500)

    assert len(answer.json()["errors"]) == 1000
    assert answer.json()["detail"].startswith("1500 fields do not fit.")


def test_a_body_has_bounds_and_a_stranger_may_send_none(client: TestClient, ada: Headers) -> None:

    assert client.post(ADDRESS, content=b" " * (5 << 20), headers=ada).status_code == 413
    # Larger than what the routes of accounts take, and within what this one does.
    large = client.post(ADDRESS, content=b"[]" + b" " * (1 << 20), headers=ada)
    assert large.status_code == 200, large.text
    assert client.post(ADDRESS, content=b"[]").status_code == 401
    answer = client.post(ADDRESS, content=b"[]", headers=ada | {"content-type": "text/plain"})
    assert answer.status_code == 415
    packed = ada | {"content-encoding": "gzip"}
    assert client.post(ADDRESS, content=b"[]", headers=packed).status_code == 415


def test_nobody_tells_or_learns_of_the_predictions_of_another(
    client: TestClient, database: Database
) -> None:
    _, ada = sign_up(client, database, "ada")
    _, eve = sign_up(client, database, "eve")
    _, vera = sign_up(client, database, "vera", "auditor")
    _, root = sign_up(client, database, "root", "admin")
    hers = predict(client, ada, {**GOOD_ROW, "age": 44.5})
    there, nowhere = said(hers), said(new_request_id())

    for address, rows in (
        (ADDRESS, [there, nowhere]),
        (f"{ADDRESS}?key_column=age", [{"age": age, "outcome": 1} for age in (44.5, 43.5)]),
    ):
        refused = tell(client, eve, rows, address)
        assert refused.status_code == 400
        one, other = refused.json()["errors"]
        for name in ("pointer", "received"):
            del one[name], other[name]
        assert one == other
        assert tell(client, vera, rows, address).status_code == 403
        assert on_record(database) == 0
    assert tell(client, root, [there]).status_code == 201
    by_key = tell(client, root, [{"age": 44.5, "outcome": 0}], f"{ADDRESS}?key_column=age")
    assert by_key.json()["outcomes"][0]["prediction_id"] == hers
    assert told(client, ada, hers) == [0, 1]


def test_a_key_column_finds_ones_own_latest_prediction_before_the_outcome(
    client: TestClient, ada: Headers, settings: Settings
) -> None:
    eve = known(settings, "eve")
    first = predict(client, ada, {**GOOD_ROW, "age": 44.5})
    second = predict(client, ada, {**GOOD_ROW, "age": 44.5})
    predict(client, eve, {**GOOD_ROW, "age": 44.5})
    between = client.get(f"/predictions/{first}", headers=ada).json()["received_at"]
    rows = [{"age": 44.5, "outcome": 1}, {"age": 44.5, "outcome": 0, "observed_at": between}]

    answer = tell(client, ada, rows, f"{ADDRESS}?key_column=age")
    early = [{"age": 44.5, "outcome": 1, "observed_at": "2020-01-01T00:00:00Z"}]
    none = tell(client, ada, early, f"{ADDRESS}?key_column=age")

    assert [it["prediction_id"] for it in answer.json()["outcomes"]] == [second, first]
    assert faults(none) == [("/rows/0/age", "not_found")]


@pytest.mark.parametrize("column", ["height", "outcome", "x" * 201])
def test_a_key_column_that_cannot_be_is_named(
    client: TestClient, ada: Headers, column: str
) -> None:

    answer = tell(client, ada, [], f"{ADDRESS}?key_column={column}")

    assert answer.status_code == 400
    assert faults(answer)[0][0] == "/key_column"


def test_a_model_that_is_not_there_has_no_outcomes(client: TestClient, ada: Headers) -> None:
    prediction = predict(client, ada)

    assert tell(client, ada, [said(prediction)], "/models/other/outcomes").status_code == 404


def test_a_key_tells_outcomes_with_the_scope_of_its_models_and_its_kind_of_calls(
    client: TestClient, ada: Headers
) -> None:
    key = make_key(client, ada, scopes=["outcome"])
    test_key = make_key(client, ada, scopes=["predict", "outcome"], kind="test")
    live = predict(client, ada, {**GOOD_ROW, "age": 44.5})
    test = predict(client, test_key, {**GOOD_ROW, "age": 44.5})
    by_age = f"{ADDRESS}?key_column=age"

    without = make_key(client, ada, scopes=["predict", "read"])
    assert tell(client, without, [said(live)]).status_code == 403
    elsewhere = make_key(client, ada, scopes=["outcome"], models=["other"])
    assert tell(client, elsewhere, [said(live)]).status_code == 404
    assert tell(client, key, [said(test)]).status_code == 400
    assert tell(client, test_key, [said(live)]).status_code == 400
    assert tell(client, key, [said(live)]).status_code == 201
    assert tell(client, test_key, [said(test)]).status_code == 201
    for caller, prediction in ((key, live), (test_key, test)):
        answer = tell(client, caller, [{"age": 44.5, "outcome": 0}], by_age)
        assert [it["prediction_id"] for it in answer.json()["outcomes"]] == [prediction]


def test_an_admins_key_tells_of_its_owners_calls_only(
    client: TestClient, database: Database
) -> None:
    _, ada = sign_up(client, database, "ada")
    _, root = sign_up(client, database, "root", "admin")
    key = make_key(client, root, scopes=["outcome"])

    assert tell(client, key, [said(predict(client, ada))]).status_code == 400
    assert on_record(database) == 0


def test_an_erased_call_has_no_outcome(client: TestClient, database: Database) -> None:
    ada_id, ada = sign_up(client, database, "ada")
    _, root = sign_up(client, database, "root", "admin")
    prediction = predict(client, ada)
    order = {"user_id": ada_id, "reason": "asked for"}
    assert client.post("/erasures", json=order, headers=root).status_code == 201

    assert faults(tell(client, ada, [said(prediction)])) == [("/rows/0/prediction_id", "not_found")]


def test_the_calls_of_one_user_are_read_to_their_end_and_the_newest_of_them_only(
    client: TestClient, database: Database, ada: Headers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded_calls, "_CALLS_AT_ONCE", 2)
    ids = [predict(client, ada, {**GOOD_ROW, "age": 40.5 + i}) for i in range(5)]
    user_id = client.get("/users/me", headers=ada).json()["id"]

    def found(**more: Any) -> list[str]:
        meant = recorded_calls.Meant("risk", user_id=user_id, **more)
        batches = recorded_calls.recorded_calls(database, meant)
        return [call.id for calls in batches for call in calls]

    assert found() == ids
    assert found(newest=3) == ids[2:]
    assert found(test=True) == []
