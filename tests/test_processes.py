"""The server as an operator runs it: real processes, their commands and their log."""

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import httpx2

from live import GOOD_ROW, PASSWORD, Server, give_conversion, live_server


def test_two_workers_share_one_record_and_shut_out_a_disabled_user(
    model_dir: Path, tmp_path: Path, database_url: str
) -> None:
    doomed = shutil.copytree(model_dir, tmp_path / "risk")
    give_conversion(model_dir, tmp_path / "data")
    with live_server(doomed, tmp_path / "data", database_url=database_url, workers=2) as server:
        shutil.rmtree(doomed)
        token = server.register("ada")
        headers = {"authorization": f"Bearer {token}"}

        ids = {
            httpx2.post(f"{server.base}/predict", json=GOOD_ROW, headers=headers).json()["id"]
            for _ in range(40)
        }

        page = httpx2.get(f"{server.base}/predictions?limit=100", headers=headers).json()
        assert {p["id"] for p in page["predictions"]} == ids
        disabled = server.command("users", "disable", "ada")
        assert disabled.returncode == 0, disabled.stderr
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            httpx2.get(f"{server.base}/healthz")
        statuses = {
            httpx2.post(f"{server.base}/predict", json=GOOD_ROW, headers=headers).status_code
            for _ in range(20)
        }
        assert statuses == {401}
    log = (tmp_path / "data.log").read_text(encoding="utf-8")
    assert log.count('"path":"/predict"') == 40 + 20
    assert "POST /predict HTTP" not in log


def test_retries_get_one_answer_from_two_workers_and_after_a_crash(
    tmp_path: Path, model_dir: Path, database_url: str
) -> None:
    data = tmp_path / "data"

    def serve(workers: int) -> AbstractContextManager[Server]:
        return live_server(model_dir, data, database_url=database_url, workers=workers)

    with serve(2) as server, ThreadPoolExecutor(50) as threads:
        headers = {
            "authorization": f"Bearer {server.register('ada')}",
            "idempotency-key": '"8e03978e-40d5-43dd-bc93-6894a57f9324"',
        }

        def predict(_: int) -> httpx2.Response:
            return httpx2.post(f"{server.base}/predict", json=GOOD_ROW, headers=headers, timeout=60)

        answers = list(threads.map(predict, range(50)))
        server.kill()

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert [answer.headers.get("idempotent-replayed") for answer in answers].count(None) == 1
    with serve(1) as server:
        again = predict(0)
        other = httpx2.post(f"{server.base}/predict", json={"age": 1}, headers=headers)
        page = httpx2.get(f"{server.base}/predictions?status=200", headers=headers).json()
    assert (again.status_code, again.content) == (200, answers[0].content)
    assert other.status_code == 422
    assert [entry["id"] for entry in page["predictions"]] == [again.json()["id"]]


def test_an_operator_makes_lists_and_revokes_an_api_key_and_two_workers_follow(
    model_dir: Path, tmp_path: Path, database_url: str
) -> None:
    with live_server(model_dir, tmp_path / "data", database_url=database_url, workers=2) as server:
        ada = {"authorization": f"Bearer {server.register('ada')}"}
        made = server.command(
            "api-keys", "create", "ada", "trial run", "--scope", "predict", "--test",
            "--rate", "1000/minute", "--quota", "5000",
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        key = {"authorization": f"Bearer {made.stdout.strip()}"}

        def predict() -> httpx2.Response:
            return httpx2.post(f"{server.base}/predict", json=GOOD_ROW, headers=key)

        ids = {predict().json()["id"] for _ in range(20)}

        assert httpx2.get(f"{server.base}/predictions", headers=ada).json()["predictions"] == []
        page = httpx2.get(f"{server.base}/predictions?test=true&limit=50", headers=ada).json()
        assert {entry["id"] for entry in page["predictions"]} == ids
        assert server.command("log", "--json").stdout == ""
        exported = server.command("export", "--test").stdout.splitlines()
        assert {json.loads(line)["id"] for line in exported} == ids
        (listed,) = server.command(
            "api-keys", "list", "--user", "ada", "--json"
        ).stdout.splitlines()
        shown = json.loads(listed)
        assert (shown["name"], shown["state"], shown["models"]) == ("trial run", "valid", "every")
        assert shown["limits"] == "1000/minute 5000/day"
        assert made.stdout.startswith(shown["prefix"])
        revoked = server.command("api-keys", "revoke", shown["id"])
        assert revoked.returncode == 0, revoked.stderr
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            httpx2.get(f"{server.base}/healthz")
        assert {predict().status_code for _ in range(20)} == {401}
        assert '"state": "revoked"' in server.command("api-keys", "list", "--json").stdout


def test_an_operator_makes_an_auditor(model_dir: Path, tmp_path: Path) -> None:
    with live_server(model_dir, tmp_path / "data") as server:
        made = server.command(
            "users", "create", "vera", "--role", "auditor", ONRECORD_NEW_PASSWORD=PASSWORD
        )
        assert made.returncode == 0, made.stderr
        tokens = httpx2.post(
            f"{server.base}/token", data={"username": "vera", "password": PASSWORD}
        ).json()
        headers = {"authorization": f"Bearer {tokens['access_token']}"}

        assert httpx2.get(f"{server.base}/users", headers=headers).status_code == 200
        refusal = httpx2.post(f"{server.base}/predict", json=GOOD_ROW, headers=headers)
        assert refusal.status_code == 403
        refused = server.command("api-keys", "create", "vera", "hers")
        assert (refused.returncode, "auditor" in refused.stderr) == (1, True)
        assert server.command("users", "set-role", "vera", "user").returncode == 0
        assert '"role": "user"' in server.command("users", "list", "--json").stdout


def test_an_admin_is_made_by_command_only(model_dir: Path, tmp_path: Path) -> None:
    with live_server(model_dir, tmp_path / "data") as server:
        made = server.command("users", "create", "root", "--admin", ONRECORD_NEW_PASSWORD=PASSWORD)
        assert made.returncode == 0, made.stderr
        token = httpx2.post(
            f"{server.base}/token", data={"username": "root", "password": PASSWORD}
        ).json()["access_token"]

        me = httpx2.get(f"{server.base}/users/me", headers={"authorization": f"Bearer {token}"})

        assert me.json()["role"] == "admin"
        listed = server.command("users", "list", "--json")
        assert '"username": "root"' in listed.stdout
        assert "sqlite:///" in server.command("config").stdout


def test_the_log_has_the_request_id_that_the_caller_saw_and_counts_the_401s(
    model_dir: Path, tmp_path: Path
) -> None:
    with live_server(model_dir, tmp_path / "data") as server:
        wrong = {"authorization": "Bearer wrong"}
        shown = [
            httpx2.post(f"{server.base}/predict", json=GOOD_ROW, headers=wrong).headers[
                "x-request-id"
            ]
            for _ in range(2)
        ]
    lines = (tmp_path / "data.log").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines if line.startswith("{")]
    refused = [event for event in events if event.get("status") == 401]

    assert [event["request_id"] for event in refused] == shown
    assert [event["unauthenticated_so_far"] for event in refused] == [1, 2]
    assert "wrong" not in str(events)
