"""Clients that ask for too much harm no other, and calls that would wait too long are refused."""

import contextlib
import json
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from calls import wait_until
from live import GOOD_ROW, Server, launch, linear_model_dir
from onrecord.http.limits import allow_open_files
from onrecord.settings import Settings
from torture.memory import mebibytes_of
from torture.slow_model import slow_model_dir

FILES = 1024
CLIENT_SECONDS = 20
BODY = json.dumps(GOOD_ROW).encode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    allow_open_files()
    home = tmp_path_factory.mktemp("overload")
    running = launch(
        linear_model_dir(home / "risk"),
        home / "data",
        under=["prlimit", f"--nofile={FILES}"],
        head_seconds="1",
        body_seconds="2",
    )
    yield running
    running.kill()


@pytest.fixture(scope="module")
def token(server: Server) -> str:
    return server.register("ada")


@pytest.fixture
def good_client(server: Server, token: str) -> Iterator[list[int]]:
    """Statuses of a client that keeps calling on a connection of its own; all are to be 200."""
    statuses: list[int] = []
    leaving = threading.Event()

    def call() -> None:
        headers = {"authorization": f"Bearer {token}"}
        with httpx2.Client(base_url=server.base, headers=headers, timeout=10) as client:
            while not leaving.is_set():
                statuses.append(client.post("/predict", json=GOOD_ROW).status_code)
                leaving.wait(0.02)

    thread = threading.Thread(target=call)
    thread.start()
    wait_until(lambda: statuses)
    yield statuses
    leaving.set()
    thread.join()


def connect(server: Server) -> socket.socket:
    address = urlsplit(server.base)
    return socket.create_connection((address.hostname or "", address.port or 0), CLIENT_SECONDS)


def head(token: str, *more: str, path: str = "/predict") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: onrecord", f"Authorization: Bearer {token}", *more]
    return "\r\n".join([*lines, "Content-Type: application/json"]).encode() + b"\r\n"


def whole(token: str, body: bytes = BODY, *more: str) -> bytes:
    return head(token, *more) + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def until_closed(connection: socket.socket) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65536):
            received += piece
    return received


def problem_of(answer: bytes) -> tuple[int, dict[str, object]]:
    top, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in top, answer[:500]
    return int(top.split(b" ", 2)[1]), json.loads(body)


def assert_unharmed(statuses: list[int], server: Server, token: str) -> None:
    assert set(statuses) <= {200}
    headers = {"authorization": f"Bearer {token}"}
    answer = httpx2.post(f"{server.base}/predict", json=GOOD_ROW, headers=headers, timeout=20)
    assert answer.status_code == 200


def test_connections_beyond_what_files_allow_are_told_so_and_the_others_go_on(
    server: Server, token: str, good_client: list[int]
) -> None:
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(connect(server)) for _ in range(FILES)]
        refused = idle[-1].recv(65536)

        assert problem_of(refused)[0] == 503
        assert b"retry-after: 1" in refused
    assert_unharmed(good_client, server, token)


def test_a_head_that_comes_too_slowly_ends_its_connection(
    server: Server, token: str, good_client: list[int]
) -> None:
    with connect(server) as connection, contextlib.suppress(ConnectionError):
        begun = time.monotonic()
        for byte in head(token):
            connection.sendall(bytes([byte]))
            connection.settimeout(0.1)
            with contextlib.suppress(TimeoutError):
                if not connection.recv(1):
                    break

    assert time.monotonic() - begun < 4
    assert_unharmed(good_client, server, token)


def test_a_body_that_comes_too_slowly_is_refused_and_its_connection_closed(
    server: Server, token: str
) -> None:
    with connect(server) as connection:
        connection.sendall(head(token) + b"Content-Length: 100000\r\n\r\n{")
        answer = until_closed(connection)

    status, problem = problem_of(answer)
    assert (status, problem["code"]) == (408, "body_timeout")
    assert b"connection: close" in answer


