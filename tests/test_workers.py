"""Several worker processes on one database."""

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
