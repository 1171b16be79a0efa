"""The server as an operator runs it: real processes, their commands and their log."""

import json
import shutil
import time
from pathlib import Path

import httpx2

from live import GOOD_ROW, PASSWORD, linear_model_dir, live_server


def test_two_workers_share_one_record_and_shut_out_a_disabled_user(
    tmp_path: Path,
    database_url: str,
) -> None:
    model_dir = linear_model_dir(tmp_path / "risk")
    with live_server(model_dir, tmp_path / "data", database_url=database_url, workers=2) as server:
        shutil.rmtree(model_dir)
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


def test_an_operator_makes_lists_and_revokes_an_api_key_and_two_workers_follow(
    tmp_path: Path, database_url: str
) -> None:
    model_dir = linear_model_dir(tmp_path / "risk")
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


def test_an_operator_makes_an_auditor(tmp_path: Path) -> None:
    with live_server(linear_model_dir(tmp_path / "risk"), tmp_path / "data") as server:
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


def test_an_admin_is_made_by_command_only(tmp_path: Path) -> None:
    model_dir = linear_model_dir(tmp_path / "risk")
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


def test_the_log_has_the_request_id_that_the_caller_saw_and_counts_the_401s(tmp_path: Path) -> None:
    with live_server(linear_model_dir(tmp_path / "risk"), tmp_path / "data") as server:
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
