"""What an answer gives away, what a body cannot set, and what is served without being asked."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.routing import APIRoute
from starlette.testclient import TestClient

import onrecord
from live import GOOD_ROW, PASSWORD
from onrecord.app import create_app
from onrecord.settings import Settings, load_settings

Headers = dict[str, str]
ROUTERS = (
    "api_keys",
    "bulk_outcomes",
    "compare",
    "docs",
    "drift",
    "erasures",
    "health",
    "model_versions",
    "models",
    "open_inference",
    "outcomes",
    "predictions",
    "proofs",
    "quality",
    "replays",
    "tokens",
    "users",
)


@pytest.fixture(scope="module")
def settings(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return load_settings(
        model_dir=model_dir, data_dir=tmp_path_factory.mktemp("answers"), log_level="error"
    )


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings), follow_redirects=False) as client:
        yield client


def operations(client: TestClient) -> list[tuple[str, str]]:
    paths = client.get("/openapi.json").json()["paths"]
    return [(method, path) for path, found in paths.items() for method in found]


def test_no_answer_has_what_is_kept_of_a_secret(client: TestClient, admin: Headers) -> None:
    key = client.post("/keys", json={"name": "a", "scopes": ["read"]}, headers=admin).json()
    made = client.post("/predict", json=GOOD_ROW, headers=admin).json()
    me = client.get("/users/me", headers=admin).json()
    ids = {"user_id": me["id"], "prediction": made["id"], "name": "risk", "version": "1"}
    secret = key["key"].removeprefix(key["prefix"])
    reading = [path for method, path in operations(client) if method == "get"]
    assert len(reading) > 10

    for path in reading:
        for headers in (admin, {}, {"authorization": "Bearer x.y.z"}):
            text = client.get(path.format(**ids), headers=headers).text
            for kept in (
                "$argon2",
                "password_hash",
                "sha256_of",
                "token_version",
                secret,
                PASSWORD,
            ):
                assert kept not in text, (path, kept)
            assert "Traceback" not in text
            assert str(Path(onrecord.__file__).parent) not in text


FIELDS = (
    "id",
    "user_id",
    "is_admin",
    "password_hash",
    "token_version",
    "created_at",
    "deleted_at",
    "prefix",
    "key_sha256",
    "revoked_at",
    "__proto__",
)


def test_a_field_that_is_not_offered_is_refused_by_its_name(
    client: TestClient, admin: Headers
) -> None:
    me = client.get("/users/me", headers=admin).json()["id"]
    for method, path, body in (
        ("post", "/users", {"username": "eve", "password": PASSWORD}),
        ("patch", f"/users/{me}", {"disabled": False}),
        ("post", "/keys", {"name": "eve"}),
    ):
        for field in FIELDS:
            answer = client.request(method, path, json={**body, field: "x"}, headers=admin)

            assert answer.status_code == 400
            assert [fault["pointer"] for fault in answer.json()["errors"]] == [f"/{field}"]


def test_every_address_that_is_served_is_documented(client: TestClient) -> None:
    documented = {(method.upper(), path) for method, path in operations(client)}
    served = set()
    for name in ROUTERS:
        module = __import__(f"onrecord.http.{name}", fromlist=["router"])
        for route in module.router.routes:
            assert isinstance(route, APIRoute)
            if route.include_in_schema:
                served |= {(method, route.path) for method in route.methods}

    assert served <= documented
    assert {path for _, path in documented - served} == {
        "/predict",
        "/models/risk/predict",
        "/models/risk/versions/{version}/predict",
        "/invocations",
        "/models/risk/invocations",
        "/models/risk/versions/{version}/invocations",
        "/v2/models/risk/infer",
        "/v2/models/risk/versions/{version}/infer",
    }
    for path in (
        "/openapi.yaml",
        "/redoc",
        "/debug",
        "/admin",
        "/.env",
        "/.git/config",
    ):
        assert client.get(path).status_code == 404, path


@pytest.mark.parametrize("method", ["TRACE", "TRACK", "CONNECT", "PROPFIND", "OPTIONS", "HEAD"])
def test_a_method_that_is_not_offered_is_refused(
    client: TestClient, admin: Headers, method: str
) -> None:
    for path in ("/predict", "/users", "/predictions", "/token", "/models"):
        answer = client.request(method, path, headers=admin)

        assert answer.status_code == 405
        assert "POST" in answer.headers["allow"] or "GET" in answer.headers["allow"]


def test_no_header_overrides_a_method_an_address_or_a_user(
    client: TestClient, admin: Headers
) -> None:
    me = client.get("/users/me", headers=admin).json()
    for name, value in {
        "x-http-method-override": "DELETE",
        "x-original-url": "/users",
        "x-rewrite-url": "/users",
        "x-forwarded-user": "root",
        "x-user-id": me["id"],
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-prefix": "/users",
        "cookie": f"session={admin['authorization']}",
    }.items():
        assert client.get(f"/users/{me['id']}", headers={name: value}).status_code == 401, name
        assert client.get("/users/me", headers=admin | {name: value}).json() == me, name


def test_answers_say_no_more_of_the_server_than_they_must(
    client: TestClient, admin: Headers
) -> None:
    origin = {"origin": "https://evil.test", "access-control-request-method": "POST"}
    for path in ("/docs", "/healthz", "/readyz", "/openapi.json", "/nowhere", "/users/me"):
        answer = client.get(path, headers=admin | origin)

        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "server" not in answer.headers
        assert "x-powered-by" not in answer.headers
        assert "set-cookie" not in answer.headers
        assert not [name for name in answer.headers if name.startswith("access-control-")]
    page = client.get("/docs")
    policy = page.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe-eval" not in policy
    assert page.headers["referrer-policy"] == "no-referrer"


def test_what_holds_a_secret_is_not_to_be_stored(client: TestClient, admin: Headers) -> None:
    signed_in = client.post("/token", data={"username": "root", "password": PASSWORD})
    refused = client.post("/token", data={"username": "root", "password": "wrong"})
    key = client.post("/keys", json={"name": "a"}, headers=admin)
    user = client.post("/users", json={"username": "cached", "password": PASSWORD})

    for answer in (signed_in, refused, key, user):
        assert answer.headers["cache-control"] == "no-store"


def test_no_list_is_longer_than_its_bound(client: TestClient, admin: Headers) -> None:
    for path in ("/users", "/keys", "/predictions"):
        for limit in (0, -1, 1001, 10**30, "all"):
            assert client.get(f"{path}?limit={limit}", headers=admin).status_code == 400


@pytest.mark.parametrize("room", ["http", "serving", "record"])
def test_what_reads_callers_input_has_no_means_to_fetch_an_address(room: str) -> None:
    fetching = {"httpx", "httpx2", "requests", "aiohttp", "urllib.request", "http.client", "ftplib"}
    for file in (Path(onrecord.__file__).parent / room).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not fetching & set(names), file
