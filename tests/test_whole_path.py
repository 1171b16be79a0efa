"""The main path from the outside: register, token, predict, and the row on record."""

import hashlib
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from calls import recorded, register, sign_up
from live import GOOD_ROW, PASSWORD
from onrecord.app import create_app
from onrecord.record.database import Database
from onrecord.record.ids import is_id, request_id_of
from onrecord.settings import Settings


@pytest.fixture(scope="module")
def more_settings() -> dict[str, Any]:
    return {"max_body_bytes": 20_000}


def test_registration_hands_out_a_token_that_predicts(client: TestClient, model_dir: Path) -> None:
    answer = client.post(
        "/users", json={"username": "ada", "password": PASSWORD, "email": "ada@example.com"}
    )

    body = answer.json()
    assert answer.status_code == 201
    assert body["token_type"] == "bearer"
    assert body["expires_in"] == 3600
    assert body["user"]["username"] == "ada"
    assert body["user"]["role"] == "user"
    predicted = client.post(
        "/predict", json=GOOD_ROW, headers={"authorization": f"Bearer {body['access_token']}"}
    )
    assert predicted.status_code == 200, predicted.text
    answer = predicted.json()
    assert is_id(answer["id"])
    assert answer["model"]["name"] == "risk"
    assert (
        answer["model"]["sha256"]
        == hashlib.sha256((model_dir / "model.skops").read_bytes()).hexdigest()
    )
    assert answer["prediction"] in (0, 1)
    assert set(answer["probabilities"]) == {"0", "1"}
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_the_record_holds_the_bytes_that_came_and_went(
    client: TestClient, database: Database
) -> None:
    headers = register(client)
    body = b'{"age":61.50, "pressure" : 1.3e2,\n"smoker":1,"visits":3}'

    answer = client.post("/predict", content=body, headers=headers)

    (entry,) = recorded(database)
    assert entry.input == body
    assert entry.output == answer.content
    assert entry.id == answer.json()["id"] == answer.headers["x-request-id"]
    assert entry.status == 200
    assert entry.username == "ada"
    assert entry.model_sha256 == answer.json()["model"]["sha256"]


def test_many_rows_get_an_id_each_that_leads_to_their_call(client: TestClient) -> None:
    headers = register(client)

    answer = client.post("/predict", json={"rows": [GOOD_ROW] * 3}, headers=headers).json()

    ids = [prediction["id"] for prediction in answer["predictions"]]
    assert len(set(ids)) == 3
    assert {request_id_of(i) for i in ids} == {answer["id"]}
    shown = client.get(f"/predictions/{ids[2]}", headers=headers).json()
    assert shown["id"] == ids[2]
    assert shown["output"] == answer
    beyond = ids[2][:-1] + "3"
    assert client.get(f"/predictions/{beyond}", headers=headers).status_code == 404


def test_every_bad_field_is_named_and_the_refusal_is_on_record(
    client: TestClient, database: Database
) -> None:
    headers = register(client)
    row = {"age": "old", "pressure": None, "smoker": "false", "wings": 2}

    answer = client.post("/predict", json=row, headers=headers)

    problem = answer.json()
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert {e["pointer"] for e in problem["errors"]} == {
        "/age",
        "/pressure",
        "/smoker",
        "/visits",
        "/wings",
    }
    (entry,) = recorded(database)
    assert entry.status == 400
    assert entry.error_code == "invalid_input"
    assert entry.output == answer.content
    assert set(entry.error_fields) == {e["pointer"] for e in problem["errors"]}


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        pytest.param(b"{", "application/json", 400, id="not JSON"),
        pytest.param(b"\xff\xfe\x00", "application/json", 400, id="not UTF-8"),
        pytest.param(b"[" * 5000, "application/json", 400, id="deep nesting"),
        pytest.param(b"[]", "application/json", 400, id="wrong shape"),
        pytest.param(b"a=1", "application/x-www-form-urlencoded", 415, id="wrong media type"),
        pytest.param(b" " * 20_001, "application/json", 413, id="too large"),
    ],
)
def test_refusals_of_a_known_user_are_problems_and_on_record(
    client: TestClient, database: Database, content: bytes, content_type: str, status: int
) -> None:
    headers = register(client) | {"content-type": content_type}

    answer = client.post("/predict", content=content, headers=headers)

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    (entry,) = recorded(database)
    assert entry.status == status
    assert entry.output == answer.content
    assert entry.input == (None if status == 413 else content)


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer ", "Bearer nonsense", "Basic YTpi", "nonsense"],
)
def test_strangers_get_a_challenge_and_no_row(
    client: TestClient, database: Database, authorization: str | None
) -> None:
    headers = {} if authorization is None else {"authorization": authorization}

    answer = client.post("/predict", json=GOOD_ROW, headers=headers)

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.headers["content-type"] == "application/problem+json"
    assert recorded(database) == []