@pytest.mark.parametrize("framing", [b"Content-Length: 104857600", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("who", ["a user", "nobody"])
def test_a_body_of_100_mb_is_refused_early_and_the_client_hears_why(
    server: Server, token: str, framing: bytes, who: str, good_client: list[int]
) -> None:
    before = mebibytes_of(server)
    piece = b"x" * 1_048_576
    if b"chunked" in framing:
        piece = b"100000\r\n" + piece + b"\r\n"
    with connect(server) as connection:
        connection.sendall(head(token if who == "a user" else "wrong") + framing + b"\r\n\r\n")
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 100:
                connection.sendall(piece)
                sent += 1
        answer = until_closed(connection)

    expected = {"a user": (413, "body_too_large"), "nobody": (401, "unauthenticated")}[who]
    status, problem = problem_of(answer)
    assert (status, problem["code"]) == expected
    assert b"connection: close" in answer
    assert mebibytes_of(server) - before < 30
    assert_unharmed(good_client, server, token)


def test_large_bodies_that_come_slowly_have_so_much_memory_and_no_more(
    server: Server, token: str, good_client: list[int]
) -> None:
    before = mebibytes_of(server)
    most = Settings.model_fields["max_body_bytes"].default
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(connect(server)) for _ in range(48)]
        for connection in slow:
            connection.sendall(head(token) + b"Content-Length: %d\r\n\r\n" % most)
            with contextlib.suppress(ConnectionError):
                connection.sendall(b" " * (most - 1))
        answers = [until_closed(connection) for connection in slow]

        statuses = [problem_of(answer)[0] for answer in answers if answer]
        assert set(statuses) == {408, 503}
        assert mebibytes_of(server) - before < 300
    assert_unharmed(good_client, server, token)


@pytest.mark.parametrize("path", ["/predict", "/users"])
def test_a_compressed_body_is_refused_without_being_unpacked(
    server: Server, token: str, path: str
) -> None:
    headers = {"authorization": f"Bearer {token}", "content-encoding": "gzip"}
    answer = httpx2.post(f"{server.base}{path}", content=b"\x1f\x8b", headers=headers)

    assert answer.status_code == 415
    assert answer.json()["code"] == "unsupported_coding"
    assert answer.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("path", ["/predict", "/users"])
@pytest.mark.parametrize("opening", ["[", '{"age":'])
def test_deep_json_is_a_clients_mistake(
    server: Server, token: str, path: str, opening: str
) -> None:
    size = 4_000_000 if path == "/predict" else 60_000
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    deep = opening * (size // len(opening))
    answer = httpx2.post(f"{server.base}{path}", content=deep, headers=headers, timeout=20)

    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "fields",
    [[f"X-{i}: y" for i in range(5000)], ["X-Long: " + "y" * 1_000_000]],
    ids=["too many", "too long"],
)
def test_a_head_that_is_too_large_is_refused(server: Server, token: str, fields: list[str]) -> None:
    with connect(server) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(whole(token, BODY, *fields))
        answer = until_closed(connection)

    status, problem = problem_of(answer)
    assert (status, problem["code"]) == (431, "head_too_large")


def test_what_is_no_http_is_told_so(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00 hello\r\n\r\n")
        status, problem = problem_of(until_closed(connection))

    assert (status, problem["code"]) == (400, "malformed_request")


def test_a_client_that_reads_no_answers_is_read_no_further(
    server: Server, token: str, good_client: list[int]
) -> None:
    before = mebibytes_of(server)
    calls = whole(token) * 500
    with connect(server) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(2)
        sent = 0
        # The server hangs up after as long as this client waits, whichever comes first.
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            while sent < 40:
                connection.sendall(calls)
                sent += 1

        assert sent < 40
        assert mebibytes_of(server) - before < 30
        assert_unharmed(good_client, server, token)


def test_pipelined_calls_beyond_what_is_kept_are_all_answered(server: Server, token: str) -> None:
    calls = 1500
    with connect(server) as connection, ThreadPoolExecutor(1) as pool:
        sending = pool.submit(connection.sendall, whole(token) * calls)
        received = b""
        while received.count(b"HTTP/1.1 200 OK") < calls:
            piece = connection.recv(1_048_576)
            assert piece
            received += piece
        sending.result(20)


def test_calls_beyond_what_can_be_answered_are_refused_at_once_and_leave_no_trace(
    tmp_path: Path,
) -> None:
    like = linear_model_dir(tmp_path / "risk")
    slow, sha256 = slow_model_dir(tmp_path / "slow", like, 0.02, busy=False)
    with contextlib.ExitStack() as stack:
        root = str(Path(__file__).parents[1])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        server = launch(
            slow, tmp_path / "data", trusted_models=sha256, variables={"PYTHONPATH": path}
        )
        stack.callback(server.kill)
        token = server.register("ada")
        end = time.monotonic() + 2.5

        def call(_: int) -> list[tuple[int, float, bool]]:
            seen = []
            with connect(server) as connection:
                while time.monotonic() < end:
                    begun = time.monotonic()
                    connection.sendall(whole(token))
                    answer = connection.recv(65536)
                    told = b"\r\nretry-after: 1\r\n" in answer and b"problem+json" in answer
                    seen.append((int(answer.split(b" ", 2)[1]), time.monotonic() - begun, told))
            return seen

        with ThreadPoolExecutor(30) as pool:
            seen = [answer for answers in pool.map(call, range(30)) for answer in answers]
        database = sqlite3.connect(server.data_dir / "record.db")
        (on_record,) = database.execute("SELECT count(*) FROM requests").fetchone()
        database.close()

    statuses = [status for status, _, _ in seen]
    assert set(statuses) == {200, 503}
    assert all(told for status, _, told in seen if status == 503)
    assert statuses.count(200) == on_record
    assert statuses.count(200) >= 40
