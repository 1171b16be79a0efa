"""A load generator of bare sockets: many connections, on each of them one call after the other."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from torture.ledger import Ledger

__all__ = ["Load"]

_RECONNECT_SECONDS = 0.02
_NUMBERS = itertools.count(1)


def _inputs() -> Iterator[bytes]:
    """Give inputs that differ: mostly one row, now and then many, and now and then a bad one."""
    for number in _NUMBERS:
        age = b"61.5" if number % 16 else b'"old"'
        row = b'{"age": %b, "pressure": 130.%09d, "smoker": true, "visits": 3}' % (age, number)
        yield b'{"rows": [%b, %b]}' % (row, row) if number % 8 == 1 else row


class Load:
    """Calls a server until it is left or the server is gone; what it learns is in the ledger.

    With `reconnect` a lost connection is made again, for a server that is to survive.
    """

    def __init__(
        self,
        base: str,
        token: str,
        ledger: Ledger,
        *,
        connections: int = 16,
        reconnect: bool = False,
    ) -> None:
        address = urlsplit(base)
        self._host, self._port = str(address.hostname), address.port
        self._head = (
            b"POST /predict HTTP/1.1\r\nhost: torture\r\nauthorization: Bearer %b\r\n"
            b"content-type: application/json\r\ncontent-length: "
        ) % token.encode()
        self.ledger = ledger
        self._connections = connections
        self._reconnect = reconnect
        self._inputs = _inputs()
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leaving.set()
        self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether any connection still calls."""
        return self._thread.is_alive()

    def wait_for(self, answers: int, *, seconds: float = 60) -> None:
        """Return once so many more answers have come; raises TimeoutError if they do not."""
        enough = len(self.ledger.answered) + answers
        end = time.monotonic() + seconds
        while len(self.ledger.answered) < enough:
            if time.monotonic() > end or not self.alive:
                raise TimeoutError(f"{answers} answers did not come: {self.ledger.statuses}")
            time.sleep(0.002)

    def wait_until_gone(self, seconds: float = 60) -> None:
        """Return once no connection is left; raises TimeoutError if some stay."""
        self._thread.join(seconds)
        if self.alive:
            raise TimeoutError("connections are still open")

    async def _run(self) -> None:
        await asyncio.gather(*(self._call() for _ in range(self._connections)))

    async def _call(self) -> None:
        while True:
            try:
                reader, writer = await asyncio.open_connection(self._host, self._port)
            except OSError:
                pass
            else:
                await self._call_on(reader, writer)
            if not self._reconnect or self._leaving.is_set():
                return
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _call_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not self._leaving.is_set():
                sent = next(self._inputs)
                try:
                    writer.write(b"%b%d\r\n\r\n%b" % (self._head, len(sent), sent))
                    status, headers, body = await _answer(reader)
                except (OSError, asyncio.IncompleteReadError):
                    self.ledger.no_answer(sent)
                    return
                self.ledger.answer(status, headers[b"x-request-id"].decode(), sent, body)
                if headers.get(b"connection") == b"close":
                    return
                if status >= 500:
                    await asyncio.sleep(_RECONNECT_SECONDS)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, dict[bytes, bytes], bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    status, *lines = head[:-4].split(b"\r\n")
    headers = dict(line.split(b": ", 1) for line in lines)
    body = await reader.readexactly(int(headers[b"content-length"]))
    return int(status.split(b" ", 2)[1]), headers, body
