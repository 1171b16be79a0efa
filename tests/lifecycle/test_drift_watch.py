"""Who is told of drift: once when it begins and once when it ends, signed, and in the metrics."""

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from pathlib import Path

import httpx2
import numpy as np
import pytest
from sqlalchemy import delete
from starlette.testclient import TestClient
from typer.testing import CliRunner

from calls import Headers, register, wait_until
from live import Server, live_server
from local_receiver import LocalReceiver, local_receiver
from onrecord.cli.main import _build
from onrecord.insight.drift import DriftRules
from onrecord.lifecycle.drift_watch import DriftWatch
from onrecord.record.database import Database
from onrecord.record.tables import baselines, drift_sketches
from onrecord.settings import Settings

SECRET = "a secret of the receiver's"


def rows(seed: int, n: int, higher: float = 0.0) -> dict[str, list[dict[str, object]]]:
    random = np.random.default_rng(seed)
    return {
        "rows": [
            {
                "age": float(random.uniform(20, 90)),
                "pressure": float(random.uniform(80, 200) + higher),
                "smoker": bool(random.random() < 0.5),
                "visits": int(random.integers(10)),
            }
            for _ in range(n)
        ]
    }


@pytest.fixture
def receiver() -> Iterator[LocalReceiver]:
    with local_receiver() as receiver:
        yield receiver


@pytest.fixture
def watch(database: Database, receiver: LocalReceiver) -> DriftWatch:
    with database.write() as connection:
        connection.execute(delete(drift_sketches))
        connection.execute(delete(baselines))
    return DriftWatch(database, lambda raw: raw, DriftRules(), url=receiver.url, secret=SECRET)


def freeze(settings: Settings) -> None:
    environment = {
        "ONRECORD_DATABASE": settings.database_url,
        "ONRECORD_DATA_DIR": str(settings.data_dir),
    }
    frozen = CliRunner().invoke(_build(), ["drift", "freeze", "risk"], env=environment)
    assert frozen.exit_code == 0, frozen.output


def ask(client: TestClient, headers: Headers, seed: int, n: int, higher: float = 0.0) -> None:
    answer = client.post("/predict", json=rows(seed, n, higher), headers=headers)
    assert answer.status_code == 200


def test_drift_is_told_when_it_begins_and_when_it_ends(
    client: TestClient, settings: Settings, watch: DriftWatch, receiver: LocalReceiver
) -> None:
    ada = register(client)
    watch.look()
    ask(client, ada, 1, 500)
    freeze(settings)
    ask(client, ada, 2, 300)
    watch.look()
    assert receiver.notes == []

    ask(client, ada, 3, 300, higher=60)
    watch.look()
    watch.look()
    (begun,) = map(json.loads, receiver.notes)
    scraped = client.get("/metrics").text
    for seed in range(10, 20):
        ask(client, ada, seed, 900)
    watch.look()
    watch.look()

    assert begun["type"] == "drift.changed"
    assert begun["data"]["began"] == ["pressure"]
    assert (begun["data"]["model"], begun["data"]["number"]) == ("risk", 1)
    _, ended = map(json.loads, receiver.notes)
    assert (ended["data"]["began"], ended["data"]["ended"]) == ([], ["pressure"])
    assert 'onrecord_drifting{feature="pressure",model="risk",number="1"} 1.0' in scraped
    assert 'onrecord_drifting{feature="smoker",model="risk",number="1"} 0.0' in scraped


def test_a_message_is_signed_and_sent_again_until_it_arrives(
    client: TestClient, settings: Settings, watch: DriftWatch, receiver: LocalReceiver
) -> None:
    ada = register(client)
    ask(client, ada, 1, 400)
    freeze(settings)
    ask(client, ada, 2, 400, higher=60)
    receiver.status = 500
    watch.look()
    assert (receiver.tries, receiver.notes) == (1, [])
    receiver.status = 204
    watch.look()

    (note,), (headers,) = receiver.notes, receiver.headers
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{note}"
    digest = hmac.new(SECRET.encode(), signed.encode(), hashlib.sha256).digest()
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"


def test_a_server_tells_by_itself(model_dir: Path, tmp_path: Path, receiver: LocalReceiver) -> None:
    told = {"drift_webhook": receiver.url, "drift_webhook_secret": SECRET}
    with live_server(model_dir, tmp_path / "data", drift_minutes="0.01", **told) as server:
        headers = {"authorization": f"Bearer {server.register('ada')}"}
        post(server, headers, rows(1, 500))
        assert server.command("drift", "freeze", "risk").returncode == 0
        post(server, headers, rows(2, 500, higher=60))
        wait_until(lambda: receiver.notes)

    assert json.loads(receiver.notes[0])["data"]["drifting"] == ["pressure"]


def post(server: Server, headers: Headers, body: object) -> None:
    answer = httpx2.post(f"{server.base}/predict", json=body, headers=headers, timeout=30)
    assert answer.status_code == 200
