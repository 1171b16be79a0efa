"""What the tests of an application do to it again and again, from the outside."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

from starlette.testclient import TestClient

from live import GOOD_ROW, PASSWORD
from onrecord.accounts.keys import KeyRing
from onrecord.accounts.tokens import Tokens
from onrecord.record import reader, users
from onrecord.record.database import Database
from onrecord.settings import Settings

Headers = dict[str, str]


def wait_until(holds: Callable[[], object], *, seconds: float = 60) -> None:
    """Return once something holds; fails where it does not in that time."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def bearer(token: str) -> Headers:
    return {"authorization": f"Bearer {token}"}


def register(client: TestClient, username: str = "ada") -> Headers:
    """Make a user and return what it sends."""
    answer = client.post("/users", json={"username": username, "password": PASSWORD})
    assert answer.status_code == 201, answer.text
    return bearer(answer.json()["access_token"])


def known(settings: Settings, username: str = "ada") -> Headers:
    """Put a user on record without a password, which is slow to hash; return what it sends."""
    database = Database(settings.database_url)
    with database.write() as connection:
        user = users.add(connection, username=username, email=None, password_hash=None, role="user")
    database.close()
    tokens = Tokens(
        KeyRing.from_file(settings.token_file),
        issuer=settings.token_issuer,
        audience=settings.token_audience,
        lifetime=timedelta(minutes=settings.token_minutes),
    )
    return bearer(tokens.issue(user.id, user.token_version))


def sign_up(
    client: TestClient, database: Database, username: str, role: str = "user"
) -> tuple[str, Headers]:
    """Make a user of that role and return its id, and what it sends."""
    headers = register(client, username)
    with database.write() as connection:
        user = users.by_username(connection, username)
        assert user is not None
        users.set_role(connection, user.id, role)
    return user.id, headers


def predict(client: TestClient, headers: Headers, body: object = GOOD_ROW) -> str:
    """Ask for a prediction and return its id."""
    answer = client.post("/predict", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    identifier: str = answer.json()["id"]
    return identifier


def recorded(database: Database) -> list[reader.Entry]:
    """Return what is on record, the newest call first."""
    with database.read() as connection:
        return reader.page(connection, reader.Filters(), limit=100, before=None)
