"""Administration in the console: who may see it, and what its forms do."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from starlette.testclient import TestClient

import onrecord
from calls import Headers, bearer, known, predict, sign_up
from live import PASSWORD
from onrecord.record import users
from onrecord.record.database import Database
from onrecord.settings import Settings

pytestmark = pytest.mark.parametrize("application", ["sqlite"], indirect=True)

ANOTHER = "another long enough password"
PAGES = ("users", "keys", "models", "health", "settings")

Admin = Callable[..., Headers]


@pytest.fixture(scope="module")
def more_settings() -> dict[str, Any]:
    return {"call_quota": 5000, "drift_webhook_secret": "the webhook's secret"}


@pytest.fixture
def as_role(client: TestClient, settings: Settings, database: Database) -> Admin:
    """What signs somebody new of a role in, and returns what a call of theirs sends."""

    def sign_in(role: str) -> Headers:
        headers = known(settings, f"the {role}")
        with database.write() as connection:
            user = users.by_username(connection, f"the {role}")
            assert user is not None
            users.set_role(connection, user.id, role)
        client.cookies.set("onrecord_session", headers["authorization"].removeprefix("Bearer "))
        return headers

    return sign_in


def send(client: TestClient, path: str, **fields: str) -> Any:
    """Send a form of an administration page, and return the answer."""
    (csrf, *_) = re.findall(r'name="csrf" value="(\w+)"', client.get("/console/account").text)
    return client.post(f"/console/admin/{path}", data={"csrf": csrf, **fields})


def found(client: TestClient, user_id: str) -> dict[str, Any]:
    token = client.cookies["onrecord_session"]
    answer: dict[str, Any] = client.get(f"/users/{user_id}", headers=bearer(token)).json()
    return answer


@pytest.mark.parametrize("page", PAGES)
def test_administration_is_for_admins_and_auditors_and_the_settings_for_admins(
    client: TestClient, as_role: Admin, page: str
) -> None:
    seen = {}
    for role in ("user", "auditor", "admin"):
        as_role(role)
        seen[role] = client.get(f"/console/admin/{page}").status_code

    assert seen == {"user": 403, "auditor": 403 if page == "settings" else 200, "admin": 200}


@pytest.mark.parametrize("role", ["user", "auditor"])
@pytest.mark.parametrize("form", ["users", "users/{ada}", "keys"])
def test_whoever_is_no_admin_changes_nothing(
    client: TestClient, database: Database, as_role: Admin, role: str, form: str
) -> None:
    ada, _ = sign_up(client, database, "ada")
    as_role(role)

    answer = send(client, form.format(ada=ada), do="disable", username="new", role="user")

    assert answer.status_code == 403
    with database.read() as connection:
        found = users.page(connection, limit=10, after_id=None)
    assert {it.username for it in found} == {"ada", f"the {role}"}
    assert all(it.may_call for it in found)


def test_users_are_searched_by_a_part_of_the_name_or_address(
    client: TestClient, database: Database, as_role: Admin
) -> None:
    admin = as_role("admin")
    with database.write() as connection:
        for name in ("Ada", "grace", "100%"):
            address = f"{name}@Example.org".replace("%", "")
            users.add(connection, username=name, email=address, password_hash="-", role="user")

    def listed(search: str) -> list[str]:
        page = client.get("/console/admin/users", params={"search": search}).text
        names = re.findall(r'<th scope="row"><a href="[^"]+">([^<]+)</a>', page)
        answer = client.get("/users", params={"search": search}, headers=admin).json()
        assert [it["username"] for it in answer["users"]] == names
        return names

    assert listed("aDA") == ["Ada"]
    assert listed("GRACE@example") == ["grace"]
    assert listed("%") == ["100%"]
    assert listed("nobody at all") == []


def test_a_long_list_of_users_is_paged(
    client: TestClient, database: Database, as_role: Admin
) -> None:
    as_role("admin")
    with database.write() as connection:
        for n in range(60):
            users.add(connection, username=f"u{n}", email=None, password_hash="-", role="user")

    first = client.get("/console/admin/users?search=u").text
    (more,) = re.findall(r'<a href="([^"]+)">Next</a>', first)
    second = client.get(unescape(more)).text

    names = [re.findall(r'">(u\d+)</a>', page) for page in (first, second)]
    assert [len(it) for it in names] == [50, 10]
    assert len({*names[0], *names[1]}) == 60
    assert "Next" not in second


def test_an_admin_makes_a_user_of_any_role_and_bad_fields_are_told(
    client: TestClient, as_role: Admin
) -> None:
    as_role("admin")
    sent = {"username": "eve", "password": PASSWORD, "email": "", "role": "auditor"}

    assert "eve was made, as auditor" in send(client, "users", **sent).text

    again = send(client, "users", **sent | {"password": "s3cr"})
    assert again.status_code == 400
    assert 'id="fault-password"' in again.text
    assert "s3cr" not in again.text
    assert send(client, "users", **sent | {"username": "x", "role": "god"}).status_code == 400
    token = client.post("/token", data={"username": "eve", "password": PASSWORD})
    me = client.get("/users/me", headers=bearer(token.json()["access_token"])).json()
    assert me["role"] == "auditor"


def test_a_user_is_disabled_enabled_and_given_another_role(
    client: TestClient, database: Database, as_role: Admin
) -> None:
    ada, _ = sign_up(client, database, "ada")
    as_role("admin")

    assert "ada is disabled" in send(client, f"users/{ada}", do="disable").text
    assert found(client, ada)["disabled_at"] is not None
    assert "ada is enabled" in send(client, f"users/{ada}", do="enable").text
    assert found(client, ada)["disabled_at"] is None
    assert "is auditor now" in send(client, f"users/{ada}", do="role", role="auditor").text
    assert found(client, ada)["role"] == "auditor"
    assert send(client, f"users/{ada}", do="role", role="god").status_code == 400
    assert send(client, f"users/{ada}", do="promote").status_code == 400


def test_a_password_is_replaced_and_the_sessions_end(
    client: TestClient, database: Database, as_role: Admin
) -> None:
    ada, headers = sign_up(client, database, "ada")
    as_role("admin")

    short = send(client, f"users/{ada}", do="password", password="short")
    done = send(client, f"users/{ada}", do="password", password=ANOTHER)

    assert short.status_code == 400
    assert 'id="fault-password"' in short.text
    assert "ada has another password" in done.text
    assert ANOTHER not in done.text
    for password, status in ((PASSWORD, 400), (ANOTHER, 200)):
        form = {"username": "ada", "password": password}
        assert client.post("/token", data=form).status_code == status
    client.cookies.clear()
    assert client.get("/users/me", headers=headers).status_code == 401


def test_all_sessions_of_a_user_are_ended(
    client: TestClient, database: Database, as_role: Admin
) -> None:
    ada, headers = sign_up(client, database, "ada")
    as_role("admin")

    assert "All sessions of ada have ended" in send(client, f"users/{ada}", do="sessions").text

    assert client.get("/users/me", headers=headers).status_code == 401


def test_a_user_is_deleted_only_by_who_is_sure(
    client: TestClient, database: Database, as_role: Admin
) -> None:
    ada, headers = sign_up(client, database, "ada")
    predict(client, headers)
    as_role("admin")

    assert send(client, f"users/{ada}", do="delete").status_code == 400
    assert found(client, ada)["deleted_at"] is None
    done = send(client, f"users/{ada}", do="delete", sure="yes")

    assert "ada is deleted" in done.text
    assert "<form" not in done.text[done.text.index("<main") :]
    assert found(client, ada)["deleted_at"] is not None
    assert "ada" in client.get("/console/record?user=ada").text


def test_the_last_admin_stays_one(client: TestClient, database: Database, as_role: Admin) -> None:
    as_role("admin")
    with database.read() as connection:
        admin = users.by_username(connection, "the admin")
    assert admin is not None

    for form in (
        {"do": "disable"},
        {"do": "delete", "sure": "yes"},
        {"do": "role", "role": "user"},
    ):
        answer = send(client, f"users/{admin.id}", **form)

        assert answer.status_code == 409
        assert "the last admin" in answer.text


def test_anyones_api_key_is_found_by_its_owner_and_revoked(
    client: TestClient, database: Database, as_role: Admin
) -> None:
    _, ada = sign_up(client, database, "ada")
    _, grace = sign_up(client, database, "grace")
    keys = {}
    for name, headers in (("ada", ada), ("grace", grace)):
        sent = {"name": f"{name}'s batch", "rate": "10/second", "quota": 7000}
        keys[name] = client.post("/keys", json=sent, headers=headers).json()
    as_role("admin")

    page = client.get("/console/admin/keys?user=Ada").text
    assert "ada&#39;s batch" in page
    assert "grace" not in page
    assert "10/second, 7,000 a day" in page
    assert "ada&#39;s batch" in client.get("/console/admin/keys").text
    assert client.get("/console/admin/keys?user=nobody").status_code == 404
    assert all(it["key"] not in page for it in keys.values())

    assert "is revoked" in send(client, "keys", key=keys["ada"]["id"]).text

    shown = client.get("/keys", headers=ada).json()["keys"]
    assert shown[0]["revoked_at"] is not None
    assert client.get("/keys", headers=grace).json()["keys"][0]["revoked_at"] is None


def test_changes_of_models_say_who_when_and_why(client: TestClient, as_role: Admin) -> None:
    admin = as_role("admin")
    told = client.get("/models/risk/changes", headers=admin).json()["changes"]

    page = client.get("/console/admin/models").text

    changes = page[page.index("<h2>Changes") :]
    assert [it["action"] for it in told] == re.findall(r"UTC|<td>(start|add|promote)<td>", changes)
    for it in told:
        assert it["changed_at"][:19].replace("T", " ") in changes
        assert f"{it['operator']} <span" in changes
    assert client.get("/console/admin/models?before=x").status_code == 400


def test_settings_are_shown_with_their_secrets_masked(
    client: TestClient, settings: Settings, as_role: Admin
) -> None:
    as_role("admin")

    page = client.get("/console/admin/settings").text

    assert "the webhook&#39;s secret" not in page
    assert "the webhook's secret" not in page
    for name in Settings.model_fields:
        assert f"<code>{name}</code>" in page
    assert "<code>5000</code>" in page
    assert str(settings.data_dir) in page


def test_health_says_what_readyz_says(client: TestClient, as_role: Admin) -> None:
    as_role("auditor")

    page = client.get("/console/admin/health").text

    assert client.get("/readyz").json()["status"] == "ok"
    assert "Predictions can be answered." in page
    for part in ("Models", "Database", "Writer", "Seal"):
        assert f'<th scope="row">{part}' in page
    assert "not well" not in page
    assert onrecord.__version__ in page
