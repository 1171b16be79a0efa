"""A real PostgreSQL cluster of our own, for tests: started in a moment, gone afterwards."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Cluster", "PostgresMissingError", "start_cluster"]

_START_SECONDS = 60.0


class PostgresMissingError(Exception):
    """There is no PostgreSQL server on this machine."""


@dataclass(frozen=True)
class Cluster:
    """A running cluster that trusts whoever connects from this machine."""

    port: int
    directory: Path
    process: subprocess.Popen[bytes]
    binaries: Path

    def url_for(self, dbname: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{dbname}"

    def execute(self, statement: str) -> None:
        """Run one statement in the database 'postgres', outside any transaction."""
        import psycopg

        with psycopg.connect(self.url_for("postgres"), autocommit=True) as connection:
            connection.execute(statement)

    def stop(self) -> None:
        """Stop the server and remove its files."""
        if self.process.poll() is None:
            # SIGQUIT: nothing of it is kept, so there is no need for a checkpoint.
            self.process.send_signal(3)
            self.process.wait(30)
        shutil.rmtree(self.directory, ignore_errors=True)


def start_cluster(*, durable: bool = False) -> Cluster:
    """Start a cluster; raises PostgresMissingError where PostgreSQL is not installed.

    Only a `durable` one waits for the disk.
    """
    binaries = _binaries()
    directory = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    owner = _owner()
    if owner:
        os.chown(directory, owner["user"], owner["group"])
    environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "HOME": str(directory)}
    data = directory / "data"
    subprocess.run(
        [
            *(str(binaries / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust"),
            *("-E", "UTF8", "--locale=C", "--no-sync"),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=directory,
        env=environment,
        **owner,
    )
    port = _free_port()
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(
                    str(binaries / "postgres"),
                    "-D",
                    str(data),
                    "-k",
                    str(directory),
                    "-p",
                    str(port),
                ),
                *("-c", "listen_addresses=127.0.0.1", "-c", f"fsync={'on' if durable else 'off'}"),
                *("-c", "max_connections=50", "-c", "shared_buffers=16MB"),
            ],
            stdout=log,
            stderr=log,
            cwd=directory,
            env=environment,
            **owner,
        )
    cluster = Cluster(port, directory, process, binaries)
    try:
        _wait(cluster)
    except BaseException:
        cluster.stop()
        raise
    return cluster


def _binaries() -> Path:
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[4])
    )
    on_path = shutil.which("postgres")
    candidates = [*reversed(found), *([Path(on_path).resolve()] if on_path else [])]
    for candidate in candidates:
        if (candidate.parent / "initdb").exists():
            return candidate.parent
    raise PostgresMissingError(
        "These tests need PostgreSQL's server: apt-get install postgresql (initdb and postgres)."
    )


def _owner() -> dict[str, Any]:
    """Return who the server is to run as: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return {"user": entry.pw_uid, "group": entry.pw_gid}
    raise PostgresMissingError("Neither 'postgres' nor 'nobody' is a user of this machine.")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(cluster: Cluster) -> None:
    end = time.monotonic() + _START_SECONDS
    ready = [str(cluster.binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(cluster.port)]
    while subprocess.run(ready, check=False).returncode != 0:
        if cluster.process.poll() is not None or time.monotonic() > end:
            log = (cluster.directory / "log").read_text(errors="replace")
            raise RuntimeError(f"PostgreSQL did not start:\n{log}")
        time.sleep(0.05)