def test_the_bare_token_is_accepted(client: TestClient) -> None:
    token = register(client)["authorization"].removeprefix("Bearer ")

    answer = client.post("/predict", json=GOOD_ROW, headers={"authorization": token})

    assert answer.status_code == 200


def test_a_caller_sees_only_its_own_record_and_an_admin_sees_all(
    client: TestClient, database: Database
) -> None:
    ada, bob = register(client, "ada"), register(client, "bob")
    mine = client.post("/predict", json=GOOD_ROW, headers=ada).json()["id"]
    _, admin = sign_up(client, database, "root", "admin")

    assert [p["id"] for p in client.get("/predictions", headers=ada).json()["predictions"]] == [
        mine
    ]
    assert client.get("/predictions", headers=bob).json()["predictions"] == []
    assert client.get(f"/predictions/{mine}", headers=bob).status_code == 404
    assert client.get(f"/predictions/{mine}", headers=admin).status_code == 200
    assert len(client.get("/predictions", headers=admin).json()["predictions"]) == 1


def test_pages_of_the_record_join_without_gap_or_overlap(client: TestClient) -> None:
    headers = register(client)
    made = [client.post("/predict", json=GOOD_ROW, headers=headers).json()["id"] for _ in range(7)]

    seen: list[str] = []
    address: str | None = "/predictions?limit=3"
    while address:
        page = client.get(address, headers=headers)
        seen += [p["id"] for p in page.json()["predictions"]]
        address = page.links["next"]["url"] if page.json()["next"] else None

    assert seen == made[::-1]


def test_a_client_request_id_is_echoed_and_on_record(client: TestClient) -> None:
    headers = register(client) | {"x-request-id": "order-77"}

    answer = client.post("/predict", json=GOOD_ROW, headers=headers)

    assert answer.headers["x-request-id"] == "order-77"
    found = client.get("/predictions?x_request_id=order-77", headers=headers).json()
    assert [p["id"] for p in found["predictions"]] == [answer.json()["id"]]


def test_deleting_the_model_directory_does_not_disturb_a_running_server(
    settings: Settings, model_dir: Path, tmp_path: Path
) -> None:
    doomed = shutil.copytree(model_dir, tmp_path / "doomed" / model_dir.name)
    app = create_app(settings.model_copy(update={"model_dir": (doomed,)}))
    shutil.rmtree(doomed)

    with TestClient(app) as client:
        answer = client.post("/predict", json=GOOD_ROW, headers=register(client))

    assert answer.status_code == 200


def test_if_the_record_cannot_be_written_there_is_no_prediction(
    client: TestClient, database: Database
) -> None:
    headers = register(client)
    with database.write() as connection:
        connection.exec_driver_sql("ALTER TABLE responses RENAME TO responses_gone")

    try:
        answer = client.post("/predict", json=GOOD_ROW, headers=headers)
        ready = client.get("/readyz")
    finally:
        with database.write() as connection:
            connection.exec_driver_sql("ALTER TABLE responses_gone RENAME TO responses")

    if database.dialect == "postgresql":
        # It is in the spool, from where it goes on record as soon as it can.
        assert answer.status_code == ready.status_code == 200
        assert ready.json()["status"] == "spooling"
        while client.get("/readyz").json()["spool"]["waiting"]:
            time.sleep(0.05)
        assert len(recorded(database)) == 1
        return
    assert answer.status_code == 503
    assert "retry-after" in answer.headers
    assert "prediction" not in answer.json()
    assert ready.status_code == 503
    assert client.post("/predict", json=GOOD_ROW, headers=headers).status_code == 200
    assert len(recorded(database)) == 1


def test_a_disabled_user_is_shut_out_and_a_deleted_one_stays_on_record(
    client: TestClient, database: Database
) -> None:
    ada_id, ada = sign_up(client, database, "ada")
    _, admin = sign_up(client, database, "root", "admin")
    client.post("/predict", json=GOOD_ROW, headers=ada)

    changed = client.patch(f"/users/{ada_id}", json={"disabled": True}, headers=admin)

    assert changed.json()["disabled_at"] is not None
    deadline = time.monotonic() + 1.5
    while client.post("/predict", json=GOOD_ROW, headers=ada).status_code != 401:
        assert time.monotonic() < deadline, "a disabled user still predicts"
    assert client.delete(f"/users/{ada_id}", headers=admin).status_code == 204
    page = client.get(f"/predictions?user={ada_id}", headers=admin).json()
    assert {p["username"] for p in page["predictions"]} == {"ada"}


