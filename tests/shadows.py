"""An application whose shadow the tests run themselves, in their own process and step by step."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Row, select
from starlette.testclient import TestClient

from calls import sign_up
from live import GOOD_ROW
from onrecord.app import create_app
from onrecord.lifecycle.directories import Source
from onrecord.lifecycle.fleet import load_stored
from onrecord.lifecycle.shadowing import Shadowing
from onrecord.lifecycle.versions import Versions
from onrecord.parts import build_reveal, load_directory, loader
from onrecord.record.by import By
from onrecord.record.database import Database
from onrecord.record.model_versions import get, versions
from onrecord.record.shadows import Progress, progress_of, running
from onrecord.record.tables import shadow_answers
from onrecord.settings import Settings, load_settings

BY = By("test", operator="tests")


@dataclass
class Service:
    """An application with a second version on record, whose shadow the tests run themselves."""

    client: TestClient
    database: Database
    settings: Settings
    admin: dict[str, str]
    admin_id: str

    def ask(self, count: int = 1, path: str = "/predict") -> list[Any]:
        answers = []
        for i in range(count):
            row = GOOD_ROW | {"age": 20.5 + i}
            answer = self.client.post(path, json=row, headers=self.admin)
            assert answer.status_code == 200, answer.text
            answers.append(answer.json())
        return answers

    def shadow(self, share: float = 1.0, most_behind: int = 10_000) -> Shadowing:
        """Begin a shadow of the newest version."""
        with self.database.read() as connection:
            newest = str(versions(connection, "risk")[-1].number)
        Versions(self.database).share("risk", newest, "shadow", share, BY)
        return self.shadowing(most_behind)

    def shadowing(self, most_behind: int = 10_000) -> Shadowing:
        """Return the shadow that runs, as a new process would have it."""
        with self.database.read() as connection:
            (shadow,) = running(connection)
            version = get(connection, shadow.model_version_id)
        model = load_stored(self.database, version, loader(self.settings))
        reveal = build_reveal(self.settings)
        return Shadowing(self.database, shadow, model, reveal, most_behind=most_behind)

    def stop(self) -> None:
        Versions(self.database).stop("risk", BY)

    def answers(self) -> dict[str, Row[Any]]:
        with self.database.read() as connection:
            rows = connection.execute(select(shadow_answers)).all()
        found = {row.request_id: row for row in rows}
        assert len(found) == len(rows)
        return found

    def progress(self) -> Progress:
        with self.database.read() as connection:
            (shadow,) = running(connection)
            return progress_of(connection, shadow)


def give_conversions(data_dir: Path, *model_dirs: Path) -> None:
    """Give a data directory what was converted for the tests, which takes seconds."""
    for model_dir in model_dirs:
        kept = model_dir.parent / "conversions"
        shutil.copytree(kept, data_dir / "conversions", dirs_exist_ok=True)


@contextmanager
def shadow_service(model_dir: Path, second_dir: Path, home: Path, url: str) -> Iterator[Service]:
    """Start an application that serves one version and has another as candidate."""
    settings = load_settings(
        model_dir=model_dir, data_dir=home / "data", database=url, log_level="error"
    )
    give_conversions(settings.data_dir, model_dir, second_dir)
    with TestClient(create_app(settings)) as client:
        database = Database(settings.database_url)
        add(settings, database, second_dir)
        admin_id, admin = sign_up(client, database, "root", "admin")
        yield Service(client, database, settings, admin, admin_id)
        database.close()


def add(settings: Settings, database: Database, directory: Path) -> None:
    named = settings.model_copy(update={"model_name": "risk"})
    files, model = load_directory(named, Source(directory, "risk"))
    Versions(database).add(files, model, BY)


def work(shadowing: Shadowing) -> None:
    while shadowing.step():
        pass
