"""Accounts in the console: the first admin, registering, signing in, password and API keys."""

import re
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
import time_machine
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


@pytest.mark.parametrize(
    "path", ["keys", "password", "end-sessions", "sessions/end", "keys/revoke"]
)
def test_nothing_of_an_account_changes_without_the_sessions_own_form(
    client: TestClient, path: str
) -> None:
    register(client)

    answer = client.post(f"/console/account/{path}", data={"csrf": "guessed", "name": "x"})

    assert answer.status_code == 403


def test_a_session_is_renewed_while_it_is_used_and_ends_when_it_is_not(client: TestClient) -> None:
    with time_machine.travel(time.time()) as clock:
        register(client)
        told = csrf(client)
        tokens = set()
        for _ in range(4):
            clock.shift(timedelta(minutes=40))
            assert client.get("/console/account", follow_redirects=False).status_code == 200
            tokens.add((client.cookies[COOKIE], client.cookies["onrecord_refresh"]))

        sent = {"csrf": told, "name": "nightly", "scopes": "predict"}
        assert client.post("/console/account/keys", data=sent).status_code == 200
        assert len(tokens) == 4
        clock.shift(timedelta(minutes=61))
        answer = client.get("/console/account", follow_redirects=False)

        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/console/sign-in")


def test_what_a_page_asks_for_by_itself_does_not_renew_the_session(client: TestClient) -> None:
    with time_machine.travel(time.time()) as clock:
        register(client)
        clock.shift(timedelta(minutes=40))

        live = client.get("/console/record", headers={"sec-fetch-mode": "cors"})
        opened = client.get("/console/record", headers={"sec-fetch-mode": "navigate"})

        assert "set-cookie" not in live.headers
        assert "set-cookie" in opened.headers


def test_pages_that_are_opened_at_once_after_a_while_end_no_session(client: TestClient) -> None:
    with time_machine.travel(time.time()) as clock:
        register(client)
        before = dict(client.cookies)
        clock.shift(timedelta(minutes=40))
        client.get("/console/account")
        after = dict(client.cookies)
        client.cookies.clear()

        headers = {"cookie": "; ".join(f"{name}={value}" for name, value in before.items())}
        other = client.get("/console/account", headers=headers)

        assert other.status_code == 200
        assert "set-cookie" not in other.headers
        assert after[COOKIE] != before[COOKIE]
        for name, value in after.items():
            client.cookies.set(name, value)
        assert client.get("/console/account", follow_redirects=False).status_code == 200


def test_signing_in_ends_the_session_that_the_browser_had_before(client: TestClient) -> None:
    register(client)
    token = client.cookies[COOKIE]

    client.post("/console/sign-in", data={"username": "ada", "password": PASSWORD})

    assert client.cookies[COOKIE] != token
    wait_until(lambda: client.get("/users/me", headers=bearer(token)).status_code == 401)


def test_signing_out_when_half_the_time_is_gone_leaves_no_cookie(client: TestClient) -> None:
    with time_machine.travel(time.time()) as clock:
        register(client)
        told = csrf(client)
        clock.shift(timedelta(minutes=40))

        client.post("/console/sign-out", data={"csrf": told})

        assert dict(client.cookies) == {}


def test_ones_sessions_are_listed_and_one_of_them_is_ended(client: TestClient) -> None:
    register(client)
    form = {"username": "ada", "password": PASSWORD}
    elsewhere = client.post("/token", data=form).json()["access_token"]
    page = client.get("/console/account").text
    newest, oldest = re.findall(r'name="session" value="([^"]+)"', page)
    assert page.count("<td>this one<td>") == 1

    sent = {"csrf": csrf(client), "session": newest}
    client.post("/console/account/sessions/end", data=sent)

    wait_until(lambda: client.get("/users/me", headers=bearer(elsewhere)).status_code == 401)
    page = client.get("/console/account").text
    assert re.findall(r'name="session" value="([^"]+)"', page) == [oldest]
    answer = client.post("/console/account/sessions/end", data=sent | {"session": oldest})
    assert answer.url.path == "/console/sign-in"
    assert dict(client.cookies) == {}


def test_a_session_of_somebody_else_cannot_be_ended(client: TestClient) -> None:
    register(client)
    page = client.get("/console/account").text
    (theirs,) = re.findall(r'name="session" value="([^"]+)"', page)
    client.cookies.clear()
    register(client, "eve")

    sent = {"csrf": csrf(client), "session": theirs}

    assert client.post("/console/account/sessions/end", data=sent).status_code == 404