def test_only_an_admin_reaches_the_users(client: TestClient, database: Database) -> None:
    ada = register(client)
    root_id, admin = sign_up(client, database, "root", "admin")

    assert client.get("/users", headers=ada).status_code == 403
    assert client.get(f"/users/{root_id}", headers=ada).status_code == 404
    assert client.patch(f"/users/{root_id}", json={}, headers=ada).status_code == 403
    assert client.delete(f"/users/{root_id}", headers=ada).status_code == 403
    assert len(client.get("/users", headers=admin).json()["users"]) == 2


def test_registration_cannot_make_an_admin(client: TestClient) -> None:
    answer = client.post("/users", json={"username": "eve", "password": PASSWORD, "role": "admin"})

    assert answer.status_code == 400
    assert answer.json()["errors"][0]["pointer"] == "/role"


def test_a_password_never_comes_back_in_an_error(client: TestClient) -> None:
    answer = client.post("/users", json={"username": "eve", "password": ["s3cret-words"]})

    assert answer.status_code == 400
    assert "s3cret-words" not in answer.text


def test_a_taken_username_is_a_conflict(client: TestClient) -> None:
    register(client, "ada")

    answer = client.post("/users", json={"username": "ADA", "password": PASSWORD})

    assert answer.status_code == 409


def test_closed_registration_refuses(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"registration": "closed"}))

    with TestClient(app) as client:
        answer = client.post("/users", json={"username": "ada", "password": PASSWORD})

    assert answer.status_code == 403


@pytest.mark.parametrize("as_json", [False, True], ids=["form", "json"])
def test_signing_in_gives_a_token_and_wrong_passwords_an_oauth_error(
    client: TestClient, as_json: bool
) -> None:
    register(client)
    kind = "json" if as_json else "data"

    good = client.post("/token", **{kind: {"username": "ada", "password": PASSWORD}})
    wrong = client.post("/token", **{kind: {"username": "ada", "password": "not the password"}})
    unknown = client.post("/token", **{kind: {"username": "eve", "password": "not the password"}})

    assert good.status_code == 200
    assert good.headers["cache-control"] == "no-store"
    assert wrong.status_code == unknown.status_code == 400
    assert wrong.json() == unknown.json()
    assert wrong.json()["error"] == "invalid_grant"


def test_errors_have_one_shape_everywhere(client: TestClient) -> None:
    headers = register(client)
    answers = [
        client.get("/nowhere"),
        client.put("/predict"),
        client.get("/users/me"),
        client.get("/predictions?limit=0", headers=headers),
        client.get("/predictions?before=x", headers=headers),
        client.post("/users", content=b"{", headers={"content-type": "application/json"}),
        client.post("/users", content=b" " * 70_000),
        client.post("/models/none/predict", json={}, headers=headers),
        client.get("/models/none/schema", headers=headers),
    ]

    for answer in answers:
        assert answer.headers["content-type"] == "application/problem+json", answer.text
        assert {"type", "title", "status", "detail", "code", "request_id"} <= set(answer.json())
        assert answer.json()["status"] == answer.status_code
        assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_the_documented_example_succeeds_when_sent(client: TestClient) -> None:
    headers = register(client)
    document = client.get("/openapi.json").json()
    content = document["paths"]["/predict"]["post"]["requestBody"]["content"]

    for example in content["application/json"]["examples"].values():
        assert client.post("/predict", json=example["value"], headers=headers).status_code == 200


def test_models_say_which_runtime_serves_and_why(client: TestClient) -> None:
    headers = register(client)

    (model,) = client.get("/models", headers=headers).json()["models"]

    assert model["runtime"] == "onnx"
    assert model["runtime_reason"]
    schema = client.get(f"/models/{model['name']}/schema", headers=headers).json()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert client.get("/models").status_code == 401


def test_health_answers_without_a_token(client: TestClient, database: Database) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    spool = {"spool": "ok"} if database.dialect == "postgresql" else {}
    ready = client.get("/readyz").json()
    assert ready["checks"] == {
        "model": "ok",
        "database": "ok",
        "writer": "ok",
        **spool,
    }
    assert ready["seal"] == {"size": 0, "signed_at": None, "unsealed": 0}
