"""Accounts in the console: the first admin, registering, signing in, password and API keys."""

import re
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from calls import bearer, wait_until
from live import GOOD_ROW, PASSWORD
from onrecord.accounts.set_up import new_code
from onrecord.record import users
from onrecord.record.database import Database
from onrecord.settings import Settings

COOKIE = "onrecord_session"
ANOTHER = "another long enough password"


@pytest.fixture
def code(settings: Settings) -> Iterator[str]:
    """What a server without an admin prints when it starts."""
    yield new_code(settings.set_up_file)
    settings.set_up_file.unlink(missing_ok=True)


def set_up(client: TestClient, code: str, username: str = "root", password: str = PASSWORD) -> int:
    sent = {"code": code, "username": username, "password": password}
    answer = client.post("/console/set-up", data=sent, follow_redirects=False)
    return answer.status_code


def register(client: TestClient, username: str = "ada") -> None:
    sent = {"username": username, "password": PASSWORD}
    answer = client.post("/console/register", data=sent, follow_redirects=False)
    assert answer.status_code == 303, answer.text


def csrf(client: TestClient) -> str:
    return re.findall(r'name="csrf" value="(\w+)"', client.get("/console/account").text)[0]


def roles(database: Database) -> dict[str, str]:
    with database.read() as connection:
        return {it.username: it.role for it in users.page(connection, limit=10, after_id=None)}


def test_the_code_makes_one_admin_who_is_signed_in_then(
    client: TestClient, database: Database, code: str
) -> None:
    assert client.get("/").url.path == "/console/set-up"

    assert set_up(client, code) == 303

    assert roles(database) == {"root": "admin"}
    assert client.get("/console/account").status_code == 200
    assert set_up(client, code, "another") == 409
    assert roles(database) == {"root": "admin"}


def test_a_wrong_or_an_old_code_makes_nobody(
    client: TestClient, database: Database, settings: Settings, code: str
) -> None:
    newer = new_code(settings.set_up_file)

    assert [set_up(client, it) for it in ("", "guess", code, newer[:-1])] == [400] * 4

    assert roles(database) == {}
    assert set_up(client, newer) == 303


def test_a_code_is_not_spent_by_a_bad_password(
    client: TestClient, database: Database, code: str
) -> None:
    assert set_up(client, code, password="short") == 400
    assert roles(database) == {}
    assert set_up(client, code) == 303


def test_a_code_is_of_no_use_where_there_is_an_admin(
    client: TestClient, database: Database, settings: Settings, code: str
) -> None:
    with database.write() as connection:
        users.add(connection, username="root", email=None, password_hash="-", role="admin")

    assert set_up(client, code, "mallory") == 409
    assert client.get("/console/set-up").url.path == "/console/sign-in"


def test_who_registers_is_a_user_and_signed_in(client: TestClient, database: Database) -> None:
    register(client)

    assert roles(database) == {"ada": "user"}
    assert "ada" in client.get("/console/account").text


def test_bad_fields_are_told_beside_them(client: TestClient) -> None:
    sent = {"username": "a b", "password": "s3cr", "email": "nowhere"}

    answer = client.post("/console/register", data=sent)

    assert answer.status_code == 400
    for name in ("username", "password", "email"):
        assert f'id="fault-{name}"' in answer.text
    assert 'value="a b"' in answer.text
    assert "s3cr" not in answer.text


def test_signing_in_sets_a_cookie_that_scripts_cannot_read(client: TestClient) -> None:
    register(client)
    client.cookies.clear()

    sent = {"username": "ada", "password": PASSWORD, "next": "/console/try"}
    answer = client.post("/console/sign-in", data=sent, follow_redirects=False)

    assert answer.headers["location"] == "/console/try"
    cookie = answer.headers["set-cookie"].lower()
    assert cookie.startswith(COOKIE)
    assert "httponly" in cookie
    assert "samesite=lax" in cookie


@pytest.mark.parametrize("following", ["https://elsewhere.example/", "//elsewhere", "/users"])
def test_after_signing_in_nobody_is_led_elsewhere(client: TestClient, following: str) -> None:
    register(client)

    sent = {"username": "ada", "password": PASSWORD, "next": following}
    answer = client.post("/console/sign-in", data=sent, follow_redirects=False)

    assert answer.headers["location"] == "/console"


def test_a_wrong_password_is_told_in_the_form_and_sets_no_cookie(client: TestClient) -> None:
    register(client)
    client.cookies.clear()

    sent = {"username": "ada", "password": "not the password"}
    answer = client.post("/console/sign-in", data=sent)

    assert answer.status_code == 401
    assert "The username or password is wrong." in answer.text
    assert "set-cookie" not in answer.headers


def test_signing_out_ends_the_session_itself(client: TestClient) -> None:
    register(client)
    token = client.cookies[COOKIE]

    client.post("/console/sign-out", data={"csrf": csrf(client)})

    assert COOKIE not in client.cookies
    wait_until(lambda: client.get("/users/me", headers=bearer(token)).status_code == 401)


def test_a_new_password_ends_the_sessions_and_takes_the_old_one(client: TestClient) -> None:
    register(client)
    told = csrf(client)

    def change(password: str, new: str) -> int:
        sent = {"csrf": told, "password": password, "new_password": new}
        answer = client.post("/console/account/password", data=sent, follow_redirects=False)
        return answer.status_code

    assert change("not the password", ANOTHER) == 400
    assert change(PASSWORD, "short") == 400
    assert change(PASSWORD, ANOTHER) == 303

    def sign_in(password: str) -> int:
        sent = {"username": "ada", "password": password}
        answer = client.post("/console/sign-in", data=sent, follow_redirects=False)
        return answer.status_code

    assert (sign_in(PASSWORD), sign_in(ANOTHER)) == (401, 303)


def test_an_api_key_is_shown_once_predicts_and_can_be_revoked(client: TestClient) -> None:
    register(client)
    sent = {"csrf": csrf(client), "name": "nightly", "scopes": "predict"}

    page = client.post("/console/account/keys", data=sent).text

    (secret,) = re.findall(r'<pre id="secret"[^>]*>(\w+)</pre>', page)
    assert secret not in client.get("/console/account").text
    assert client.post("/predict", json=GOOD_ROW, headers=bearer(secret)).status_code == 200
    (key,) = re.findall(r'name="key" value="([^"]+)"', page)
    client.post("/console/account/keys/revoke", data={"csrf": csrf(client), "key": key})
    assert "revoked" in client.get("/console/account").text


@pytest.mark.parametrize("path", ["keys", "password", "end-sessions", "keys/revoke"])
def test_nothing_of_an_account_changes_without_the_sessions_own_form(
    client: TestClient, path: str
) -> None:
    register(client)

    answer = client.post(f"/console/account/{path}", data={"csrf": "guessed", "name": "x"})

    assert answer.status_code == 403
