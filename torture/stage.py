"""What the harnesses are given: fresh deployments to harm, and real databases."""

from __future__ import annotations

import random
import shutil
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from live import linear_model_dir
from postgres import Cluster, start_cluster
from torture.subject import Subject

__all__ = ["Kind", "Stage"]

Kind = Literal["SQLite", "PostgreSQL"]


class Stage:
    """Gives out subjects whose files lie in `home`; on leaving, all that runs is stopped."""

    def __init__(self, home: Path, seed: int) -> None:
        self.home = home
        self.chance = random.Random(seed)
        self.model_dir = linear_model_dir(home / "risk")
        self._conversions = home / "conversions"
        self._cluster: Cluster | None = None
        self._exits = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._exits.close()

    @property
    def cluster(self) -> Cluster:
        """A PostgreSQL that waits for the disk, started when it is first asked for."""
        if self._cluster is None:
            self._cluster = start_cluster(durable=True)
            self._exits.callback(self._cluster.stop)
        return self._cluster

    def database_url(self, kind: Kind) -> str | None:
        """Return the URL of an empty database; None is SQLite in the data directory."""
        if kind == "SQLite":
            return None
        name = f"torture_{uuid.uuid4().hex}"
        self.cluster.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        return self.cluster.url_for(name)

    @contextmanager
    def subject(  # noqa: PLR0913 - what a deployment can differ in
        self,
        kind: Kind = "SQLite",
        *,
        workers: int = 1,
        broken: str | None = None,
        database_url: str | None = None,
        data_dir: Path | None = None,
        model_dir: Path | None = None,
    ) -> Iterator[Subject]:
        """Give a deployment with an empty record; it is stopped and its files go afterwards."""
        directory = data_dir or self.home / f"data-{uuid.uuid4().hex[:8]}"
        if self._conversions.exists():
            shutil.copytree(self._conversions, directory / "conversions")
        subject = Subject(
            model_dir or self.model_dir,
            directory,
            database_url=database_url or self.database_url(kind),
            workers=workers,
            program=(["-m", "torture.broken", broken] if broken else ["-m", "onrecord"]),
        )
        try:
            yield subject
        finally:
            subject.stop()
            if not self._conversions.exists() and (directory / "conversions").exists():
                shutil.copytree(directory / "conversions", self._conversions)
            shutil.rmtree(directory, ignore_errors=True)
