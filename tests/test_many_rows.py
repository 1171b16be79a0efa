"""Many rows over HTTP: each form in, each form out, and both on record as they were."""

import base64
import csv
import io
import json
import sys
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from starlette.testclient import TestClient

from calls import known, recorded
from live import GOOD_ROW
from onrecord.http import negotiate
from onrecord.record.database import Database
from onrecord.record.ids import prediction_id
from onrecord.settings import Settings

CSV = "text/csv"
ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"
JSON = "application/json"

ROWS = [GOOD_ROW | {"age": 20.25 + i, "visits": i % 7, "smoker": i % 3 == 0} for i in range(40)]
COLUMNS = {name: [row[name] for row in ROWS] for name in GOOD_ROW}


@pytest.fixture(scope="module")
def more_settings() -> dict[str, Any]:
    return {"max_rows": 100}


@pytest.fixture
def client(client: TestClient, settings: Settings) -> TestClient:
    client.headers.update(known(settings))
    return client


def as_csv(columns: dict[str, list[Any]]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out)
    names = sorted(columns)  # another order than the schema's
    writer.writerow(names)
    writer.writerows(zip(*(columns[name] for name in names), strict=True))
    return out.getvalue().encode()


def as_arrow(table: pa.Table) -> bytes:
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table)
    return out.getvalue()


def as_parquet(table: pa.Table) -> bytes:
    out = io.BytesIO()
    parquet.write_table(table, out)
    return out.getvalue()


TABLE = pa.table(COLUMNS)
BODIES = {
    "rows": (json.dumps({"rows": ROWS}).encode(), JSON),
    "columns": (json.dumps({"columns": COLUMNS}).encode(), JSON),
    "csv": (as_csv(COLUMNS), "Text/CSV; charset=utf-8"),
    "arrow": (as_arrow(TABLE), ARROW),
    "parquet": (as_parquet(TABLE), PARQUET),
}


def read(content: bytes, content_type: str) -> list[dict[str, Any]]:
    if content_type == JSON:
        return [
            {
                "id": row["id"],
                "prediction": row["prediction"],
                **{f"probability_{name}": value for name, value in row["probabilities"].items()},
            }
            for row in json.loads(content)["predictions"]
        ]
    if content_type.startswith(CSV):
        return [
            {
                "id": row["id"],
                "prediction": int(row["prediction"]),
                "probability_0": float(row["probability_0"]),
                "probability_1": float(row["probability_1"]),
            }
            for row in csv.DictReader(io.StringIO(content.decode()))
        ]
    if content_type == ARROW:
        return pa.ipc.open_stream(content).read_all().to_pylist()
    return parquet.read_table(pa.BufferReader(content)).to_pylist()


@pytest.mark.parametrize("accept", [JSON, CSV, ARROW, PARQUET])
@pytest.mark.parametrize("form", BODIES)
def test_every_form_of_the_same_rows_gets_the_same_answers_in_every_form(
    client: TestClient, database: Database, form: str, accept: str
) -> None:
    body, content_type = BODIES[form]
    expected = read(client.post("/predict", json={"rows": ROWS}).content, JSON)

    answer = client.post(
        "/predict", content=body, headers={"content-type": content_type, "accept": accept}
    )

    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].split(";")[0] == accept
    request_id = answer.headers["x-request-id"]
    found = read(answer.content, answer.headers["content-type"])
    assert [row.pop("id") for row in found] == [prediction_id(request_id, i) for i in range(40)]
    assert found == [{k: v for k, v in row.items() if k != "id"} for row in expected]
    entry = recorded(database)[0]
    assert (entry.input, entry.output) == (body, answer.content)
    assert entry.content_type == content_type
    told = None if accept == JSON else answer.headers["content-type"]
    assert entry.output_content_type == told


def test_one_row_as_json_can_be_answered_in_another_form(client: TestClient) -> None:
    plain = client.post("/predict", json=GOOD_ROW).json()

    answer = client.post("/predict", json=GOOD_ROW, headers={"accept": ARROW})

    (row,) = read(answer.content, ARROW)
    assert row["prediction"] == plain["prediction"]
    assert row["probability_1"] == plain["probabilities"]["1"]


def test_answers_say_which_model_gave_them(client: TestClient) -> None:
    model = client.post("/predict", json=GOOD_ROW).json()["model"]

    for accept in (ARROW, PARQUET):
        answer = client.post("/predict", json=GOOD_ROW, headers={"accept": accept}).content
        schema = (
            pa.ipc.open_stream(answer).schema
            if accept == ARROW
            else parquet.read_schema(pa.BufferReader(answer))
        )
        assert json.loads(schema.metadata[b"onrecord.model"]) == model


