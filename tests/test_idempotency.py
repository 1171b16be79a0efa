"""Idempotency keys from the outside: who sends a call again gets the answer it got before."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from live import GOOD_ROW, PASSWORD
from onrecord.app import create_app
from onrecord.errors import InvalidIdempotencyKey
from onrecord.http.idempotency import idempotency_key
from onrecord.settings import Settings, load_settings
from postgres import Cluster

Headers = dict[str, str]
OTHER_ROW = GOOD_ROW | {"age": 20}

_numbers = count()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def settings(
    request: pytest.FixtureRequest, model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Settings:
    home = tmp_path_factory.mktemp("idempotency")
    url = f"sqlite:///{home / 'record.db'}"
    if request.param == "postgresql":
        cluster: Cluster = request.getfixturevalue("postgres_cluster")
        cluster.execute("CREATE DATABASE idempotency TEMPLATE template0")
        url = cluster.url_for("idempotency")
    return load_settings(
        model_dir=model_dir,
        data_dir=home / "data",
        database=url,
        max_body_bytes=20_000,
        log_level="error",
    )


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings)) as client:
        yield client


@pytest.fixture
def user(client: TestClient) -> Headers:
    """What a new user sends."""
    return sign_up(client)


def sign_up(client: TestClient) -> Headers:
    name = f"user-{next(_numbers)}"
    answer = client.post("/users", json={"username": name, "password": PASSWORD})
    assert answer.status_code == 201, answer.text
    return {"authorization": f"Bearer {answer.json()['access_token']}"}


def make_key(client: TestClient, user: Headers, kind: str) -> Headers:
    made = client.post("/keys", json={"name": "batch", "kind": kind}, headers=user)
    assert made.status_code == 201, made.text
    return {"authorization": f"Bearer {made.json()['key']}"}


def keyed(user: Headers, key: str = '"order-7"', **more: str) -> Headers:
    return user | {"idempotency-key": key} | {k.replace("_", "-"): v for k, v in more.items()}


def recorded(client: TestClient, user: Headers, query: str = "") -> list[dict[str, Any]]:
    page = client.get(f"/predictions?limit=100{query}", headers=user).json()
    entries: list[dict[str, Any]] = page["predictions"]
    return entries


def assert_same(again: httpx2.Response, first: httpx2.Response) -> None:
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["content-type"] == first.headers["content-type"]
    assert again.headers["idempotent-replayed"] == "true"


def test_a_retry_gets_the_same_answer_and_no_second_row(client: TestClient, user: Headers) -> None:
    first = client.post("/predict", json=GOOD_ROW, headers=keyed(user))
    again = client.post("/predict", json=GOOD_ROW, headers=keyed(user, x_request_id="retry-1"))

    assert first.status_code == 200
    assert "idempotent-replayed" not in first.headers
    assert_same(again, first)
    assert again.headers["x-request-id"] == "retry-1"
    (entry,) = recorded(client, user)
    assert (entry["id"], entry["idempotency_key"]) == (first.json()["id"], "order-7")


def test_fifty_retries_at_once_are_one_prediction(client: TestClient, user: Headers) -> None:
    def call(_: int) -> httpx2.Response:
        return client.post("/predict", json=GOOD_ROW, headers=keyed(user))

    with ThreadPoolExecutor(50) as threads:
        answers = list(threads.map(call, range(50)))

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 49
    (entry,) = recorded(client, user)
    assert entry["id"] == answers[0].json()["id"]


@pytest.mark.parametrize("accept", ["application/json", "text/csv"])
def test_many_rows_are_replayed_in_the_form_they_had(
    client: TestClient, user: Headers, accept: str
) -> None:
    body = {"rows": [GOOD_ROW, OTHER_ROW]}

    first = client.post("/predict", json=body, headers=keyed(user, accept=accept))
    again = client.post("/predict", json=body, headers=keyed(user, accept=accept))

    assert first.headers["content-type"].startswith(accept)
    assert_same(again, first)
    assert len(recorded(client, user)) == 1


def test_a_refusal_of_the_input_is_replayed(client: TestClient, user: Headers) -> None:
    first = client.post("/predict", json={"age": "old"}, headers=keyed(user))
    again = client.post("/predict", json={"age": "old"}, headers=keyed(user))

    assert first.status_code == 400
    assert_same(again, first)
    assert len(recorded(client, user)) == 1


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("/predict", OTHER_ROW, {}),
        ("/predict", GOOD_ROW, {"content-type": "application/json;charset=utf-8"}),
        ("/predict", GOOD_ROW, {"accept": "text/csv"}),
        ("/predict", {"age": "old"}, {}),
    ],
    ids=["body", "content type", "accept", "bad input"],
)
def test_the_key_of_another_call_is_refused_and_the_refusal_holds_no_key(
    client: TestClient, user: Headers, path: str, body: object, headers: Headers
) -> None:
    sent = keyed(user) | {"content-type": "application/json"}
    first = client.post(path, content=json.dumps(GOOD_ROW), headers=sent)

    other = client.post(path, content=json.dumps(body), headers=sent | headers)

    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    refusal, prediction = recorded(client, user)
    assert (refusal["status"], refusal["idempotency_key"]) == (422, None)
    assert prediction["id"] == first.json()["id"]
    assert_same(client.post(path, content=json.dumps(GOOD_ROW), headers=sent), first)


def test_other_calls_with_the_key_of_one_that_runs_are_refused(
    client: TestClient, user: Headers
) -> None:
    rows = [GOOD_ROW, OTHER_ROW] * 10

    def call(row: object) -> httpx2.Response:
        return client.post("/predict", json=row, headers=keyed(user))

    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(call, rows))

    winner = next(r for r, a in zip(rows, answers, strict=True) if a.status_code == 200)
    for row, answer in zip(rows, answers, strict=True):
        assert answer.status_code == (200 if row == winner else 422), answer.text
    assert [e["input"] for e in recorded(client, user, "&status=200")] == [winner]


def test_a_key_belongs_to_its_user_whichever_credential_it_comes_with(
    client: TestClient, user: Headers
) -> None:
    live = make_key(client, user, "live")
    first = client.post("/predict", json=GOOD_ROW, headers=keyed(user))

    assert_same(client.post("/predict", json=GOOD_ROW, headers=keyed(live)), first)
    theirs = client.post("/predict", json=GOOD_ROW, headers=keyed(sign_up(client)))
    assert theirs.status_code == 200
    assert theirs.json()["id"] != first.json()["id"]


def test_test_calls_and_live_calls_share_no_answer(client: TestClient, user: Headers) -> None:
    test = make_key(client, user, "test")
    made = client.post("/predict", json=GOOD_ROW, headers=keyed(test))

    refused = client.post("/predict", json=GOOD_ROW, headers=keyed(user))

    assert (made.status_code, refused.status_code) == (200, 422)
    assert_same(client.post("/predict", json=GOOD_ROW, headers=keyed(test)), made)


EARLY_REFUSALS: list[tuple[str, bytes, Headers, int]] = [
    ("/models/none/predict", b"{}", {}, 404),
    ("/predict", b"{}", {"accept": "image/png"}, 406),
    ("/predict", b" " * 20_001, {}, 413),
    ("/predict", b"{}", {"content-type": "text/plain"}, 415),
    ("/predict", b"{}", {"authorization": "Bearer wrong"}, 401),
]


def test_a_call_that_is_refused_before_it_is_read_leaves_the_key_free(
    client: TestClient, user: Headers
) -> None:
    for path, content, headers, status in EARLY_REFUSALS:
        refused = client.post(path, content=content, headers=keyed(user) | headers)
        assert refused.status_code == status

    answer = client.post("/predict", json=GOOD_ROW, headers=keyed(user))

    assert (answer.status_code, "idempotent-replayed" in answer.headers) == (200, False)


def test_the_answer_is_replayed_after_a_restart(settings: Settings, client: TestClient) -> None:
    user = sign_up(client)
    first = client.post("/predict", json=GOOD_ROW, headers=keyed(user))

    with TestClient(create_app(settings)) as restarted:
        again = restarted.post("/predict", json=GOOD_ROW, headers=keyed(user))

    assert_same(again, first)


def test_workers_that_do_not_know_of_each_other_give_one_answer(
    settings: Settings, client: TestClient
) -> None:
    user = sign_up(client)
    with TestClient(create_app(settings)) as other, ThreadPoolExecutor(16) as threads:

        def call(place: int) -> tuple[int, bytes]:
            key = f"race-{place // 16}"
            worker = (client, other)[place % 2]
            answer = worker.post("/predict", json=GOOD_ROW, headers=keyed(user, key))
            return answer.status_code, answer.content

        answers = list(threads.map(call, range(160)))

    for start in range(0, 160, 16):
        assert len(set(answers[start : start + 16])) == 1
    assert {status for status, _ in answers} == {200}
    assert len(recorded(client, user)) == 10


def test_a_malformed_key_is_refused_and_says_what_is_right(
    client: TestClient, user: Headers
) -> None:
    answer = client.post("/predict", json=GOOD_ROW, headers=keyed(user, '"'))

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_idempotency_key")
    assert "1 to 255 printable ASCII characters in quotes" in answer.json()["detail"]
    (entry,) = recorded(client, user)
    assert (entry["status"], entry["idempotency_key"]) == (400, None)


@pytest.mark.parametrize(
    ("sent", "key"),
    [
        (b'"8e03978e-40d5-43dd"', "8e03978e-40d5-43dd"),
        (b"8e03978e-40d5-43dd", "8e03978e-40d5-43dd"),
        (b' "a b" ', "a b"),
        (rb'"a\"\\b"', r'a"\b'),
        (b"a;b=1:/+", "a;b=1:/+"),
        (b'"' + b"k" * 255 + b'"', "k" * 255),
    ],
)
def test_a_key_is_a_quoted_string_or_bare(sent: bytes, key: str) -> None:
    assert idempotency_key([(b"idempotency-key", sent)]) == key


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b'""',
        b'"',
        b'"a',
        b'a"b"',
        rb'"\a"',
        b"a b",
        b"a,b",
        b'"a", "b"',
        b'"a";p=1',
        b'"\xc3\xa9"',
        b"\x7f",
        b"k" * 256,
        b'"' + b"k" * 256 + b'"',
    ],
)
def test_what_is_no_key_is_refused(sent: bytes) -> None:
    with pytest.raises(InvalidIdempotencyKey):
        idempotency_key([(b"idempotency-key", sent)])


def test_two_keys_are_refused() -> None:
    with pytest.raises(InvalidIdempotencyKey):
        idempotency_key([(b"idempotency-key", b'"a"')] * 2)
