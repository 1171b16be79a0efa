"""Sealing as an operator sees it: a live server, its sealing process and the commands."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import httpx2
import pytest

from calls import wait_until
from live import GOOD_ROW, Server, launch, live_server
from local_receiver import local_receiver
from onrecord.record.database import Database
from onrecord.settings import load_settings


def call(server: Server, token: str, count: int) -> list[str]:
    headers = {"authorization": f"Bearer {token}"}
    with httpx2.Client(base_url=server.base, headers=headers, timeout=30) as client:
        return [client.post("/predict", json=GOOD_ROW).json()["id"] for _ in range(count)]


def sealed(server: Server) -> int:
    """Return the size of the newest head in the file, 0 where there is none."""
    file = server.data_dir / "heads.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return int(json.loads(lines[-1])["note"].split("\n")[1]) if lines else 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_seals_by_itself_and_the_record_verifies(
    model_dir: Path, tmp_path: Path, database_url: str, workers: int
) -> None:
    with live_server(
        model_dir,
        tmp_path / "data",
        database_url=database_url,
        workers=workers,
        seal_seconds="0.1",
    ) as server:
        call(server, server.register("ada"), 20)
        wait_until(lambda: sealed(server) == 21)

        verified = server.command("verify")
        status = server.command("seal", "status")

    assert verified.returncode == 0, verified.stderr
    assert "verified 21 rows" in verified.stdout
    assert "not yet under a head: 0 rows" in verified.stdout
    assert ": 21 rows" in status.stdout
    assert "not yet sealed: 0 rows" in status.stdout


def test_what_is_left_is_sealed_when_the_server_stops(model_dir: Path, tmp_path: Path) -> None:
    with local_receiver() as receiver:
        settings = {"seal_seconds": "3600", "heads_url": receiver.url}
        with live_server(model_dir, tmp_path / "data", **settings) as server:
            call(server, server.register("ada"), 3)
            assert sealed(server) == 0
            state = httpx2.get(f"{server.base}/readyz").json()["seal"]
            assert state == {"size": 0, "signed_at": None, "unsealed": 3}

        wait_until(lambda: sealed(server) == 4)
        wait_until(lambda: receiver.sizes == [4])


def test_a_sealing_process_that_dies_is_started_again(model_dir: Path, tmp_path: Path) -> None:
    with live_server(model_dir, tmp_path / "data", seal_seconds="0.2") as server:
        token = server.register("ada")
        call(server, token, 1)
        wait_until(lambda: sealed(server) == 2)
        pid = server.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        (sealing,) = [
            int(child)
            for child in children
            if "sealing" in Path(f"/proc/{child}/cmdline").read_text()
        ]

        os.kill(sealing, signal.SIGKILL)
        call(server, token, 1)

        wait_until(lambda: sealed(server) == 2)
        assert server.command("verify").returncode == 0


def test_a_killed_server_leaves_a_record_that_verifies(
    model_dir: Path, tmp_path: Path, database_url: str
) -> None:
    before = 0
    for name in ("ada", "bob"):
        server = launch(
            model_dir, tmp_path / "data", database_url=database_url, seal_seconds="0.05"
        )
        token = server.register(name)
        while sealed(server) < before + 30:
            call(server, token, 5)
        server.kill()
        before = sealed(server)

    assert server.command("seal").returncode == 0
    verified = server.command("verify")
    assert verified.returncode == 0, verified.stderr
    assert "not yet under a head: 0 rows" in verified.stdout


def test_a_call_that_was_changed_is_named_by_the_command(model_dir: Path, tmp_path: Path) -> None:
    settings = {"seal_seconds": "0"}
    with live_server(model_dir, tmp_path / "data", **settings) as server:
        ids = call(server, server.register("ada"), 5)
        assert sealed(server) == 0
        assert "has a head of 6 rows" in server.command("seal").stdout
    database = Database(load_settings(data_dir=tmp_path / "data").database_url)
    with database.write() as connection:
        connection.exec_driver_sql(
            "UPDATE responses SET output = replace(output, '1', '0') WHERE request_id = ?",
            (ids[3],),
        )
    database.close()

    found = server.command("verify")

    assert found.returncode == 1
    assert found.stdout == ""
    assert f"row 5, call {ids[3]} (leaf 4 of 6): its content is not" in found.stderr


def test_an_auditor_verifies_with_copies_of_the_heads_and_of_the_key(
    model_dir: Path, tmp_path: Path
) -> None:
    settings = {"seal_seconds": "0", "heads_file": str(tmp_path / "worm" / "heads")}
    with live_server(model_dir, tmp_path / "data", **settings) as server:
        call(server, server.register("ada"), 2)
        server.command("seal")
        key = tmp_path / "key.pub"
        key.write_text(server.command("seal", "key").stdout)
        url = f"sqlite:///{server.data_dir / 'record.db'}"
        words = ["verify", "--heads", settings["heads_file"], "--database", url]
        elsewhere = {"ONRECORD_DATA_DIR": str(tmp_path / "auditor")}

        with_key = server.command(*words, "--public-key", str(key), **elsewhere)
        with local_receiver(Path(settings["heads_file"]).read_bytes()) as receiver:
            words[2] = receiver.url
            from_url = server.command(*words, "--public-key", str(key), **elsewhere)
        words[2] = settings["heads_file"]
        without = server.command(*words, **elsewhere)
        key.write_text(key.read_text().replace("+", "x+", 1))
        with_another = server.command(*words, "--public-key", str(key), **elsewhere)

    assert "verified 3 rows" in with_key.stdout
    assert "verified 3 rows" in from_url.stdout
    assert "say --public-key FILE" in without.stderr
    assert "this is not a public key" in with_another.stderr
    assert without.returncode == with_another.returncode == 1


def test_commands_say_what_is_missing(model_dir: Path, tmp_path: Path) -> None:
    with live_server(model_dir, tmp_path / "data", seal_seconds="0") as server:
        assert "no head was ever signed" in server.command("seal", "status").stdout
        server.command("seal", "key")
        refused = server.command("verify")
    unused = {"ONRECORD_DATA_DIR": str(tmp_path / "unused")}
    server.command("db", "upgrade", **unused)
    nothing = server.command("seal", **unused)

    assert refused.returncode == 1
    assert "has no head" in refused.stderr
    assert "nothing is on record yet" in nothing.stdout
