"""Calls that arrive whole are answered past ASGI; nobody can tell from outside."""

import contextlib
import json
import signal
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from live import GOOD_ROW, Server, live_server
from wire import Wire, request_bytes


@pytest.fixture(scope="module")
def server(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("direct")
    with live_server(model_dir, home / "data") as running:
        yield running


@pytest.fixture(scope="module")
def token(server: Server) -> str:
    return server.register("ada")


def test_one_packet_or_several_give_the_same_answer_and_record(server: Server, token: str) -> None:
    whole = request_bytes(token, GOOD_ROW, "X-Request-ID: mine-1")
    with Wire(server) as wire:
        wire.ask(whole)
        together = wire.ask(whole)
        head, _, body = whole.partition(b"\r\n\r\n")
        apart = wire.ask(head + b"\r\n\r\n", body[:10], body[10:])
        in_the_head = wire.ask(whole[:20], whole[20:])

    for status, headers, answer in (apart, in_the_head):
        assert status == together[0] == 200
        assert list(headers) == list(together[1])
        assert headers["x-request-id"] == "mine-1"
        ours, theirs = json.loads(together[2]), json.loads(answer)
        assert ours.pop("id") != theirs.pop("id")
        assert ours == theirs
    ids = [json.loads(answer)["id"] for _, _, answer in (together, apart, in_the_head)]
    entries = [
        httpx2.get(
            f"{server.base}/predictions/{i}", headers={"authorization": f"Bearer {token}"}
        ).json()
        for i in ids
    ]
    own = {"id", "received_at", "responded_at", "duration_us", "output"}
    shared = [{k: v for k, v in entry.items() if k not in own} for entry in entries]
    assert shared[0] == shared[1] == shared[2]
    assert shared[0]["input"] == GOOD_ROW
    assert shared[0]["x_request_id"] == "mine-1"


def test_pipelined_calls_are_answered_in_their_order(server: Server, token: str) -> None:
    names = [f"call-{i}" for i in range(12)]
    packet = b"".join(request_bytes(token, GOOD_ROW, f"X-Request-ID: {name}") for name in names)
    with Wire(server) as wire:
        wire.ask(request_bytes(token, GOOD_ROW))
        wire.socket.sendall(packet)
        answers = [wire.answer() for _ in names]

    assert [status for status, _, _ in answers] == [200] * len(names)
    assert [headers["x-request-id"] for _, headers, _ in answers] == names


def test_the_connection_is_closed_where_the_caller_asks_for_it(server: Server, token: str) -> None:
    with Wire(server) as wire:
        assert wire.ask(request_bytes(token, GOOD_ROW))[0] == 200
        status, headers, _ = wire.ask(request_bytes(token, GOOD_ROW, "Connection: close"))

        assert (status, headers["connection"]) == (200, "close")
        assert wire.file.read() == b""


def test_good_bad_and_unlikely_calls_of_one_moment_get_each_their_own_answer(
    server: Server, token: str
) -> None:
    rows: list[dict[str, object]] = [
        GOOD_ROW | {"age": 20 + i / 2, "visits": i % 9} for i in range(60)
    ]
    rows[7] = rows[7] | {"age": "old"}
    rows[23] = rows[23] | {"pressure": 3e38}  # the graph is not trusted so far out
    rows[41] = {}
    alone = {}
    headers = {"authorization": f"Bearer {token}"}
    with httpx2.Client(base_url=server.base, headers=headers, timeout=20) as client:
        for i, row in enumerate(rows):
            alone[i] = client.post("/predict", json=row)
    gate = threading.Barrier(len(rows))

    def call(i: int) -> list[tuple[int, bytes]]:
        with Wire(server) as wire:
            gate.wait(20)
            return [wire.ask(request_bytes(token, rows[i]))[::2] for _ in range(5)]

    with ThreadPoolExecutor(len(rows)) as pool:
        answers = list(pool.map(call, range(len(rows))))

    for i, given in enumerate(answers):
        for status, body in given:
            assert status == alone[i].status_code == (400 if i in {7, 41} else 200)
            ours, theirs = json.loads(body), alone[i].json()
            for key in ("prediction", "probabilities", "errors"):
                assert ours.get(key) == theirs.get(key), f"row {i}"


def test_a_caller_who_leaves_disturbs_nobody_and_is_on_record(server: Server, token: str) -> None:
    # One that is gone before it is read was told nothing, and need not be there.
    for _ in range(20):
        with Wire(server) as wire:
            wire.ask(request_bytes(token, GOOD_ROW))
            wire.socket.sendall(request_bytes(token, GOOD_ROW, "X-Request-ID: left-early"))
    headers = {"authorization": f"Bearer {token}"}

    with Wire(server) as wire:
        assert wire.ask(request_bytes(token, GOOD_ROW))[0] == 200
    page = httpx2.get(f"{server.base}/predictions?x_request_id=left-early", headers=headers).json()

    assert {entry["status"] for entry in page["predictions"]} == {200}


def test_a_token_that_is_no_good_is_refused_on_a_connection_that_knew_a_good_one(
    server: Server, token: str
) -> None:
    with Wire(server) as wire:
        assert wire.ask(request_bytes(token, GOOD_ROW))[0] == 200
        assert wire.ask(request_bytes(token[:-3] + "abc", GOOD_ROW))[0] == 401
        assert wire.ask(request_bytes(token, GOOD_ROW))[0] == 200


def test_calls_with_an_api_key_are_taken_too_and_their_record_names_it(
    server: Server, token: str
) -> None:
    headers = {"authorization": f"Bearer {token}"}
    keys = {
        scope: httpx2.post(
            f"{server.base}/keys", json={"name": scope, "scopes": [scope]}, headers=headers
        ).json()
        for scope in ("predict", "read")
    }
    with Wire(server) as wire:
        known = [wire.ask(request_bytes(keys["predict"]["key"], GOOD_ROW)) for _ in range(3)]
        refused = [wire.ask(request_bytes(keys["read"]["key"], GOOD_ROW)) for _ in range(3)]

    assert [status for status, _, _ in known] == [200] * 3
    assert [status for status, _, _ in refused] == [403] * 3
    assert 'scope="predict"' in refused[-1][1]["www-authenticate"]
    for status, scope in ((200, "predict"), (403, "read")):
        key_id = keys[scope]["id"]
        found = httpx2.get(f"{server.base}/predictions?api_key={key_id}", headers=headers).json()
        assert [entry["status"] for entry in found["predictions"]] == [status] * 3


def test_what_limits_a_caller_is_applied_and_told_alike_on_both_ways(
    server: Server, token: str
) -> None:
    asked = {"name": "limited", "rate": "5/hour", "quota": 100}
    headers = {"authorization": f"Bearer {token}"}
    key = httpx2.post(f"{server.base}/keys", json=asked, headers=headers).json()["key"]
    whole = request_bytes(key, GOOD_ROW)
    head, _, body = whole.partition(b"\r\n\r\n")
    with Wire(server) as wire:
        answers = [
            wire.ask(*packets)
            for packets in [(whole,), (whole,), (head + b"\r\n\r\n", body)] * 2 + [(whole,)]
        ]

    assert [status for status, _, _ in answers] == [200] * 5 + [429] * 2
    told = [found["ratelimit"].split(";")[1] for _, found, _ in answers]
    assert told == ["r=4", "r=3", "r=2", "r=1", "r=0", "r=0", "r=0"]
    assert '"key-quota";r=95;t=' in answers[-1][1]["ratelimit"]
    policies = {found["ratelimit-policy"] for _, found, _ in answers}
    assert policies == {'"key-rate";q=5;w=3600, "key-quota";q=100;w=86400'}
    assert len({tuple(found) for status, found, _ in answers if status == 200}) == 1
    assert len({tuple(found) for status, found, _ in answers if status == 429}) == 1
    assert json.loads(answers[-1][2])["violated-policies"] == ["key-rate"]


def test_without_the_record_there_is_no_answer(server: Server, token: str) -> None:
    database = sqlite3.connect(next(Path(server.data_dir).glob("*.db")), isolation_level=None)
    with Wire(server) as wire:
        assert wire.ask(request_bytes(token, GOOD_ROW))[0] == 200
        database.execute("ALTER TABLE responses RENAME TO responses_gone")
        try:
            status, headers, body = wire.ask(request_bytes(token, GOOD_ROW))
        finally:
            database.execute("ALTER TABLE responses_gone RENAME TO responses")
            database.close()

        assert status == 503
        assert headers["content-type"] == "application/problem+json"
        assert headers["retry-after"] == "1"
        assert json.loads(body)["code"] == "unavailable"
        assert wire.ask(request_bytes(token, GOOD_ROW))[0] == 200


def test_a_server_that_stops_answers_what_it_took_and_closes(
    model_dir: Path, tmp_path: Path
) -> None:
    with live_server(model_dir, tmp_path / "data") as server:
        token = server.register("ada")
        started = threading.Semaphore(0)

        def call_until_closed() -> str:
            with Wire(server) as wire, contextlib.suppress(ConnectionError):
                while True:
                    wire.socket.sendall(request_bytes(token, GOOD_ROW))
                    if not wire.file.peek(1):
                        break
                    status, _, body = wire.answer()
                    if status != 200 or not body.endswith(b"}"):
                        return f"{status} {body!r}"
                    started.release()
            return "closed between two calls"

        with ThreadPoolExecutor(8) as pool:
            ends = [pool.submit(call_until_closed) for _ in range(8)]
            for _ in range(200):
                started.acquire()
            server.process.terminate()

            assert {end.result(30) for end in ends} == {"closed between two calls"}
        assert server.process.wait(30) in {0, -signal.SIGTERM}