@pytest.mark.parametrize("form", ["columns", "csv", "arrow", "parquet"])
def test_every_bad_value_is_named_and_the_refusal_is_a_problem_on_record(
    client: TestClient, database: Database, form: str
) -> None:
    bad: dict[str, list[Any]] = COLUMNS | {"age": ["old", *["x"] * 39]}
    del bad["visits"]
    bad["wings"] = [2] * 40
    table = pa.table(bad)
    body = {
        "columns": json.dumps({"columns": bad}).encode(),
        "csv": as_csv(bad),
        "arrow": as_arrow(table),
        "parquet": as_parquet(table),
    }[form]

    answer = client.post(
        "/predict", content=body, headers={"content-type": BODIES[form][1], "accept": CSV}
    )

    problem = answer.json()
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    found = [(e["pointer"], e["code"]) for e in problem["errors"]]
    assert found[:3] == [
        ("/visits", "missing"),
        ("/wings", "unknown_field"),
        ("/rows/0/age", "wrong_type"),
    ]
    assert len(found) == 42
    (entry,) = recorded(database)
    assert (entry.status, entry.input, entry.output) == (400, body, answer.content)
    assert entry.output_content_type is None


ACCEPTS = [
    (None, JSON),
    ("", JSON),
    ("*/*", JSON),
    ("application/*", JSON),
    ("text/*", CSV),
    ("text/csv, */*;q=0.1", CSV),
    ("text/csv;q=0.5, application/json;q=0.9", JSON),
    (f"text/html, {PARQUET}", PARQUET),
    (f"{ARROW};q=1.0, {PARQUET};q=0.4", ARROW),
    ("text/csv, */*", CSV),
    ("application/json;q=0, */*", CSV),
    ("TEXT/CSV", CSV),
    ("text/html", "406"),
    ("*/*;q=0", "406"),
    ("text/csv;q=x", "406"),
]


@pytest.mark.parametrize(("accept", "expected"), ACCEPTS)
def test_the_accept_header_chooses_the_form(
    client: TestClient, database: Database, accept: str | None, expected: str
) -> None:
    request = client.build_request("POST", "/predict", json={"rows": ROWS})
    if accept is None:
        del request.headers["accept"]
    else:
        request.headers["accept"] = accept

    answer = client.send(request)

    if expected == "406":
        assert answer.status_code == 406
        assert answer.json()["code"] == "not_acceptable"
        assert answer.headers["content-type"] == "application/problem+json"
        assert recorded(database)[0].error_code == "not_acceptable"
    else:
        assert answer.status_code == 200
        assert answer.headers["content-type"].split(";")[0] == expected


def test_without_pyarrow_other_forms_are_refused_with_the_extra_that_brings_it(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    negotiate.form_of.cache_clear()
    try:
        body, content_type = BODIES["csv"]
        given = client.post("/predict", content=body, headers={"content-type": content_type})
        wanted = client.post("/predict", json=GOOD_ROW, headers={"accept": CSV})
        usual = client.post("/predict", json={"rows": ROWS})
    finally:
        negotiate.form_of.cache_clear()

    assert given.status_code == 415
    assert wanted.status_code == 406
    for refusal in (given, wanted):
        assert "onrecord[data]" in refusal.json()["detail"]
    assert usual.status_code == 200


def test_what_is_not_text_is_shown_in_base64_with_its_content_type(client: TestClient) -> None:
    body, content_type = BODIES["arrow"]
    answer = client.post(
        "/predict", content=body, headers={"content-type": content_type, "accept": PARQUET}
    )
    last = prediction_id(answer.headers["x-request-id"], 39)

    shown = client.get(f"/predictions/{last}").json()

    assert shown["id"] == last
    assert shown["input"] == {"content_type": ARROW, "base64": base64.b64encode(body).decode()}
    assert base64.b64decode(shown["output"]["base64"]) == answer.content
    assert shown["output"]["content_type"] == shown["output_content_type"] == PARQUET
    beyond = prediction_id(answer.headers["x-request-id"], 40)
    assert client.get(f"/predictions/{beyond}").status_code == 404


def test_csv_is_shown_as_text(client: TestClient) -> None:
    body, content_type = BODIES["csv"]
    answer = client.post(
        "/predict", content=body, headers={"content-type": content_type, "accept": CSV}
    )
    identifier = prediction_id(answer.headers["x-request-id"], 39)

    shown = client.get(f"/predictions/{identifier}").json()

    assert (shown["input"], shown["output"]) == (body.decode(), answer.text)
    page = client.get("/predictions").json()["predictions"]
    assert page[0]["output"] == answer.text
