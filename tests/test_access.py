"""Who may do what, from the outside: roles, API keys, and other people's things."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from calls import Headers, bearer, predict, sign_up
from live import GOOD_ROW, PASSWORD
from onrecord.record import reader, users
from onrecord.record.database import Database


def make_key(client: TestClient, headers: Headers, **asked: Any) -> tuple[str, Headers]:
    """A new API key: its id, and what is sent with it."""
    answer = client.post("/keys", json={"name": "batch", **asked}, headers=headers)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"], bearer(answer.json()["key"])


def until(holds: Callable[[], bool]) -> None:
    """Wait until a change of rights is noticed; it must be within a second."""
    end = time.monotonic() + 1
    while not holds():
        assert time.monotonic() < end


def shut_out_within_a_second(client: TestClient, headers: Headers) -> None:
    until(lambda: client.get("/models", headers=headers).status_code == 401)


def listed(client: TestClient, headers: Headers, query: str = "") -> list[str]:
    answer = client.get(f"/predictions{query}", headers=headers)
    assert answer.status_code == 200, answer.text
    return [entry["id"] for entry in answer.json()["predictions"]]


def test_an_auditor_reads_everything(client: TestClient, database: Database) -> None:
    ada_id, ada = sign_up(client, database, "ada")
    _, auditor = sign_up(client, database, "vera", "auditor")
    made = predict(client, ada)
    key_id, _ = make_key(client, ada)

    assert listed(client, auditor) == listed(client, auditor, f"?user={ada_id}") == [made]
    assert client.get(f"/predictions/{made}", headers=auditor).json()["username"] == "ada"
    assert len(client.get("/users", headers=auditor).json()["users"]) == 2
    assert client.get(f"/users/{ada_id}", headers=auditor).json()["username"] == "ada"
    keys = client.get("/keys", headers=auditor).json()["keys"]
    assert [(key["id"], key["username"]) for key in keys] == [(key_id, "ada")]
    assert client.get("/models", headers=auditor).status_code == 200


def test_an_auditor_changes_nothing(client: TestClient, database: Database) -> None:
    ada_id, ada = sign_up(client, database, "ada")
    key_id, _ = make_key(client, ada)
    vera_id, auditor = sign_up(client, database, "vera", "auditor")
    sign_up(client, database, "root", "admin")

    refusals = [
        client.post("/predict", json=GOOD_ROW, headers=auditor),
        client.post("/models/risk/predict", json=GOOD_ROW, headers=auditor),
        client.post("/keys", json={"name": "mine"}, headers=auditor),
        client.patch(f"/users/{ada_id}", json={"disabled": True}, headers=auditor),
        client.patch(f"/users/{vera_id}", json={"role": "admin"}, headers=auditor),
        client.delete(f"/users/{ada_id}", headers=auditor),
    ]

    assert [answer.status_code for answer in refusals] == [403] * len(refusals)
    assert {answer.json()["code"] for answer in refusals} == {"forbidden"}
    assert client.delete(f"/keys/{key_id}", headers=auditor).status_code == 404
    with database.read() as connection:
        assert users.by_id(connection, ada_id).may_call
        tried = reader.page(connection, reader.Filters(), limit=9, before=None)
    # Trying is on record, as every refusal of a known user is; nothing was read or predicted.
    assert [(entry.status, entry.error_code, entry.input) for entry in tried] == [
        (403, "forbidden", None)
    ] * 2


def test_an_admin_makes_an_auditor(client: TestClient, database: Database) -> None:
    _, admin = sign_up(client, database, "root", "admin")
    vera_id, vera = sign_up(client, database, "vera")

    changed = client.patch(f"/users/{vera_id}", json={"role": "auditor"}, headers=admin)

    assert changed.json()["role"] == "auditor"
    until(lambda: client.get("/users", headers=vera).status_code == 200)
    assert client.get("/users/me", headers=vera).json()["role"] == "auditor"


def test_a_key_is_shown_once_and_never_again(client: TestClient, database: Database) -> None:
    _, ada = sign_up(client, database, "ada")

    made = client.post("/keys", json={"name": "nightly", "models": ["risk"]}, headers=ada)

    key = made.json()
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    assert key["key"].startswith(key["prefix"])
    assert key["prefix"].startswith("onr_live_")
    assert (key["scopes"], key["models"], key["revoked_at"]) == (["predict"], ["risk"], None)
    page = client.get("/keys", headers=ada)
    assert page.json()["keys"] == [{k: v for k, v in key.items() if k != "key"}]
    assert key["key"] not in page.text


def test_a_key_predicts_and_the_record_says_which(client: TestClient, database: Database) -> None:
    ada_id, ada = sign_up(client, database, "ada")
    key_id, key = make_key(client, ada)
    other_id, other = make_key(client, ada)

    by_key, by_other, by_hand = predict(client, key), predict(client, other), predict(client, ada)

    entries = client.get("/predictions", headers=ada).json()["predictions"]
    assert [(e["id"], e["api_key_id"], e["user_id"], e["test"]) for e in entries] == [
        (by_hand, None, ada_id, False),
        (by_other, other_id, ada_id, False),
        (by_key, key_id, ada_id, False),
    ]
    assert listed(client, ada, f"?api_key={key_id}") == [by_key]
    assert client.get("/predictions?api_key=x", headers=ada).status_code == 400


def test_an_action_out_of_scope_is_refused_by_the_name_of_the_scope_and_on_record(
    client: TestClient, database: Database
) -> None:
    _, ada = sign_up(client, database, "ada")
    key_id, predicts = make_key(client, ada, scopes=["predict"])
    reading_id, reads = make_key(client, ada, scopes=["read"])
    _, elsewhere = make_key(client, ada, scopes=["predict", "read"], models=["other"])
    made = predict(client, predicts)

    unread = client.get("/predictions", headers=predicts)
    unmade = client.post("/predict", json=GOOD_ROW, headers=reads)
    astray = client.post("/predict", json=GOOD_ROW, headers=elsewhere)

    for answer, scope in ((unread, "read"), (unmade, "predict")):
        assert answer.status_code == 403
        assert answer.json()["code"] == "insufficient_scope"
        assert repr(scope) in answer.json()["detail"]
        assert f'error="insufficient_scope", scope="{scope}"' in answer.headers["www-authenticate"]
    assert client.get(f"/predictions/{made}", headers=predicts).status_code == 403
    assert (astray.status_code, astray.json()["code"]) == (403, "forbidden")
    assert "other" in astray.json()["detail"]
    entries = client.get("/predictions?status=403", headers=ada).json()["predictions"]
    assert [(e["error_code"], e["input"]) for e in entries] == [
        ("forbidden", None),
        ("insufficient_scope", None),
    ]
    assert entries[1]["api_key_id"] == reading_id
    assert made in listed(client, reads)
    assert listed(client, elsewhere) == []
    assert client.get(f"/predictions/{made}", headers=elsewhere).status_code == 404
    assert client.get(f"/predictions/{made}", headers=reads).json()["api_key_id"] == key_id


def test_a_key_sees_the_models_it_is_for(client: TestClient, database: Database) -> None:
    _, ada = sign_up(client, database, "ada")
    _, here = make_key(client, ada, models=["risk"])
    _, elsewhere = make_key(client, ada, models=["other"])

    assert len(client.get("/models", headers=here).json()["models"]) == 1
    assert client.get("/models/risk/schema", headers=here).status_code == 200
    assert client.get("/models", headers=elsewhere).json()["models"] == []
    assert client.get("/models/risk", headers=elsewhere).status_code == 404
    assert client.get("/models/risk/schema", headers=elsewhere).status_code == 404


def test_calls_of_test_keys_are_kept_apart(client: TestClient, database: Database) -> None:
    _, ada = sign_up(client, database, "ada")
    _, auditor = sign_up(client, database, "vera", "auditor")
    _, live = make_key(client, ada, scopes=["predict", "read"])
    _, test = make_key(client, ada, scopes=["predict", "read"], kind="test")
    real, tried, by_hand = predict(client, live), predict(client, test), predict(client, ada)

    for headers in (ada, auditor):
        assert listed(client, headers) == [by_hand, real]
        assert listed(client, headers, "?test=true") == [tried]
        assert client.get(f"/predictions/{tried}", headers=headers).json()["test"] is True
    assert listed(client, live) == listed(client, live, "?test=false") == [by_hand, real]
    assert listed(client, test) == listed(client, test, "?test=true") == [tried]
    assert client.get("/predictions?test=true", headers=live).status_code == 403
    assert client.get("/predictions?test=false", headers=test).status_code == 403
    assert client.get(f"/predictions/{tried}", headers=live).status_code == 404
    assert client.get(f"/predictions/{real}", headers=test).status_code == 404
    with database.read() as connection:
        counts = [reader.count(connection, reader.Filters(test=t)) for t in (False, True, None)]
    assert counts == [2, 1, 3]


def test_a_key_manages_neither_keys_nor_users(client: TestClient, database: Database) -> None:
    root_id, admin = sign_up(client, database, "root", "admin")
    key_id, key = make_key(client, admin, scopes=["predict", "read"])

    refusals = [
        client.post("/keys", json={"name": "more"}, headers=key),
        client.get("/keys", headers=key),
        client.delete(f"/keys/{key_id}", headers=key),
        client.get("/users/me", headers=key),
        client.get("/users", headers=key),
        client.get(f"/users/{root_id}", headers=key),
        client.patch(f"/users/{root_id}", json={}, headers=key),
        client.delete(f"/users/{root_id}", headers=key),
    ]

    assert [answer.status_code for answer in refusals] == [403] * len(refusals)
    assert predict(client, key)


def test_the_key_of_an_admin_reads_only_the_admins_own_record(
    client: TestClient, database: Database
) -> None:
    ada_id, ada = sign_up(client, database, "ada")
    _, admin = sign_up(client, database, "root", "admin")
    _, key = make_key(client, admin, scopes=["read"])
    made = predict(client, ada)

    assert listed(client, key) == listed(client, key, f"?user={ada_id}") == []
    assert client.get(f"/predictions/{made}", headers=key).status_code == 404


def test_a_revoked_key_stops_within_a_second_and_an_admin_revokes_anyones(
    client: TestClient, database: Database
) -> None:
    _, ada = sign_up(client, database, "ada")
    _, admin = sign_up(client, database, "root", "admin")
    for revoker in (ada, admin):
        key_id, key = make_key(client, ada)
        predict(client, key)

        assert client.delete(f"/keys/{key_id}", headers=revoker).status_code == 204
        assert client.delete(f"/keys/{key_id}", headers=revoker).status_code == 204

        shut_out_within_a_second(client, key)
        refusal = client.post("/predict", json=GOOD_ROW, headers=key)
        assert refusal.status_code == 401
        assert 'error="invalid_token"' in refusal.headers["www-authenticate"]
    assert all(key["revoked_at"] for key in client.get("/keys", headers=ada).json()["keys"])


def test_a_key_shows_when_it_was_last_used(client: TestClient, database: Database) -> None:
    _, ada = sign_up(client, database, "ada")
    _, key = make_key(client, ada)
    (unused,) = client.get("/keys", headers=ada).json()["keys"]
    predict(client, key)

    assert unused["last_used_at"] is None
    deadline = time.monotonic() + 10
    while client.get("/keys", headers=ada).json()["keys"][0]["last_used_at"] is None:
        assert time.monotonic() < deadline


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/name"),
        ({"name": ""}, "/name"),
        ({"name": "a", "scopes": []}, "/scopes"),
        ({"name": "a", "scopes": ["admin"]}, "/scopes/0"),
        ({"name": "a", "kind": "root"}, "/kind"),
        ({"name": "a", "models": []}, "/models"),
        ({"name": "a", "expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
        ({"name": "a", "expires_at": "9999-01-01T00:00:00Z"}, "/expires_at"),
        ({"name": "a", "expires_at": "2026-12-01T00:00:00"}, "/expires_at"),
        ({"name": "a", "user_id": "other"}, "/user_id"),
    ],
    ids=str,
)
def test_a_key_that_cannot_be_made_names_the_field(
    client: TestClient, database: Database, body: dict[str, Any], pointer: str
) -> None:
    _, ada = sign_up(client, database, "ada")

    answer = client.post("/keys", json=body, headers=ada)

    assert answer.status_code == 400
    assert [fault["pointer"] for fault in answer.json()["errors"]] == [pointer]


def test_keys_are_listed_in_pages_and_by_owner(client: TestClient, database: Database) -> None:
    ada_id, ada = sign_up(client, database, "ada")
    _, admin = sign_up(client, database, "root", "admin")
    mine = [make_key(client, ada)[0] for _ in range(3)]
    theirs, _ = make_key(client, admin)

    first = client.get("/keys?limit=2", headers=ada).json()
    rest = client.get(f"/keys?limit=2&after={first['next']}", headers=ada).json()
    everyones = client.get("/keys", headers=admin).json()["keys"]

    assert [key["id"] for key in first["keys"] + rest["keys"]] == mine
    assert rest["next"] is None
    assert [key["id"] for key in everyones] == [*mine, theirs]
    assert len(client.get(f"/keys?user={ada_id}", headers=admin).json()["keys"]) == 3
    assert client.get("/keys?user=ada", headers=admin).status_code == 400


STRANGER_GETS = {
    ("get", "/users/{user_id}"): 404,
    ("patch", "/users/{user_id}"): 403,
    ("delete", "/users/{user_id}"): 403,
    ("get", "/predictions/{prediction}"): 404,
    ("get", "/predictions/{prediction}/proof"): 404,
    ("get", "/predictions/{prediction}/replay"): 404,
    ("get", "/predictions/{prediction}/outcomes"): 404,
    ("post", "/predictions/{prediction}/outcome"): 404,
    ("delete", "/keys/{key_id}"): 404,
    ("get", "/models/{name}/changes"): 403,
    ("get", "/models/{name}/quality"): 403,
    ("get", "/models/{name}/compare"): 403,
    ("get", "/models/{name}/drift"): 403,
    **{
        ("post", f"/models/{{name}}/{action}"): 403
        for action in ("promote", "rollback", "shadow", "canary", "stop", "retire")
    },
}
EVERYONES = {
    ("get", "/models/{name}"),
    ("get", "/models/{name}/schema"),
    ("get", "/models/{name}/versions"),
    ("get", "/models/{name}/versions/{version}"),
    ("post", "/models/risk/versions/{version}/predict"),
    ("post", "/models/risk/versions/{version}/invocations"),
    ("post", "/v2/models/risk/versions/{version}/infer"),
    ("get", "/v2/models/{name}"),
    ("get", "/v2/models/{name}/ready"),
    ("get", "/v2/models/{name}/versions/{version}"),
    ("get", "/v2/models/{name}/versions/{version}/ready"),
    # Of whose predictions it takes outcomes, tests/test_bulk_outcomes.py holds.
    ("post", "/models/{name}/outcomes"),
}


def test_no_address_with_an_id_gives_away_or_changes_what_is_anothers(
    client: TestClient, database: Database
) -> None:
    ada_id, ada = sign_up(client, database, "ada")
    _, eve = sign_up(client, database, "eve")
    sign_up(client, database, "root", "admin")
    key_id, _ = make_key(client, ada)
    ids = {"user_id": ada_id, "prediction": predict(client, ada), "key_id": key_id, "name": "risk"}
    document = client.get("/openapi.json").json()
    with_id = {
        (method, path)
        for path, operations in document["paths"].items()
        if "{" in path
        for method in operations
    }
    unknown = "01a211c4-777a-7213-b7e5-b2243df50000"

    assert with_id == set(STRANGER_GETS) | EVERYONES, "say here what a stranger gets"
    for (method, path), status in STRANGER_GETS.items():
        sent = {"patch": {"disabled": True}, "post": {"outcome": 1} if "outcome" in path else {}}
        body = {"json": sent[method]} if method in sent else {}
        name = path.split("{")[1].split("}")[0]
        answer = client.request(method, path.format(**ids), headers=eve, **body)
        none_there = client.request(method, path.format(**{name: unknown}), headers=eve, **body)
        assert answer.status_code == none_there.status_code == status, (method, path)
        assert answer.json()["detail"] == none_there.json()["detail"]
        assert client.request(method, path.format(**ids), **body).status_code == 401
    assert client.get("/users/me", headers=ada).json()["disabled_at"] is None
    assert client.get("/keys", headers=ada).json()["keys"][0]["revoked_at"] is None


def test_no_filter_reaches_what_is_anothers(client: TestClient, database: Database) -> None:
    ada_id, ada = sign_up(client, database, "ada")
    _, eve = sign_up(client, database, "eve")
    key_id, key = make_key(client, ada)
    own_id = client.post("/predict", json=GOOD_ROW, headers=key | {"x-request-id": "adas"}).json()
    later = "ffffffff-ffff-7fff-bfff-ffffffffffff"

    for query in (
        f"user={ada_id}",
        f"api_key={key_id}",
        "x_request_id=adas",
        "model=risk",
        "status=200",
        f"before={later}",
        "since=2020-01-01T00:00:00Z",
    ):
        assert listed(client, ada, f"?{query}") == [own_id["id"]], query
        assert listed(client, eve, f"?{query}") == [], query
    for query in ("", f"?user={ada_id}", "?after=00000000-0000-7000-8000-000000000000"):
        assert client.get(f"/keys{query}", headers=eve).json()["keys"] == []


def sign_in(client: TestClient, **fields: str) -> dict[str, Any]:
    answer = client.post("/token", data={"username": "ada", "password": PASSWORD} | fields)
    assert answer.status_code == 200, answer.text
    tokens: dict[str, Any] = answer.json()
    return tokens


def refresh(client: TestClient, refresh_token: str) -> Any:
    return client.post(
        "/token", data={"grant_type": "refresh_token", "refresh_token": refresh_token}
    )


def test_a_refresh_token_works_once_and_its_reuse_ends_the_session(
    client: TestClient, database: Database
) -> None:
    sign_up(client, database, "ada")
    first = sign_in(client)

    second = refresh(client, first["refresh_token"])

    assert second.status_code == 200
    assert second.headers["cache-control"] == "no-store"
    assert set(second.json()) == {"access_token", "token_type", "expires_in", "refresh_token"}
    predict(client, bearer(second.json()["access_token"]))
    again = refresh(client, first["refresh_token"])
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    assert refresh(client, second.json()["refresh_token"]).json()["error"] == "invalid_grant"
    shut_out_within_a_second(client, bearer(second.json()["access_token"]))
    assert refresh(client, sign_in(client)["refresh_token"]).status_code == 200


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"grant_type": "refresh_token"}, "invalid_request"),
        ({"grant_type": "refresh_token", "refresh_token": ""}, "invalid_request"),
        ({"grant_type": "refresh_token", "refresh_token": "x"}, "invalid_grant"),
        ({"grant_type": "client_credentials"}, "unsupported_grant_type"),
        ({"grant_type": "password", "username": "ada"}, "invalid_request"),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["data", "json"])
def test_a_bad_grant_is_an_oauth_error(
    client: TestClient, fields: dict[str, str], error: str, kind: str
) -> None:
    answer = client.post("/token", **{kind: fields})

    assert answer.status_code == 400
    assert answer.json()["error"] == error
    assert answer.headers["cache-control"] == "no-store"


def test_a_registration_gives_a_session_too(client: TestClient) -> None:
    made = client.post("/users", json={"username": "ada", "password": PASSWORD}).json()

    assert refresh(client, made["refresh_token"]).status_code == 200


@pytest.mark.parametrize("which", ["refresh_token", "access_token"])
def test_revoking_either_token_ends_its_session_only(
    client: TestClient, database: Database, which: str
) -> None:
    sign_up(client, database, "ada")
    tokens, other = sign_in(client), sign_in(client)

    revoked = client.post("/revoke", data={"token": tokens[which], "token_type_hint": which})

    assert (revoked.status_code, revoked.json()) == (200, {})
    assert client.post("/revoke", data={"token": tokens[which]}).status_code == 200
    assert refresh(client, tokens["refresh_token"]).json()["error"] == "invalid_grant"
    shut_out_within_a_second(client, bearer(tokens["access_token"]))
    assert client.get("/users/me", headers=bearer(other["access_token"])).status_code == 200
    assert refresh(client, other["refresh_token"]).status_code == 200


def test_revoking_what_is_no_token_tells_nothing_and_an_api_key_is_not_revoked_so(
    client: TestClient, database: Database
) -> None:
    _, ada = sign_up(client, database, "ada")
    _, key = make_key(client, ada)

    assert client.post("/revoke", data={"token": "unknown"}).status_code == 200
    missing = client.post("/revoke", data={})
    assert (missing.status_code, missing.json()["error"]) == (400, "invalid_request")
    secret = key["authorization"].removeprefix("Bearer ")
    unsupported = client.post("/revoke", json={"token": secret})
    assert unsupported.json()["error"] == "unsupported_token_type"
    assert predict(client, key)


def test_logging_out_ends_this_session_and_on_request_every_one_but_no_key(
    client: TestClient, database: Database
) -> None:
    _, ada = sign_up(client, database, "ada")
    _, key = make_key(client, ada)
    here, there = sign_in(client), sign_in(client)

    assert client.post("/logout", headers=bearer(here["access_token"])).status_code == 204

    shut_out_within_a_second(client, bearer(here["access_token"]))
    assert refresh(client, here["refresh_token"]).status_code == 400
    assert client.get("/users/me", headers=bearer(there["access_token"])).status_code == 200
    everywhere = client.post("/logout?everywhere=true", headers=ada)
    assert everywhere.status_code == 204
    shut_out_within_a_second(client, bearer(there["access_token"]))
    assert refresh(client, there["refresh_token"]).status_code == 400
    assert client.post("/logout").status_code == 401
    assert client.post("/logout", headers=key).status_code == 403
    assert predict(client, key)


def test_users_are_searched_by_name_and_address(client: TestClient, database: Database) -> None:
    _, admin = sign_up(client, database, "ada", "admin")
    with database.write() as connection:
        for name in ("Grace", "100%"):
            address = f"{name}@Example.org"
            users.add(connection, username=name, email=address, password_hash="-", role="user")

    def found(search: str) -> list[str]:
        answer = client.get("/users", params={"search": search}, headers=admin).json()
        return [it["username"] for it in answer["users"]]

    assert found("gRA") == ["Grace"]
    assert found("%") == ["100%"]
    assert found("@EXAMPLE") == ["Grace", "100%"]
    assert found("nobody") == []
    assert client.get("/users", params={"search": ""}, headers=admin).status_code == 400
