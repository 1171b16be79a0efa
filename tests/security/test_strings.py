"""Naughty strings through every text that a caller can send, and out again where operators read."""

from __future__ import annotations

import json
import re
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
from onrecord.record import reader
from onrecord.record.database import Database
from onrecord.settings import Settings, load_settings
from serving.models import schema_of

DATABASES_DIFFER = ("control characters", "half a pair", "numbers", "SQL")
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
CHALLENGE = re.compile(r'Bearer realm="onrecord"(, error="[a-z_]+", error_description="[^"]*")?')
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
    with TestClient(create_app(settings), follow_redirects=False) as client:
        yield client


@pytest.fixture(scope="module")
def strings(settings: Settings) -> list[str]:
    """Every string; on the second kind of database those in which databases differ."""
    kinds = NAUGHTY if "postgresql" in settings.database_url else DATABASES_DIFFER
    return [text for kind in kinds for text in NAUGHTY[kind]]


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


def test_as_a_text_that_the_model_reads(
    client: TestClient, admin: Headers, strings: list[str]
) -> None:
    for text in strings:
        sent = as_json({"said": text})
        answer = client.post("/predict", **sent | {"headers": sent["headers"] | admin})

        whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") == text
        check(answer, {200} if whole else {400})
        shown = client.get(f"/predictions/{answer.headers['x-request-id']}", headers=admin)
        check(shown, {200})
        if whole:
            assert shown.json()["input"] == {"said": text}


def test_as_a_name_or_a_value_that_no_model_knows(
    client: TestClient, admin: Headers, strings: list[str]
) -> None:
    for text in strings:
        sent = as_json({"said": [text], text + "x": {text: text}})
        answer = client.post("/predict", **sent | {"headers": sent["headers"] | admin})

        check(answer, {400})
        check(client.get(f"/predictions/{answer.headers['x-request-id']}", headers=admin), {200})


def test_as_a_username_an_email_and_a_password(
    client: TestClient, admin: Headers, strings: list[str]
) -> None:
    asked: list[dict[str, str]] = [{"username": text, "password": "short"} for text in strings]
    asked += [{"username": "root", "password": PASSWORD, text + "x": text} for text in strings]
    asked += [{"username": text, "password": PASSWORD} for text in strings[::12]]
    asked += [{"username": "root", "password": text} for text in strings[::12]]
    asked += [
        {"username": f"u{i}", "password": PASSWORD, "email": f"{text}@x"}
        for i, text in enumerate(strings[::8])
    ]
    for document in asked:
        answer = client.post("/users", **as_json(document))

        check(answer, {201, 400, 409, 413})
        assert "short" not in answer.text.replace("too_short", "").replace("too short", "")
        if answer.status_code == 201:
            shown = client.get(f"/users/{answer.json()['user']['id']}", headers=admin)
            assert shown.json()["username"] == document["username"]
            assert shown.json()["email"] == document.get("email")


def test_as_a_credential(client: TestClient, strings: list[str]) -> None:
    for text in strings:
        encoded = quote(text, errors="surrogatepass").encode()
        for answer in (
            client.post("/token", **as_json({"username": text, "password": ""})),
            client.post("/token", **as_json({"grant_type": text + "x", text: text})),
            client.post("/token", content=b"grant_type=refresh_token&refresh_token=" + encoded),
            client.post("/revoke", content=b"token=" + encoded),
        ):
            check(answer, {200, 400, 413, 415})


def test_as_an_authorization(client: TestClient, strings: list[str]) -> None:
    for text in strings:
        raw = text.encode("utf-8", "surrogatepass")
        for value in (raw, b"Bearer " + raw, b"Bearer onr_live_" + raw):
            answer = client.get("/users/me", headers={b"authorization": value})

            check(answer, {401})
            challenge = answer.headers["www-authenticate"]
            assert CHALLENGE.fullmatch(challenge), challenge


def test_as_a_key(client: TestClient, admin: Headers, strings: list[str]) -> None:
    for text in strings:
        for document in (
            {"name": text},
            {"name": "a", "models": [text]},
            {"name": "a", "scopes": [text], "kind": text, "expires_at": text, text + "x": text},
        ):
            sent = as_json(document)
            answer = client.post("/keys", **sent | {"headers": sent["headers"] | admin})

            check(answer, {201, 400, 413})
            if answer.status_code == 201:
                assert client.delete(f"/keys/{answer.json()['id']}", headers=admin).is_success
    check(client.get("/keys?limit=1000", headers=admin), {200})


