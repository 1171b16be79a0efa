"""A bare connection to a real server, for what no HTTP client would send."""

import json
import socket
from typing import Self
from urllib.parse import urlsplit

import httpx2

from live import Server


def request_bytes(token: str, row: object, *more: str) -> bytes:
    body = json.dumps(row).encode()
    lines = [
        "POST /predict HTTP/1.1",
        "Host: onrecord",
        f"Authorization: Bearer {token}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *more,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Wire:
    """A bare connection, on which a test says which bytes leave together."""

    def __init__(self, server: Server) -> None:
        parts = urlsplit(server.base)
        assert parts.hostname is not None
        assert parts.port is not None
        self.socket = socket.create_connection((parts.hostname, parts.port), timeout=20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.socket.close()

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        status = int(self.file.readline().split()[1])
        headers = {}
        while line := self.file.readline().strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        return status, headers, self.file.read(int(headers["content-length"]))

    def ask(self, *packets: bytes) -> tuple[int, dict[str, str], bytes]:
        for packet in packets[:-1]:
            self.socket.sendall(packet)
            # The server has read it once it can answer another connection's later request.
            httpx2.get(self.base_of_peer() + "/healthz")
        self.socket.sendall(packets[-1])
        return self.answer()

    def until_closed(self) -> bytes:
        """All that comes until the server closes the connection."""
        return self.file.read()

    def base_of_peer(self) -> str:
        host, port = self.socket.getpeername()[:2]
        return f"http://{host}:{port}"
