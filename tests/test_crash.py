"""SIGKILL under load: what was answered is on record, exactly once, byte for byte."""

import json
import threading
from pathlib import Path

import httpx2
import pytest

from live import GOOD_ROW, Server, launch, linear_model_dir
from onrecord.record import reader
from onrecord.record.database import Database


def load(server: Server, token: str, answered: dict[str, bytes], stop: threading.Event) -> None:
    """Call as fast as the server answers, and keep every answer that arrived whole."""
    headers = {"authorization": f"Bearer {token}"}
    with httpx2.Client(base_url=server.base, headers=headers, timeout=20) as client:
        while not stop.is_set():
            try:
                answer = client.post("/predict", json=GOOD_ROW)
            except httpx2.TransportError:
                return
            if answer.status_code == 200:
                answered[answer.json()["id"]] = answer.content


def on_record(database_url: str) -> dict[str, bytes]:
    database = Database(database_url)
    try:
        with database.read() as connection:
            return {e.id: e.output for e in reader.stream(connection, reader.Filters())}
    finally:
        database.close()


def half_written(database_url: str) -> int:
    """Count requests without a response."""
    database = Database(database_url)
    try:
        with database.read() as connection:
            return connection.exec_driver_sql(
                "SELECT count(*) FROM requests WHERE id NOT IN (SELECT request_id FROM responses)"
            ).scalar_one()
    finally:
        database.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_every_answered_call_is_on_record_after_sigkill(
    tmp_path: Path,
    database_url: str,
    workers: int,
) -> None:
    model_dir = linear_model_dir(tmp_path / "risk")
    answered: dict[str, bytes] = {}
    for round_number in range(3):
        server = launch(model_dir, tmp_path / "data", database_url=database_url, workers=workers)
        token = server.register(f"user{round_number}")
        before = len(answered)
        stop = threading.Event()
        clients = [
            threading.Thread(target=load, args=(server, token, answered, stop)) for _ in range(8)
        ]
        for client in clients:
            client.start()
        while len(answered) < before + 150 * (round_number + 1):
            assert server.process.poll() is None
            assert any(client.is_alive() for client in clients)
        server.kill()
        stop.set()
        for client in clients:
            client.join()

    recorded = on_record(database_url)

    assert {i: recorded.get(i) for i in answered} == answered
    assert half_written(database_url) == 0


def test_sigterm_under_load_cuts_and_loses_nothing(tmp_path: Path, database_url: str) -> None:
    server = launch(
        linear_model_dir(tmp_path / "risk"), tmp_path / "data", database_url=database_url
    )
    token = server.register("ada")
    answered: dict[str, bytes] = {}
    faults: list[str] = []
    enough = threading.Event()

    def calls() -> None:
        headers = {"authorization": f"Bearer {token}"}
        while True:
            # One connection a call, so that a refused connection is told from a cut call.
            try:
                with httpx2.Client(base_url=server.base, headers=headers, timeout=20) as client:
                    answer = client.post("/predict", json=GOOD_ROW)
            except httpx2.ConnectError:
                return
            except httpx2.TransportError as error:
                faults.append(repr(error))
                return
            if answer.status_code != 200:
                faults.append(answer.text)
                return
            answered[answer.json()["id"]] = answer.content
            if len(answered) > 100:
                enough.set()

    clients = [threading.Thread(target=calls) for _ in range(4)]
    for client in clients:
        client.start()
    assert enough.wait(60)
    server.process.terminate()
    for client in clients:
        client.join()

    assert server.process.wait(60) in (0, -15)
    recorded = on_record(database_url)
    assert {i: recorded.get(i) for i in answered} == answered
    # A connection that the kernel accepted but the server never saw may be reset: no call was cut
    # that the server had begun, so every call on record was answered.
    assert set(recorded) == set(answered), json.dumps(faults)
