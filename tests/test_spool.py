"""A server whose PostgreSQL goes away, as its callers and its operator see it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx2
from sqlalchemy.engine import make_url

from calls import wait_until
from live import GOOD_ROW, PASSWORD, Server, live_server
from torture.proxy import Proxy

eventually = partial(wait_until, seconds=30)


@contextmanager
def served(
    model_dir: Path, tmp_path: Path, postgres_url: str, proxy: Proxy, **settings: str
) -> Iterator[Server]:
    url = make_url(postgres_url).set(port=proxy.port).render_as_string()
    with live_server(model_dir, tmp_path / "data", database_url=url, **settings) as server:
        yield server


def predict(server: Server, token: str) -> httpx2.Response:
    return httpx2.post(
        f"{server.base}/predict",
        json=GOOD_ROW,
        headers={"authorization": f"Bearer {token}"},
        timeout=30,
    )


def test_callers_notice_nothing_of_a_database_that_is_away_and_the_operator_does(
    model_dir: Path, tmp_path: Path, postgres_url: str, proxy: Proxy
) -> None:
    limits = {"call_rate": "1000/second", "call_quota": "1000"}
    with served(model_dir, tmp_path, postgres_url, proxy, **limits) as server:
        token = server.register("ada")
        headers = {"authorization": f"Bearer {token}"}
        key = httpx2.post(f"{server.base}/keys", json={"name": "batch"}, headers=headers).json()
        assert predict(server, token).status_code == 200
        assert predict(server, key["key"]).status_code == 200
        proxy.refuse()

        answers = [predict(server, secret) for secret in (token, key["key"]) * 5]
        bad = httpx2.post(f"{server.base}/predict", json={"age": "x"}, headers=headers)
        ready = httpx2.get(f"{server.base}/readyz")
        metrics = httpx2.get(f"{server.base}/metrics")
        shown = server.command("spool", "show")
        ids = [answer.json()["id"] for answer in answers]
        reading = httpx2.get(f"{server.base}/predictions/{ids[0]}", headers=headers)
        signing_in = httpx2.post(
            f"{server.base}/token", data={"username": "ada", "password": PASSWORD}
        )

        assert [answer.status_code for answer in answers] == [200] * 10
        assert bad.status_code == 400
        assert ready.status_code == 200
        assert ready.json()["status"] == "spooling"
        assert ready.json()["checks"]["database"] == "unreachable"
        assert ready.json()["spool"]["waiting"] == 11
        assert "onrecord_spool_waiting_calls 11.0\n" in metrics.text
        assert shown.stdout.startswith("11 calls wait, ")
        # What only the database knows has to wait for it.
        assert reading.status_code == signing_in.status_code == 503
        proxy.accept()
        eventually(lambda: httpx2.get(f"{server.base}/readyz").json()["spool"]["waiting"] == 0)
        for answer, request_id in zip(answers, ids, strict=True):
            found = httpx2.get(f"{server.base}/predictions/{request_id}", headers=headers)
            assert found.json()["output"] == answer.json()
        assert httpx2.get(f"{server.base}/readyz").json()["status"] == "ok"
        assert server.command("spool", "drain").stdout.startswith("0 calls wait, ")


def test_a_silent_database_costs_the_first_calls_some_seconds_and_the_others_nothing(
    model_dir: Path, tmp_path: Path, postgres_url: str, proxy: Proxy
) -> None:
    with served(model_dir, tmp_path, postgres_url, proxy) as server:
        token = server.register("ada")
        assert predict(server, token).status_code == 200
        proxy.hold()

        first = predict(server, token)
        began = time.monotonic()
        others = [predict(server, token).status_code for _ in range(20)]
        took = time.monotonic() - began
        ready = httpx2.get(f"{server.base}/readyz", timeout=30)

        assert first.status_code == 200
        assert others == [200] * 20
        assert took < 20 * 5, "each call waited for the database"
        assert ready.json()["status"] == "spooling"
        proxy.flow()
        eventually(lambda: httpx2.get(f"{server.base}/readyz").json()["spool"]["waiting"] == 0)


def test_without_a_spool_calls_are_refused_while_the_database_is_away(
    model_dir: Path, tmp_path: Path, postgres_url: str, proxy: Proxy
) -> None:
    with served(model_dir, tmp_path, postgres_url, proxy, spool="false") as server:
        token = server.register("ada")
        assert predict(server, token).status_code == 200
        proxy.refuse()

        answer = predict(server, token)
        ready = httpx2.get(f"{server.base}/readyz")
        shown = server.command("spool", "show")

        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert answer.headers["content-type"] == "application/problem+json"
        assert ready.status_code == 503
        assert ready.json()["spool"] is None
        assert shown.returncode == 1
        assert "there is no spool" in shown.stderr
        assert not (tmp_path / "data" / "spool.db").exists()
        proxy.accept()
        eventually(lambda: predict(server, token).status_code == 200)


def test_callers_are_known_without_the_database_for_so_long_only(
    model_dir: Path, tmp_path: Path, postgres_url: str, proxy: Proxy
) -> None:
    with served(model_dir, tmp_path, postgres_url, proxy, spool_minutes="0") as server:
        token = server.register("ada")
        assert predict(server, token).status_code == 200
        proxy.refuse()

        eventually(lambda: predict(server, token).status_code == 503)