PLACES = [
    "/{}",
    "/users/{}",
    "/predictions/{}",
    "/predictions/{}/proof",
    "/models/{}",
    "/models/{}/schema",
    "/static/{}",
    "/predictions?user={}",
    "/predictions?before={}",
    "/predictions?model={}",
    "/predictions?version={}",
    "/predictions?status={}",
    "/predictions?since={}",
    "/predictions?x_request_id={}",
    "/predictions?api_key={}",
    "/predictions?test={}",
    "/predictions?limit={}",
    "/predictions?{}=1",
    "/users?after={}",
    "/keys?user={}",
]


def test_as_a_part_of_an_address(client: TestClient, admin: Headers, strings: list[str]) -> None:
    for number, text in enumerate(strings):
        # A client would take dots for a way through folders, and not send them.
        part = quote(text[:2000], safe="", errors="surrogatepass").replace(".", "%2E")
        for place in PLACES[number % 2 :: 2]:
            check(client.get(place.replace("{}", part), headers=admin), {200, 307, 400, 404, 405})


def test_as_the_name_of_a_model_or_an_id_to_change(
    client: TestClient, admin: Headers, strings: list[str]
) -> None:
    for text in strings:
        part = quote(text[:2000], safe="", errors="surrogatepass").replace(".", "%2E")
        check(client.post(f"/models/{part}/predict", json={"said": "x"}, headers=admin), {404, 405})
        check(client.patch(f"/users/{part}", json={}, headers=admin), {404, 405})
        check(client.delete(f"/users/{part}", headers=admin), {404, 405})
        check(client.delete(f"/keys/{part}", headers=admin), {404, 405})


def test_as_a_header(client: TestClient, admin: Headers, strings: list[str]) -> None:
    sent = {key.encode(): word.encode() for key, word in admin.items()}
    for text in strings:
        for name in (b"content-type", b"accept", b"x-request-id", b"host"):
            headers = sent | {name: text.encode("utf-8", "surrogatepass")}
            answer = client.post("/predict", content=b'{"said": "x"}', headers=headers)

            check(answer, {200, 400, 406, 415})
            assert REQUEST_ID.fullmatch(answer.headers["x-request-id"])


def test_operators_read_it_all_and_no_terminal_obeys(
    client: TestClient, admin: Headers, settings: Settings, tmp_path: Path
) -> None:
    for name in ("[/red]", "[link=//evil.test]a[/link]", "=1+1"):
        assert client.post("/keys", json={"name": name}, headers=admin).status_code == 201
    for i, name in enumerate(["[/red]", "a\x9b2Jb", "\u202egpj"]):
        registration = {"username": f"h{i}", "password": PASSWORD, "email": f"{name}@x"}
        assert client.post("/users", json=registration).status_code == 201
    environment = {
        "ONRECORD_DATABASE": settings.database_url,
        "ONRECORD_DATA_DIR": str(settings.data_dir),
        "ONRECORD_CONFIG": str(tmp_path / "none.toml"),
        "COLUMNS": "200",
    }

    for words in (
        ["log", "--limit", "5000"],
        ["log", "--limit", "5000", "--json"],
        ["users", "list"],
        ["users", "list", "--json"],
        ["api-keys", "list"],
        ["api-keys", "list", "--json"],
        ["export", "--format", "jsonl"],
    ):
        ran = CliRunner().invoke(_build(), words, env=environment)
        assert ran.exit_code == 0, (words, ran.exception)
        assert {c for c in ran.output if not c.isprintable() and c.isascii()} <= {"\n"}, words
        assert not set(ran.output) & set("\x85\x9b\u2028\u202e\u2066"), words
    for form in ("csv", "parquet"):
        words = ["export", "--format", form, "-o", str(tmp_path / form)]
        assert CliRunner().invoke(_build(), words, env=environment).exit_code == 0
    shown = CliRunner().invoke(_build(), ["api-keys", "list"], env=environment).output
    assert "[/red]" in shown


def test_what_was_sent_is_what_is_on_record(
    client: TestClient, settings: Settings, admin: Headers, strings: list[str]
) -> None:
    kept = {}
    for text in strings:
        for body in (
            json.dumps({"said": text}).encode(),
            json.dumps({"said": text}, ensure_ascii=False).encode("utf-8", "surrogatepass"),
            text.encode("utf-8", "surrogatepass"),
        ):
            answer = client.post("/predict", content=body, headers=admin)
            kept[answer.headers["x-request-id"]] = (body, answer.content)
    database = Database(settings.database_url)
    with database.read() as connection:
        for identifier, sent in kept.items():
            entry = reader.find(connection, identifier, user_id=None)
            assert entry is not None
            assert (entry.input, entry.output) == sent
    database.close()
