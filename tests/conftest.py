"""Fixtures that every test may ask for: an event loop, and an empty database of each kind."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from live import linear_model_dir
from onrecord.record.database import Database
from onrecord.settings import Settings
from postgres import Cluster, PostgresMissingError, start_cluster


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[Cluster]:
    """One cluster per test process; a test fails where PostgreSQL is missing."""
    try:
        cluster = start_cluster()
    except PostgresMissingError as error:
        pytest.fail(str(error))
    yield cluster
    cluster.stop()


@pytest.fixture
def postgres_url(postgres_cluster: Cluster) -> Iterator[str]:
    """The URL of an empty PostgreSQL database, dropped after the test."""
    name = f"test_{uuid.uuid4().hex}"
    postgres_cluster.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    yield postgres_cluster.url_for(name)
    postgres_cluster.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'record.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of a small real model, which no test may change."""
    return linear_model_dir(tmp_path_factory.mktemp("model") / "risk")


@pytest.fixture
def database(client: TestClient, settings: Settings) -> Iterator[Database]:
    """A second view on the database of the module's `client`."""
    database = Database(settings.database_url)
    yield database
    database.close()
