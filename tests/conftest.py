"""Fixtures that every test may ask for: an empty database of each kind, and an application.

The application is started once for a module and kind of database, since that costs a hundred times
what a call of it does; each test finds its record empty.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from sqlalchemy.engine import make_url
from starlette.testclient import TestClient

from live import converted, give_conversion, linear_model_dir
from onrecord.accounts.passwords import Passwords
from onrecord.app import create_app
from onrecord.file_lock import locked
from onrecord.record.database import Database
from onrecord.record.tables import deployments, metadata, model_files, model_versions
from onrecord.settings import Settings, load_settings
from postgres import Cluster, PostgresMissingError, start_cluster
from torture.proxy import Proxy

DATABASES = ["sqlite", "postgresql"]
# What the application that runs has loaded.
KEPT = (deployments, model_files, model_versions)
SLOWEST = {
    "test_compile.py",
    "test_fuzz.py",
    "test_processes.py",
    "test_sealing.py",
    "test_story.py",
    "test_torture.py",
    "test_versions.py",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the slowest modules, so that none of them goes on alone at the end."""
    items.sort(key=lambda item: item.path.name not in SLOWEST)


@pytest.fixture(scope="session", autouse=True)
def cheap_passwords() -> Iterator[None]:
    """Hash the passwords of applications in this process at little cost.

    By design a hash takes a quarter of a second, and most tests sign somebody up. Servers in
    processes of their own hash as they always do.
    """
    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("onrecord.parts.Passwords", partial(Passwords, cheap))
        yield


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


@contextmanager
def empty_postgresql(cluster: Cluster) -> Iterator[str]:
    """Give the URL of an empty database, dropped afterwards."""
    name = f"test_{uuid.uuid4().hex}"
    cluster.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    yield cluster.url_for(name)
    cluster.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def postgres_url(postgres_cluster: Cluster) -> Iterator[str]:
    """The URL of an empty PostgreSQL database, dropped after the test."""
    with empty_postgresql(postgres_cluster) as url:
        yield url


@pytest.fixture
def proxy(postgres_url: str) -> Iterator[Proxy]:
    """A proxy before the database of `postgres_url`, by which that can go away."""
    with Proxy(make_url(postgres_url).port or 5432) as proxy:
        yield proxy


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'record.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of a small real model, which no test may change; all of a run share it."""
    base = tmp_path_factory.getbasetemp()
    # Under pytest-xdist each process has a folder of its own in the run's.
    home = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "model"
    home.mkdir(exist_ok=True)
    with locked(home / "lock"):
        if not (home / "conversions").exists():
            shutil.rmtree(home / "risk", ignore_errors=True)
            converted(linear_model_dir(home / "risk"))
    return home / "risk"


@dataclass
class Application:
    """What is started for a module: its settings, and a client that keeps it running."""

    settings: Settings
    client: TestClient


@pytest.fixture(scope="module")
def more_settings() -> dict[str, Any]:
    """What the module's application is set to beyond the defaults; a module says its own."""
    return {}


@pytest.fixture(scope="module", params=DATABASES)
def application(
    request: pytest.FixtureRequest,
    model_dir: Path,
    more_settings: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Application]:
    """The module's application, on a database of each kind in turn."""
    home = tmp_path_factory.mktemp("application")
    if request.param == "sqlite":
        with started(model_dir, home, f"sqlite:///{home / 'record.db'}", more_settings) as running:
            yield running
        return
    cluster: Cluster = request.getfixturevalue("postgres_cluster")
    with (
        empty_postgresql(cluster) as url,
        started(model_dir, home, url, more_settings) as running,
    ):
        yield running


@contextmanager
def started(
    model_dir: Path, home: Path, database_url: str, more: dict[str, Any]
) -> Iterator[Application]:
    settings = load_settings(
        model_dir=model_dir,
        data_dir=home / "data",
        database=database_url,
        log_level="error",
        **more,
    )
    give_conversion(model_dir, settings.data_dir)
    with TestClient(create_app(settings)) as client:
        yield Application(settings, client)


@pytest.fixture
def settings(application: Application) -> Settings:
    """The settings of the module's application, whose record is empty now."""
    settings = application.settings
    database = Database(settings.database_url)
    with database.write() as connection:
        for table in reversed(metadata.sorted_tables):
            if table not in KEPT:
                connection.execute(table.delete())
    database.close()
    settings.heads_path.unlink(missing_ok=True)
    return settings


@pytest.fixture
def client(application: Application, settings: Settings) -> Iterator[TestClient]:
    """A client of the module's application, whose record is empty when the test begins."""
    headers = application.client.headers.copy()
    yield application.client
    application.client.headers = headers
    application.client.cookies.clear()


@pytest.fixture
def database(client: TestClient, settings: Settings) -> Iterator[Database]:
    """A second view on the database of the module's `client`."""
    database = Database(settings.database_url)
    yield database
    database.close()
