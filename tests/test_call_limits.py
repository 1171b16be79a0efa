"""Rates and quotas from the outside: what is refused, what is told, and who counts together."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from live import GOOD_ROW, PASSWORD, linear_model_dir, live_server
from onrecord.app import create_app
from onrecord.errors import SettingsError
from onrecord.settings import Settings, load_settings


def items(header: str) -> dict[str, dict[str, int]]:
    """What a list of a RateLimit header says, by policy."""
    parsed = {}
    for item in header.split(", "):
        name, *parameters = item.split(";")
        pairs = (parameter.split("=") for parameter in parameters)
        parsed[name.strip('"')] = {key: int(value) for key, value in pairs}
    return parsed


def register(client: TestClient, username: str) -> dict[str, str]:
    answer = client.post("/users", json={"username": username, "password": PASSWORD})
    assert answer.status_code == 201, answer.text
    return {"authorization": f"Bearer {answer.json()['access_token']}"}


def make_key(client: TestClient, headers: dict[str, str], **asked: Any) -> dict[str, str]:
    answer = client.post("/keys", json={"name": "batch", **asked}, headers=headers)
    assert answer.status_code == 201, answer.text
    return {"authorization": f"Bearer {answer.json()['key']}"}


@pytest.fixture
def settings(model_dir: Path, tmp_path: Path, database_url: str) -> Settings:
    return load_settings(
        model_dir=model_dir,
        data_dir=tmp_path / "data",
        database=database_url,
        log_level="error",
        call_rate="1000/hour",
        call_quota=6,
    )


def test_a_quota_is_told_used_up_and_not_forgotten_by_a_restart(settings: Settings) -> None:
    day = datetime.now(UTC).date()
    rows = {"rows": [GOOD_ROW] * 5}
    with TestClient(create_app(settings)) as client:
        ada, eve = register(client, "ada"), register(client, "eve")
        key = make_key(client, ada, quota=2, rate="9/minute")
        answers = [
            client.post("/predict", json=GOOD_ROW, headers=key),
            client.post("/predict", json=rows, headers=key),
            client.post("/predict", json=GOOD_ROW, headers=key),
            client.post("/predict", json={}, headers=ada),
            client.post("/predict", content=b"x", headers=ada | {"content-type": "text/nothing"}),
            client.post("/models/none/predict", json=GOOD_ROW, headers=ada),
            client.post("/predict", json=GOOD_ROW, headers=ada),
            client.post("/predict", json=GOOD_ROW, headers=ada),
        ]
        others = client.post("/predict", json=GOOD_ROW, headers=eve)
        shown = client.get("/users/me", headers=ada)
        listed = client.get("/predictions", headers=ada).json()["predictions"]

    with TestClient(create_app(settings)) as client:
        again = client.post("/predict", json=GOOD_ROW, headers=ada)
        by_key = client.post("/predict", json=GOOD_ROW, headers=key)
        if datetime.now(UTC).date() != day:
            pytest.skip("midnight UTC passed, and with it the quotas")

    assert [answer.status_code for answer in answers] == [200, 200, 429, 400, 415, 404, 200, 429]
    told = [items(answer.headers["ratelimit"]) for answer in answers]
    assert [standing["quota"]["r"] for standing in told] == [5, 4, 4, 3, 2, 1, 0, 0]
    assert [standing["key-quota"]["r"] for standing in told[:3]] == [1, 0, 0]
    assert [standing["key-rate"]["r"] for standing in told[:3]] == [8, 7, 7]
    assert "key-rate" not in told[3]
    assert items(answers[0].headers["ratelimit-policy"]) == {
        "rate": {"q": 1000, "w": 3600},
        "key-rate": {"q": 9, "w": 60},
        "quota": {"q": 6, "w": 86400},
        "key-quota": {"q": 2, "w": 86400},
    }
    refused, refused_by_key = answers[-1], answers[2]
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["code"] == "too_many_requests"
    assert refused.json()["violated-policies"] == ["quota"]
    assert refused_by_key.json()["violated-policies"] == ["key-quota"]
    assert int(refused.headers["retry-after"]) == told[-1]["quota"]["t"]
    assert others.status_code == 200
    assert "ratelimit" not in shown.headers
    assert sorted(entry["status"] for entry in listed) == [200, 200, 200, 400, 404, 415, 429, 429]
    assert (again.status_code, by_key.status_code) == (429, 429)
    assert again.json()["violated-policies"] == ["quota"]
    assert by_key.json()["violated-policies"] == ["quota", "key-quota"]


def test_two_workers_let_through_and_fail_exactly_as_often_as_is_set(tmp_path: Path) -> None:
    settings = {"call_rate": "30/day", "call_quota": "1000"}
    model_dir = linear_model_dir(tmp_path / "risk")
    with live_server(model_dir, tmp_path / "data", workers=2, **settings) as server:
        headers = {"authorization": f"Bearer {server.register('ada')}"}
        server.register("eve")
        start = threading.Barrier(12)

        def call(_: int) -> list[httpx2.Response]:
            start.wait(30)
            answers = []
            for _ in range(8):
                # A connection of its own comes to whichever worker is free.
                answer = httpx2.post(f"{server.base}/predict", json=GOOD_ROW, headers=headers)
                answers.append(answer)
            return answers

        with ThreadPoolExecutor(12) as pool:
            answers = [answer for found in pool.map(call, range(12)) for answer in found]
        wrong = {"username": "eve", "password": "wrong"}
        guesses = [httpx2.post(f"{server.base}/token", data=wrong, timeout=30) for _ in range(16)]

    good = [answer for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code != 200]
    told = [items(answer.headers["ratelimit"])["rate"]["r"] for answer in good]
    assert sorted(told) == list(range(30))
    assert {answer.status_code for answer in refused} == {429}
    assert {items(answer.headers["ratelimit"])["rate"]["r"] for answer in refused} == {0}
    assert all(int(answer.headers["retry-after"]) > 80_000 for answer in refused)
    assert [answer.status_code for answer in guesses] == [400] * 10 + [429] * 6
    assert all(1 <= int(answer.headers["retry-after"]) <= 62 for answer in guesses[10:])


def test_a_key_is_not_made_with_limits_that_mean_nothing(settings: Settings) -> None:
    with TestClient(create_app(settings)) as client:
        ada = register(client, "ada")
        asked = {"name": "batch", "rate": "often", "quota": 0}
        refusal = client.post("/keys", json=asked, headers=ada)
        made = client.post(
            "/keys", json={"name": "batch", "rate": "5/minute", "quota": 7}, headers=ada
        )
        (listed,) = client.get("/keys", headers=ada).json()["keys"]

    assert refusal.status_code == 400
    assert {(f["pointer"], f["code"]) for f in refusal.json()["errors"]} == {
        ("/rate", "wrong_form"),
        ("/quota", "out_of_range"),
    }
    assert (made.json()["rate"], made.json()["quota"]) == ("5/minute", 7)
    assert (listed["rate"], listed["quota"]) == ("5/minute", 7)


@pytest.mark.parametrize("rate", ["", "fast", "100/month"])
def test_a_server_does_not_start_with_a_rate_that_means_nothing(
    model_dir: Path, tmp_path: Path, rate: str
) -> None:
    settings = load_settings(model_dir=model_dir, data_dir=tmp_path / "data", call_rate=rate)

    with pytest.raises(SettingsError, match="setting call_rate"):
        create_app(settings)
