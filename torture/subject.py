"""The server under torture: one deployment, started and harmed as often as a harness likes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import httpx2

from live import Server, launch
from torture.arrivals import Plan
from torture.ledger import Ledger
from torture.load import Load

__all__ = ["Subject", "processes_of"]

_ROOT = Path(__file__).parents[1]
_INPUTS_OF_A_PLAN = 10_000_000


class Subject:
    """A model, a data directory and a database, the server on them and what its callers know.

    `program` is what the interpreter runs: onrecord, or a broken build of it.
    """

    def __init__(
        self,
        model_dir: Path,
        data_dir: Path,
        *,
        database_url: str | None,
        workers: int = 1,
        program: Sequence[str] = ("-m", "onrecord"),
    ) -> None:
        self.data_dir = data_dir
        self.database_url = database_url or f"sqlite:///{data_dir / 'record.db'}"
        self.ledger = Ledger()
        self._model_dir = model_dir
        self._workers = workers
        self._program = program
        self._token = ""
        self._planned = 0
        self._server: Server | None = None

    def start(
        self, *, under: Sequence[str] = (), settings: Mapping[str, str] | None = None
    ) -> None:
        """Start the server and wait until it is ready; `under` is what its command runs under."""
        path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
        self._server = launch(
            self._model_dir,
            self.data_dir,
            database_url=self.database_url,
            workers=self._workers,
            program=self._program,
            under=under,
            variables={"PYTHONPATH": path, "ONRECORD_TOKEN_MINUTES": "10000"}
            | dict(settings or {}),
        )
        if not self._token:
            self._token = self._server.register("ada")

    @property
    def server(self) -> Server:
        """The server that was started last."""
        if self._server is None:
            raise RuntimeError("the server was not started")
        return self._server

    @property
    def processes(self) -> list[int]:
        """The ids of the server's processes: itself, its workers, and those beside them."""
        return processes_of(self.server)

    @property
    def running(self) -> bool:
        """Whether the server's process runs."""
        return self._server is not None and self._server.process.poll() is None

    @property
    def ready(self) -> bool:
        """Whether the server says that it can answer."""
        try:
            return httpx2.get(f"{self.server.base}/readyz", timeout=10).status_code == 200
        except httpx2.TransportError:
            return False

    def load(self, *, connections: int = 16, reconnect: bool = False) -> Load:
        """Return a load of calls on this server, to be entered."""
        return Load(
            self.server.base,
            self._token,
            self.ledger,
            connections=connections,
            reconnect=reconnect,
        )

    def plan(self, *, rate: float, seconds: float, connections: int, settling: float = 0.0) -> Plan:
        """Return a plan of arriving calls, with inputs that no other plan of it has."""
        address = urlsplit(self.server.base)
        self._planned += 1
        return Plan(
            host=str(address.hostname),
            port=address.port or 80,
            token=self._token,
            rate=rate,
            seconds=seconds,
            connections=connections,
            first=self._planned * _INPUTS_OF_A_PLAN,
            seed=self._planned,
            settling=settling,
        )

    def stop(self) -> None:
        """Kill the server, if it runs."""
        if self.running:
            self.server.kill()


def processes_of(server: Server) -> list[int]:
    """Return the ids of a server's processes: itself, its workers, and those beside them."""
    group = server.process.pid
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name, in parentheses, may hold anything; the group comes third after it.
            after_name = status.read_text().rpartition(")")[2].split()
            if int(after_name[2]) == group and after_name[0] != "Z":
                found.append(int(status.parent.name))
    return found
