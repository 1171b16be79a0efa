"""A real PostgreSQL cluster of our own, for tests: started in a moment, gone afterwards."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Cluster", "PostgresMissingError", "start_cluster"]

_START_SECONDS = 60.0


class PostgresMissingError(Exception):
    """There is no PostgreSQL server on this machine."""


@dataclass
class Cluster:
    """A cluster that trusts whoever connects from this machine.

    Only a `durable` one waits for the disk.
    """

    port: int
    directory: Path
    binaries: Path
    durable: bool
    process: subprocess.Popen[bytes] = field(init=False)

    def url_for(self, dbname: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{dbname}"

    def execute(self, statement: str) -> None:
        """Run one statement in the database 'postgres', outside any transaction."""
        import psycopg

        with psycopg.connect(self.url_for("postgres"), autocommit=True) as connection:
            connection.execute(statement)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        command = [str(self.binaries / "postgres"), "-D", str(self.directory / "data")]
        command += ["-k", str(self.directory), "-p", str(self.port)]
        for setting in (
            "listen_addresses=127.0.0.1",
            f"fsync={'on' if self.durable else 'off'}",
            "max_connections=50",
            "shared_buffers=16MB",
        ):
            command += ["-c", setting]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=_environment(self.directory),
                **_owner(),
            )
        _wait(self)

    def children(self) -> list[int]:
        """Return the ids of the server's other processes."""
        main = self.process.pid
        children = Path(f"/proc/{main}/task/{main}/children").read_text(encoding="ascii")
        return [int(child) for child in children.split()]

    def crash(self) -> None:
        """SIGKILL the server and every process of it."""
        self.process.send_signal(signal.SIGSTOP)  # so that it does not start more of them
        children = self.children()
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        self.process.kill()
        self.process.wait(30)
        # As long as one is there PostgreSQL refuses to start: its shared memory is in use.
        end = time.monotonic() + _START_SECONDS
        while any(Path(f"/proc/{child}").exists() for child in children):
            if time.monotonic() > end:
                raise RuntimeError("processes of PostgreSQL outlive SIGKILL")
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop the server and remove its files."""
        if self.process.poll() is None:
            # SIGQUIT: nothing of it is kept, so there is no need for a checkpoint.
            self.process.send_signal(signal.SIGQUIT)
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
    subprocess.run(
        [
            *(str(binaries / "initdb"), "-D", str(directory / "data"), "-U", "postgres"),
            *("-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=directory,
        env=_environment(directory),
        **owner,
    )
    cluster = Cluster(_free_port(), directory, binaries, durable)
    try:
        cluster.start()
    except BaseException:
        cluster.stop()
        raise
    return cluster


def _environment(directory: Path) -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "HOME": str(directory)}


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
