"""Naughty strings through every text that a caller can send, and out again where operators read."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
import skops.io
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from starlette.testclient import TestClient
from typer.testing import CliRunner

from live import PASSWORD
from naughty import NAUGHTY
from onrecord.app import create_app
from onrecord.cli.main import _build
from onrecord.record import reader, users
from onrecord.record.database import Database
from onrecord.settings import Settings, load_settings
from serving.models import schema_of

ALL = [text for texts in NAUGHTY.values() for text in texts]
SHORT = [text for text in ALL if len(text) < 300]
Headers = dict[str, str]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def settings(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    """A server of a model that takes text, on an empty database of each kind in turn."""
    home = tmp_path_factory.mktemp("strings")
    (home / "mood").mkdir()
    texts = ["good fine", "bad sad", "fine day", "sad day"] * 5
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, [1, 0, 1, 0] * 5)
    skops.io.dump(model, home / "mood" / "model.skops")
    (home / "mood" / "input_schema.json").write_text(schema_of([{"name": "said", "type": "text"}]))
    url = f"sqlite:///{home / 'record.db'}"
    if request.param == "postgresql":
        cluster = request.getfixturevalue("postgres_cluster")
        name = f"test_{uuid.uuid4().hex}"
        cluster.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        url = cluster.url_for(name)
    yield load_settings(
        model_dir=home / "mood", data_dir=home / "data", database=url, log_level="error"
    )
    if request.param == "postgresql":
        cluster.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings)) as client:
        yield client


@pytest.fixture(scope="module")
def admin(client: TestClient, settings: Settings) -> Headers:
    answer = client.post("/users", json={"username": "root", "password": PASSWORD})
    database = Database(settings.database_url)
    with database.write() as connection:
        users.set_role(connection, answer.json()["user"]["id"], "admin")
    database.close()
    return {"authorization": f"Bearer {answer.json()['access_token']}"}


def as_json(document: object) -> dict[str, Any]:
    """A body that may have half a pair in it, which httpx would not encode."""
    return {
        "content": json.dumps(document).encode(),
        "headers": {"content-type": "application/json"},
    }


def check(answer: httpx2.Response, expected: set[int]) -> None:
    """Raise where an answer is a server error, or a refusal is not a problem."""
    assert answer.status_code in expected, (answer.status_code, answer.text[:500])
    kind = answer.headers.get("content-type", "")
    if answer.status_code >= 400 and "error_description" not in answer.text:
        assert kind == "application/problem+json"
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert "html" not in kind
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_as_a_text_that_the_model_reads(client: TestClient, admin: Headers) -> None:
    for text in ALL:
        sent = as_json({"said": text})
        answer = client.post("/predict", **sent | {"headers": sent["headers"] | admin})

        whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") == text
        check(answer, {200} if whole else {400})
        identifier = answer.headers["x-request-id"]
        shown = client.get(f"/predictions/{identifier}", headers=admin)
        check(shown, {200})
        if whole:
            assert shown.json()["input"] == {"said": text}


def test_as_a_name_or_a_value_that_no_model_knows(client: TestClient, admin: Headers) -> None:
    for text in ALL:
        for document in ({text: 1}, {"said": [text]}, {"said": "x", text: {text: text}}):
            sent = as_json(document)
            answer = client.post("/predict", **sent | {"headers": sent["headers"] | admin})

            check(answer, {400})
            check(
                client.get(f"/predictions/{answer.headers['x-request-id']}", headers=admin), {200}
            )


def test_as_a_username_an_email_and_a_password(client: TestClient, admin: Headers) -> None:
    made = 0
    for text in SHORT:
        for document in (
            {"username": text, "password": PASSWORD},
            {"username": f"u{made}", "password": PASSWORD, "email": text},
            {"username": f"u{made}", "password": PASSWORD, "email": f"{text}@x"},
            {"username": "root", "password": text},
            {"username": "root", "password": PASSWORD, text: text},
        ):
            answer = client.post("/users", **as_json(document))
            check(answer, {201, 400, 409})
            if answer.status_code == 201:
                made += 1
                shown = client.get(f"/users/{answer.json()['user']['id']}", headers=admin)
                assert shown.json()["email"] == document.get("email")
    assert made < 80  # each of them costs a password's hash


def test_as_a_credential(client: TestClient) -> None:
    address = 0
    for text in SHORT:
        address += 1
        for answer in (
            client.post("/token", **as_json({"username": text, "password": ""})),
            client.post(
                "/token", **as_json({"grant_type": text, "username": "a", "password": "b"})
            ),
            client.post(
                "/token", data={"grant_type": "refresh_token", "refresh_token": "x" + repr(text)}
            ),
            client.post("/token", content=quote(text, errors="surrogatepass").encode()),
            client.post("/revoke", **as_json({"token": text})),
            client.post(
                "/revoke", content=b"token=" + quote(text, errors="surrogatepass").encode()
            ),
        ):
            check(answer, {200, 400, 415})


def test_as_an_authorization(client: TestClient) -> None:
    for text in ALL:
        raw = text.encode("utf-8", "surrogatepass")
        for value in (raw, b"Bearer " + raw, b"Bearer onr_live_" + raw, b"Basic " + raw):
            answer = client.get("/users/me", headers={b"authorization": value})

            check(answer, {401})
            assert answer.headers["www-authenticate"].startswith('Bearer realm="onrecord"')
            assert text not in answer.headers["www-authenticate"] or len(text) < 3 or text.isascii()


def test_as_a_key(client: TestClient, admin: Headers) -> None:
    for text in SHORT:
        for document in (
            {"name": text},
            {"name": "a", "scopes": [text]},
            {"name": "a", "models": [text]},
            {"name": "a", "kind": text},
            {"name": "a", "expires_at": text},
        ):
            sent = as_json(document)
            answer = client.post("/keys", **sent | {"headers": sent["headers"] | admin})
            check(answer, {201, 400})
            if answer.status_code == 201:
                assert client.delete(f"/keys/{answer.json()['id']}", headers=admin).is_success
    page = client.get("/keys?limit=1000", headers=admin)
    check(page, {200})


PLACES = [
    "/{}", "/users/{}", "/predictions/{}", "/predictions/{}/proof", "/models/{}", "/models/{}/schema",
    "/static/{}", "/predictions?user={}", "/predictions?before={}", "/predictions?model={}",
    "/predictions?version={}", "/predictions?status={}", "/predictions?since={}", "/predictions?until={}",
    "/predictions?x_request_id={}", "/predictions?api_key={}", "/predictions?test={}",
    "/predictions?limit={}", "/users?after={}", "/users?limit={}", "/keys?user={}", "/keys?after={}",
    "/predictions?{}=1",
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_as_a_part_of_an_address(client: TestClient, admin: Headers, place: str) -> None:
    for text in SHORT:
        address = place.replace("{}", quote(text, safe="", errors="surrogatepass"))
        check(client.get(address, headers=admin), {200, 307, 400, 404, 405})


def test_as_the_name_of_a_model_or_an_id_to_change(client: TestClient, admin: Headers) -> None:
    for text in SHORT:
        part = quote(text, safe="", errors="surrogatepass")
        check(client.post(f"/models/{part}/predict", json={"said": "x"}, headers=admin), {404, 405})
        check(client.patch(f"/users/{part}", json={}, headers=admin), {404, 405})
        check(client.delete(f"/users/{part}", headers=admin), {404, 405})
        check(client.delete(f"/keys/{part}", headers=admin), {404, 405})


@pytest.mark.parametrize(
    "name", ["content-type", "accept", "x-request-id", "host", "x-forwarded-for"]
)
def test_as_a_header(client: TestClient, admin: Headers, name: str) -> None:
    for text in SHORT:
        value = text.encode("utf-8", "surrogatepass")
        headers = {key.encode(): word.encode() for key, word in admin.items()}
        answer = client.post(
            "/predict", content=b'{"said": "x"}', headers=headers | {name.encode(): value}
        )

        check(answer, {200, 400, 406, 415})
        assert (
            value not in answer.headers["x-request-id"].encode()
            or value.isalnum()
            or len(value) < 3
        )


def test_operators_read_it_all_and_no_terminal_obeys(
    client: TestClient, admin: Headers, settings: Settings, tmp_path: Path
) -> None:
    hostile = ["[/red]", "[link=//evil.test]a[/link]", "=1+1", "{0}", "%s"]
    for name in hostile:
        assert client.post("/keys", json={"name": name}, headers=admin).status_code == 201
    for i, name in enumerate(["[/red]", "a\x9b2Jb", "\u202egpj"]):
        registration = {"username": f"h{i}", "password": PASSWORD, "email": f"{name}@x"}
        assert client.post("/users", json=registration).status_code == 201
    environment = {
        "ONRECORD_DATABASE": settings.database_url,
        "ONRECORD_DATA_DIR": str(settings.data_dir),
        "COLUMNS": "200",
        "ONRECORD_CONFIG": str(tmp_path / "none.toml"),
    }

    for words in (
        ["log", "--limit", "2000"],
        ["log", "--limit", "2000", "--json"],
        ["users", "list"],
        ["users", "list", "--json"],
        ["api-keys", "list"],
        ["api-keys", "list", "--json"],
        ["export"],
        ["export", "--format", "csv"],
        ["export", "--format", "parquet", "-o", str(tmp_path / "record.parquet")],
    ):
        ran = CliRunner().invoke(_build(), words, env=environment)
        assert ran.exit_code == 0, (words, ran.exception)
        if "csv" not in words and words[0] != "export":
            controls = {c for c in ran.output if not c.isprintable()} - {"\n"}
            assert not controls - ({"\u2028", "\u2029"} if "--json" in words else set()), words
    shown = CliRunner().invoke(_build(), ["api-keys", "list"], env=environment).output
    assert "[/red]" in shown


def test_what_was_sent_is_what_is_on_record(
    client: TestClient, settings: Settings, admin: Headers
) -> None:
    """Bytes are kept as they came; text of addresses and headers is as every database can hold it."""
    bodies = [json.dumps({"said": text}).encode() for text in SHORT]
    bodies += [
        json.dumps({"said": t}, ensure_ascii=False).encode("utf-8", "surrogatepass") for t in SHORT
    ]
    kept = {}
    for body in bodies:
        answer = client.post("/predict", content=body, headers=admin)
        kept[answer.headers["x-request-id"]] = (body, answer.content)
    database = Database(settings.database_url)
    with database.read() as connection:
        for identifier, (body, output) in kept.items():
            entry = reader.find(connection, identifier, user_id=None)
            assert entry is not None
            assert (entry.input, entry.output) == (body, output)
    database.close()
