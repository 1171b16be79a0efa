"""One real server for all attacks that need one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from calls import Headers
from live import PASSWORD, Server, linear_model_dir, live_server
from onrecord.record import users
from onrecord.record.database import Database
from onrecord.settings import Settings


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("attacked")
    with live_server(linear_model_dir(home / "risk"), home / "data") as running:
        yield running


@pytest.fixture(scope="session")
def token(server: Server) -> str:
    return server.register("ada")


@pytest.fixture(scope="module")
def admin(client: TestClient, settings: Settings) -> Headers:
    """What an admin of the module's `client` sends."""
    answer = client.post("/users", json={"username": "root", "password": PASSWORD})
    database = Database(settings.database_url)
    with database.write() as connection:
        users.set_role(connection, answer.json()["user"]["id"], "admin")
    database.close()
    return {"authorization": f"Bearer {answer.json()['access_token']}"}
