"""Calls as MLflow's and SageMaker's clients make them: the same call, the same record."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from calls import known, recorded
from conftest import Application, started
from live import GOOD_ROW
from onrecord.record.database import Database
from onrecord.settings import Settings

OTHER_ROW = GOOD_ROW | {"age": 20.25, "smoker": False}
ROWS = [GOOD_ROW, OTHER_ROW]
NAMES = list(GOOD_ROW)
VALUES = [list(row.values()) for row in ROWS]
BACKWARDS = [values[::-1] for values in VALUES]
PLAIN_CSV = "61.5,130,true,3\n20.25,130,false,3\n"

BODIES: dict[str, dict[str, Any]] = {
    "split": {"dataframe_split": {"columns": NAMES[::-1], "index": [0, 1], "data": BACKWARDS}},
    "records": {"dataframe_records": ROWS},
    "instances": {"instances": ROWS},
    "lists": {"instances": VALUES},
    "inputs": {"inputs": {name: [row[name] for row in ROWS] for name in NAMES}},
    "matrix": {"inputs": VALUES, "params": {}},
}


@pytest.fixture(scope="module")
def application(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    """On SQLite alone: what differs between the databases lies behind the calls."""
    home = tmp_path_factory.mktemp("invocations")
    with started(model_dir, home, f"sqlite:///{home / 'record.db'}", {}) as running:
        yield running


@pytest.fixture
def client(client: TestClient, settings: Settings) -> TestClient:
    client.headers.update(known(settings))
    return client


def expected(client: TestClient) -> list[Any]:
    answer = client.post("/predict", json={"rows": ROWS})
    return [row["prediction"] for row in answer.json()["predictions"]]


@pytest.mark.parametrize("form", BODIES)
def test_every_form_of_mlflow_gets_the_predictions_and_is_on_record_as_a_call(
    client: TestClient, database: Database, form: str
) -> None:
    wanted = expected(client)

    answer = client.post("/invocations", json=BODIES[form])

    assert (answer.status_code, answer.json()) == (200, {"predictions": wanted}), answer.text
    call = client.get(f"/predictions/{answer.headers['x-request-id']}").json()
    assert [row["prediction"] for row in call["output"]["predictions"]] == wanted
    given = call["input"]
    rows = given.get("rows") or [
        dict(zip(NAMES, values, strict=True))
        for values in zip(*given["columns"].values(), strict=True)
    ]
    assert rows == ROWS


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (PLAIN_CSV, "text/csv"),
        (PLAIN_CSV, "text/csv; header=absent"),
        (f"age,pressure,smoker,visits\n{PLAIN_CSV}", "text/csv"),
        (f"age,pressure,smoker,visits\n{PLAIN_CSV}", "text/csv; charset=utf-8; header=present"),
    ],
)
def test_csv_comes_with_a_header_or_without_and_goes_by_accept(
    client: TestClient, body: str, content_type: str
) -> None:
    wanted = expected(client)
    headers = {"content-type": content_type}

    in_json = client.post("/invocations", content=body, headers=headers)
    in_csv = client.post("/invocations", content=body, headers=headers | {"accept": "text/csv"})

    assert in_json.json() == {"predictions": wanted}
    assert in_csv.headers["content-type"] == "text/csv; charset=utf-8"
    assert in_csv.text == "".join(f"{prediction}\n" for prediction in wanted)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, ""),
        ([], ""),
        ({"inputs": VALUES, "instances": VALUES}, ""),
        ({"instances": VALUES, "signature_name": "x"}, "/signature_name"),
        ({"instances": VALUES, "params": {"k": 1}}, "/params"),
        ({"instances": 1}, "/instances"),
        ({"instances": [[1, 2]]}, "/instances/0"),
        ({"dataframe_split": []}, "/dataframe_split"),
        ({"dataframe_split": {"data": VALUES}}, "/dataframe_split/columns"),
        ({"dataframe_split": {"columns": ["age", "age"]}}, "/dataframe_split/columns/1"),
        ({"dataframe_split": {"columns": NAMES}}, "/dataframe_split/data"),
        ({"dataframe_records": [GOOD_ROW | {"age": "old"}]}, "/rows/0/age"),
        ({"dataframe_split": {"columns": ["age"], "data": [[1]]}}, "/rows/0/pressure"),
        (
            {"inputs": {"age": [float("nan")], "pressure": [1], "smoker": [1], "visits": [1]}},
            "/rows/0/age",
        ),
    ],
    ids=str,
)
def test_a_body_that_does_not_fit_is_refused_by_the_place_of_its_fault_and_on_record(
    client: TestClient, database: Database, body: Any, pointer: str
) -> None:
    answer = client.post("/invocations", content=json.dumps(body))

    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert (recorded(database)[0].status, recorded(database)[0].error_code) == (
        400,
        "invalid_input",
    )


def test_what_a_call_may_the_same_call_of_mlflow_may(
    client: TestClient, database: Database
) -> None:
    sent = {"instances": [GOOD_ROW]}
    key = {"idempotency-key": '"mlflow-1"'}

    first = client.post("/invocations", json=sent, headers=key)
    again = client.post("/invocations", json=sent, headers=key)

    assert again.content == first.content
    assert again.headers["idempotent-replayed"] == "true"
    assert len(recorded(database)) == 1
    assert client.post("/invocations", json=sent, headers={"authorization": ""}).status_code == 401
    assert client.post("/models/none/invocations", json=sent).status_code == 404
    assert client.post("/models/risk/invocations", json=sent).json() == first.json()
    pinned = "/models/risk/versions/live/invocations"
    assert client.post(pinned, json=sent).json() == first.json()
    assert client.get("/invocations").status_code == 405
    assert client.post("/invocations?explain=true", json=sent).status_code == 400
    media = {"content-type": "text/plain"}
    assert client.post("/invocations", content="1", headers=media).status_code == 415
    picky = client.post("/invocations", json=sent, headers={"accept": "text/html"})
    assert picky.status_code == 406


def test_ping_tells_by_its_status_alone_whether_calls_are_answered(client: TestClient) -> None:
    answer = client.get("/ping", headers={"authorization": ""})

    assert (answer.status_code, answer.content) == (200, b"")
