"""Tokens of an external issuer on the routes, and what the settings refuse."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from starlette.testclient import TestClient

from live import GOOD_ROW, PASSWORD, Server, live_server
from local_issuer import AUDIENCE, LocalIssuer, local_issuer
from onrecord.app import create_app
from onrecord.errors import SettingsError
from onrecord.parts import build_external
from onrecord.settings import Settings, load_settings


@pytest.fixture(scope="module")
def issuer() -> Iterator[LocalIssuer]:
    with local_issuer() as issuer:
        yield issuer


@pytest.fixture(scope="module")
def settings(
    model_dir: Path, issuer: LocalIssuer, tmp_path_factory: pytest.TempPathFactory
) -> Settings:
    return load_settings(
        model_dir=model_dir,
        data_dir=tmp_path_factory.mktemp("oidc"),
        log_level="error",
        oidc_issuer=issuer.url,
        oidc_audience=AUDIENCE,
        oidc_role_claim="realm_access.roles",
        oidc_roles="bosses=admin,readers=auditor",
    )


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings)) as client:
        yield client


def bearer(issuer: LocalIssuer, name: str, *roles: str) -> dict[str, str]:
    claims = {"sub": f"sub of {name}", "preferred_username": name}
    return {"authorization": f"Bearer {issuer.token(**claims, realm_access={'roles': [*roles]})}"}


def test_every_kind_of_route_knows_the_issuers_users_by_their_roles(
    client: TestClient, issuer: LocalIssuer
) -> None:
    eve, boss, reader = (
        bearer(issuer, "eve"),
        bearer(issuer, "boss", "bosses"),
        bearer(issuer, "reader", "readers"),
    )

    predicted = [client.post("/predict", json=GOOD_ROW, headers=eve).json()["id"] for _ in range(2)]
    me = client.get("/users/me", headers=eve).json()
    assert (me["username"], me["role"], me["issuer"], me["subject"]) == (
        "eve",
        "user",
        issuer.url,
        "sub of eve",
    )
    for overseer in (boss, reader):
        page = client.get(f"/predictions?user={me['id']}", headers=overseer).json()
        assert {call["id"] for call in page["predictions"]} == set(predicted)
    assert client.get("/users", headers=eve).status_code == 403
    assert client.post("/predict", json=GOOD_ROW, headers=reader).status_code == 403
    assert client.post("/keys", json={"name": "k"}, headers=reader).status_code == 403
    refused = client.patch(f"/users/{me['id']}", json={"role": "admin"}, headers=boss)
    assert refused.status_code == 409
    assert "signs in at" in refused.json()["detail"]
    assert client.patch(f"/users/{me['id']}", json={"disabled": True}, headers=reader).is_error
    answer = client.patch(f"/users/{me['id']}", json={"disabled": True}, headers=boss)
    assert answer.json()["disabled_at"] is not None
    deadline = time.monotonic() + 10
    while client.post("/predict", json=GOOD_ROW, headers=eve).status_code != 401:
        assert time.monotonic() < deadline


def test_signing_out_is_left_to_the_issuer(client: TestClient, issuer: LocalIssuer) -> None:
    headers = bearer(issuer, "olga")
    token = headers["authorization"].removeprefix("Bearer ")

    for path in ("/logout", "/logout?everywhere=true"):
        assert client.post(path, headers=headers).status_code == 409
    revoked = client.post("/revoke", json={"token": token})
    assert (revoked.status_code, revoked.json()["error"]) == (400, "unsupported_token_type")


def test_a_bad_token_of_the_issuer_is_challenged_and_our_own_work_beside_it(
    client: TestClient, issuer: LocalIssuer
) -> None:
    expired = {"authorization": f"Bearer {issuer.token(exp=1_000_000)}"}
    refused = client.post("/predict", json=GOOD_ROW, headers=expired)
    assert refused.status_code == 401
    assert 'error="invalid_token"' in refused.headers["www-authenticate"]

    made = client.post("/users", json={"username": "ann", "password": PASSWORD})
    own = {"authorization": f"Bearer {made.json()['access_token']}"}
    assert client.post("/predict", json=GOOD_ROW, headers=own).status_code == 200


def test_an_api_key_of_the_issuers_user_works_without_the_issuer(
    client: TestClient, issuer: LocalIssuer
) -> None:
    made = client.post("/keys", json={"name": "nightly"}, headers=bearer(issuer, "kim"))
    key = {"authorization": f"Bearer {made.json()['key']}"}

    assert client.post("/predict", json=GOOD_ROW, headers=key).status_code == 200


def test_two_workers_know_one_user_and_both_shut_it_out(
    model_dir: Path, tmp_path: Path, issuer: LocalIssuer
) -> None:
    settings = {"oidc_issuer": issuer.url, "oidc_audience": AUDIENCE}
    with live_server(model_dir, tmp_path / "data", workers=2, **settings) as server:

        def calls(count: int) -> list[int]:
            return [call(server, issuer) for _ in range(count)]

        assert set(calls(20)) == {200}
        listed = server.command("users", "list", "--json").stdout
        assert listed.count("ada") == 1
        assert server.command("users", "disable", "ada").returncode == 0
        time.sleep(1)
        assert set(calls(20)) == {401}


def call(server: Server, issuer: LocalIssuer) -> int:
    headers = {"authorization": f"Bearer {issuer.token()}"}
    return httpx2.post(f"{server.base}/predict", json=GOOD_ROW, headers=headers).status_code


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"oidc_issuer": "http://login.example"}, "oidc_issuer: write https"),
        ({"oidc_issuer": "login.example"}, "oidc_issuer: write a URL"),
        ({"oidc_issuer": "https://me:pw@login.example"}, "oidc_issuer: a user"),
        ({"oidc_issuer": "https://login.example/?a=b"}, "oidc_issuer: an issuer has no query"),
        ({"oidc_audience": None}, "oidc_audience"),
        ({"token_issuer": "https://login.example"}, "the same as token_issuer"),
        ({"oidc_roles": "bosses"}, "oidc_roles: write"),
        ({"oidc_algorithms": ""}, "oidc_algorithms: name one"),
        ({"oidc_algorithms": "HS256"}, "oidc_algorithms"),
        ({"oidc_algorithms": "none"}, "oidc_algorithms"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_meant_stop_the_start(
    changes: dict[str, str | None], words: str
) -> None:
    given = {"oidc_issuer": "https://login.example", "oidc_audience": "risk", **changes}

    with pytest.raises(SettingsError, match=words):
        build_external(load_settings(**given))


def test_without_an_issuer_nothing_external_is_read() -> None:
    assert build_external(load_settings()) is None
