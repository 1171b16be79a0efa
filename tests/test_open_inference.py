"""The Open Inference Protocol V2 over REST, by hand and by Triton's own client."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from starlette.testclient import TestClient
from tritonclient.utils import InferenceServerException

from calls import known, recorded, sign_up
from conftest import Application, started
from live import GOOD_ROW, Server, live_server
from onrecord.record.database import Database
from onrecord.settings import Settings

OTHER_ROW = GOOD_ROW | {"age": 20.25, "smoker": False}
ROWS = [GOOD_ROW, OTHER_ROW]
DATATYPES = {"age": "FP64", "pressure": "FP64", "smoker": "BOOL", "visits": "INT64"}
INFER = "/v2/models/risk/infer"
COLUMNS = [
    {"name": name, "datatype": kind, "shape": [2], "data": [row[name] for row in ROWS]}
    for name, kind in DATATYPES.items()
]
MATRIX = [[float(value) for value in row.values()] for row in ROWS]


@pytest.fixture(scope="module")
def application(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    """On SQLite alone: what differs between the databases lies behind the calls."""
    home = tmp_path_factory.mktemp("inference")
    with started(model_dir, home, f"sqlite:///{home / 'record.db'}", {}) as running:
        yield running


@pytest.fixture
def client(client: TestClient, settings: Settings) -> TestClient:
    client.headers.update(known(settings))
    return client


def expected(client: TestClient) -> tuple[list[Any], list[float]]:
    """The predictions, and the probabilities in one list, that the rows get by /predict."""
    rows = client.post("/predict", json={"rows": ROWS}).json()["predictions"]
    chances = [value for row in rows for value in row["probabilities"].values()]
    return [row["prediction"] for row in rows], chances


@pytest.mark.parametrize(
    "inputs",
    [
        COLUMNS,
        [tensor | {"shape": [2, 1]} for tensor in COLUMNS],
        [{"name": "x", "datatype": "FP32", "shape": [2, 4], "data": MATRIX}],
        [{"name": "x", "datatype": "FP64", "shape": [2, 4], "data": MATRIX[0] + MATRIX[1]}],
    ],
    ids=["columns", "columns of one", "nested matrix", "flat matrix"],
)
def test_tensors_get_the_answers_of_predict_and_are_on_record_as_a_call(
    client: TestClient, inputs: list[Any]
) -> None:
    predictions, chances = expected(client)

    answer = client.post(INFER, json={"id": "mine", "inputs": inputs})

    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["model_name"], told["id"]) == ("risk", "mine")
    assert told["outputs"] == [
        {"name": "prediction", "datatype": "INT64", "shape": [2], "data": predictions},
        {"name": "probabilities", "datatype": "FP64", "shape": [2, 2], "data": chances},
    ]
    call = client.get(f"/predictions/{told['parameters']['prediction_id']}").json()
    assert [row["prediction"] for row in call["output"]["predictions"]] == predictions
    assert call["input"]["columns"]["age"] == [row["age"] for row in ROWS]


def test_bytes_follow_the_json_on_the_way_in_and_out(client: TestClient) -> None:
    predictions, chances = expected(client)
    raw = np.array(MATRIX, dtype="<f4").tobytes()
    asked = {
        "inputs": [
            {
                "name": "x",
                "datatype": "FP32",
                "shape": [2, 4],
                "parameters": {"binary_data_size": len(raw)},
            }
        ],
        "outputs": [
            {"name": "probabilities", "parameters": {"binary_data": True}},
            {"name": "prediction"},
        ],
    }
    head = client.build_request("POST", INFER, json=asked).content
    headers = {
        "inference-header-content-length": str(len(head)),
        "content-type": "application/octet-stream",
    }

    answer = client.post(INFER, content=head + raw, headers=headers)

    assert answer.status_code == 200, answer.text
    size = int(answer.headers["inference-header-content-length"])
    assert answer.content[size:] == struct.pack("<4d", *chances)
    outputs = json.loads(answer.content[:size])
    assert outputs["outputs"][0]["parameters"] == {"binary_data_size": 32}
    assert outputs["outputs"][1]["data"] == predictions


ONE = COLUMNS[0]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ([], ""),
        ({}, "/inputs"),
        ({"inputs": [1]}, "/inputs/0"),
        ({"inputs": [{}]}, "/inputs/0/name"),
        ({"inputs": [ONE, ONE]}, "/inputs/1/name"),
        ({"inputs": COLUMNS, "id": 1}, "/id"),
        ({"inputs": COLUMNS, "outputs": [{"name": "x"}]}, "/outputs/0/name"),
        ({"inputs": [ONE | {"shape": [2, 1, 1]}]}, "/inputs/0/shape"),
        ({"inputs": [ONE | {"shape": [3]}]}, "/inputs/0/data"),
        ({"inputs": [ONE | {"shape": [1, 2]}]}, "/inputs/0/shape"),
        ({"inputs": [ONE | {"datatype": "STRING"}]}, "/inputs/0/datatype"),
        ({"inputs": [ONE | {"data": [1, "old"]}]}, "/inputs/0/data/1"),
        (
            {"inputs": [ONE | {"parameters": {"binary_data_size": 8}}]},
            "/inputs/0/parameters/binary_data_size",
        ),
        ({"inputs": COLUMNS[1:]}, "/age"),
        ({"inputs": [*COLUMNS[1:], ONE | {"data": [1, 1e300]}]}, "/rows/1/age"),
    ],
    ids=str,
)
def test_a_fault_is_named_in_the_errors_text_and_on_record(
    client: TestClient, database: Database, body: Any, pointer: str
) -> None:
    answer = client.post(INFER, json=body)

    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/json"
    told = answer.json()
    assert told["errors"][0]["pointer"] == pointer
    assert f"{pointer or '/'}: {told['errors'][0]['detail']}" in told["error"]
    assert recorded(database)[0].error_code == "invalid_input"


@pytest.mark.parametrize(
    ("datatype", "raw"),
    [("FP32", b"12345"), ("BYTES", b"\x09\0\0\0ab"), ("BYTES", b"\x01\0\0\0\xff"), ("FP64", b"")],
)
def test_bytes_that_are_no_tensor_are_refused(
    client: TestClient, datatype: str, raw: bytes
) -> None:
    parameters = {"binary_data_size": len(raw)}
    tensor = {"name": "age", "datatype": datatype, "shape": [1], "parameters": parameters}
    head = client.build_request("POST", INFER, json={"inputs": [tensor]}).content
    headers = {"inference-header-content-length": str(len(head))}

    answer = client.post(INFER, content=head + raw, headers=headers)
    too_long = client.post(INFER, content=head, headers=dict.fromkeys(headers, "9999"))
    left_over = client.post(INFER, content=head + raw + b"more", headers=headers)

    assert [it.status_code for it in (answer, too_long, left_over)] == [400] * 3


def test_bytes_of_no_tensor_are_refused(client: TestClient) -> None:
    asked = client.build_request("POST", INFER, json={"inputs": COLUMNS}).content
    headers = {"inference-header-content-length": str(len(asked))}

    assert client.post(INFER, content=asked, headers=headers).status_code == 200
    refused = client.post(INFER, content=asked + b"more", headers=headers)

    assert refused.status_code == 400
    assert "4 bytes follow" in refused.json()["error"]


def test_tensors_of_more_rows_than_a_call_may_have_are_not_unpacked(client: TestClient) -> None:
    size = 500_000
    tensor = {
        "name": "x",
        "datatype": "UINT8",
        "shape": [size, 4],
        "parameters": {"binary_data_size": 4 * size},
    }
    head = client.build_request("POST", INFER, json={"inputs": [tensor]}).content
    headers = {"inference-header-content-length": str(len(head))}

    refused = client.post(INFER, content=head + bytes(4 * size), headers=headers)

    assert refused.status_code == 400
    assert refused.json()["errors"][0]["pointer"] == "/inputs/0/shape"


@pytest.mark.parametrize("path", [INFER, "/invocations"])
def test_what_is_no_json_is_refused_and_on_record_as_it_came(
    client: TestClient, database: Database, path: str
) -> None:
    answer = client.post(path, content=b'{"inputs": [1, ')

    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_json")
    entry = recorded(database)[0]
    assert (entry.error_code, entry.input) == ("malformed_json", b'{"inputs": [1, ')


def test_every_refusal_of_the_protocol_has_its_shape(
    client: TestClient, database: Database
) -> None:
    _, auditor = sign_up(client, database, "vera", "auditor")
    sent = {"inputs": COLUMNS}
    stranger = {"authorization": ""}

    answers = [
        (401, client.post(INFER, json=sent, headers=stranger)),
        (401, client.get("/v2", headers=stranger)),
        (401, client.get("/v2/models/risk/ready", headers=stranger)),
        (403, client.post(INFER, json=sent, headers=auditor)),
        (404, client.post("/v2/models/none/infer", json=sent)),
        (404, client.get("/v2/models/none")),
        (404, client.get("/v2/models/risk/versions/7/ready")),
        (404, client.get("/v2/nothing")),
        (405, client.get(INFER)),
        (406, client.post(INFER, json=sent, headers={"accept": "text/csv"})),
        (415, client.post(INFER, json=sent, headers={"content-type": "text/csv"})),
    ]

    for status, answer in answers:
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/json"
        assert answer.json()["error"].startswith(answer.json()["detail"])


def test_the_limits_of_a_key_count_its_tensors(client: TestClient) -> None:
    made = client.post("/keys", json={"name": "k", "quota": 2, "kind": "test"}).json()
    key = {"authorization": f"Bearer {made['key']}"}
    sent = {"inputs": COLUMNS}

    answers = [client.post(INFER, json=sent, headers=key) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert int(answers[2].headers["retry-after"]) > 0
    assert answers[2].json()["error"] == answers[2].json()["detail"]
    assert answers[0].headers["ratelimit"]
    tried = client.get("/predictions?test=true").json()["predictions"]
    assert [it["status"] for it in tried] == [429, 200, 200]


def test_a_retry_gets_its_first_answer_with_its_own_id(
    client: TestClient, database: Database
) -> None:
    key = {"idempotency-key": '"v2-1"'}

    first = client.post(INFER, json={"id": "a", "inputs": COLUMNS}, headers=key)
    again = client.post(INFER, json={"id": "b", "inputs": COLUMNS}, headers=key)
    other = client.post(INFER, json={"inputs": COLUMNS[1:]}, headers=key)

    assert again.headers["idempotent-replayed"] == "true"
    assert again.json() == first.json() | {"id": "b"}
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert [entry.status for entry in recorded(database)] == [422, 200]


def test_what_reads_the_record_reads_calls_of_the_protocol(client: TestClient) -> None:
    made = client.post(INFER, json={"inputs": COLUMNS}).json()["parameters"]["prediction_id"]

    replayed = client.get(f"/predictions/{made}/replay?version=live")
    told = client.post(f"/predictions/{made}/outcome", json={"outcome": 1})

    assert (replayed.status_code, replayed.json()["changed"]) == (200, 0)
    assert told.status_code == 201


def test_health_and_metadata_tell_what_is_served(client: TestClient) -> None:
    stranger = {"authorization": ""}

    assert client.get("/v2/health/live", headers=stranger).json() == {"live": True}
    assert client.get("/v2/health/ready", headers=stranger).json() == {"ready": True}
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    assert client.get("/v2/models/risk/ready").json() == {"ready": True, "name": "risk"}
    told = client.get("/v2/models/risk").json()
    assert told == client.get("/v2/models/risk/versions/live").json()
    assert told["versions"] == ["1"]
    assert {it["name"]: it["datatype"] for it in told["inputs"]} == DATATYPES
    assert told["outputs"] == [
        {"name": "prediction", "datatype": "INT64", "shape": [-1], "parameters": {}},
        {
            "name": "probabilities",
            "datatype": "FP64",
            "shape": [-1, 2],
            "parameters": {"classes": ["0", "1"]},
        },
    ]


def test_the_documented_example_succeeds_when_sent(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]

    for path in (INFER, "/invocations"):
        content = paths[path]["post"]["requestBody"]["content"]["application/json"]
        for example in content["examples"].values():
            assert client.post(path, json=example["value"]).status_code == 200


@pytest.fixture(scope="module")
def server(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with live_server(model_dir, tmp_path_factory.mktemp("triton") / "data") as running:
        yield running


@pytest.mark.parametrize("binary", [True, False])
def test_tritons_client_is_answered(server: Server, binary: bool) -> None:
    headers = {"authorization": f"Bearer {server.register(f'triton-{binary}')}"}
    matrix = np.array(MATRIX, dtype=np.float32)
    tensor = triton.InferInput("x", [2, 4], "FP32")
    tensor.set_data_from_numpy(matrix, binary_data=binary)
    asked = [triton.InferRequestedOutput("probabilities", binary_data=binary)]
    columns = []
    for name, kind in DATATYPES.items():
        dtype = {"FP64": np.float64, "BOOL": np.bool_, "INT64": np.int64}[kind]
        columns.append(triton.InferInput(name, [2], kind))
        values = np.array([row[name] for row in ROWS], dtype=dtype)
        columns[-1].set_data_from_numpy(values, binary_data=binary)

    with triton.InferenceServerClient(server.base.removeprefix("http://")) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("risk", headers=headers)
        assert client.get_server_metadata(headers=headers)["name"] == "onrecord"
        assert client.get_model_metadata("risk", headers=headers)["name"] == "risk"
        by_matrix = client.infer("risk", [tensor], outputs=asked, headers=headers)
        by_columns = client.infer("risk", columns, request_id="7", headers=headers)
        wrong = [triton.InferRequestedOutput("none")]
        with pytest.raises(InferenceServerException, match="no such output"):
            client.infer("risk", [tensor], outputs=wrong, headers=headers)

    assert by_matrix.as_numpy("prediction") is None
    chances = by_matrix.as_numpy("probabilities")
    assert chances.shape == (2, 2)
    assert by_columns.get_response()["id"] == "7"
    assert np.allclose(by_columns.as_numpy("probabilities"), chances)
    assert (by_columns.as_numpy("prediction") == chances.argmax(axis=1)).all()
