"""A TCP proxy between the server and PostgreSQL that delays, refuses, holds back and cuts."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Literal, Self, TypeVar

__all__ = ["Cut", "Proxy"]

Cut = Literal["now", "before", "after"]
"""When to cut: at once; in the middle of the next statement that records calls; or when such a
statement is committed and PostgreSQL's reply, which says so, is not yet forwarded."""

_Result = TypeVar("_Result")

_CHUNK = 1 << 16
# What every input of the load generator has in it, as text and as the hexadecimal of a bytea.
_RECORDS = (b'"pressure"', b"227072657373757265")
# ReadyForQuery outside a transaction, the last message of the reply to a statement:
# https://www.postgresql.org/docs/current/protocol-message-formats.html
_COMMITTED = b"Z\x00\x00\x00\x05I"


class Proxy:
    """Listens on a port of its own while it is entered; its methods may be called in any thread.

    `cuts` counts the connections that were cut, each in the way that `cut` asked for.
    """

    def __init__(self, port: int) -> None:
        self._upstream = port
        self.port = 0
        self.cuts = 0
        self._delay = 0.0
        self._armed: Cut | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._flows = asyncio.Event()
        self._flows.set()
        self._server: asyncio.Server | None = None
        self._accepts = False
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.accept()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.refuse()
        asyncio.run_coroutine_threadsafe(self._finish(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def accept(self) -> None:
        """Accept connections, on the same port as before."""
        self._accepts = True
        serving = asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self._server = asyncio.run_coroutine_threadsafe(serving, self._loop).result()
        self.port = self._server.sockets[0].getsockname()[1]

    def refuse(self) -> None:
        """Cut every connection and accept none."""
        self._accepts = False
        server, self._server = self._server, None
        if server is not None:
            self._do(server.close)
        self._do(self._cut_all)

    def delay(self, seconds: float) -> None:
        """Hold back whatever passes for so long."""
        self._delay = seconds

    def hold(self) -> None:
        """Let nothing pass, as a network that drops every packet does; connections stay open."""
        self._do(self._flows.clear)

    def flow(self) -> None:
        """End what `hold` began; connections that were held are cut."""
        self._do(self._cut_all)
        self._do(self._flows.set)

    def cut(self, when: Cut) -> None:
        """Cut a connection, once."""
        if when == "now":
            self.cuts += self._do(self._cut_all)
        else:
            self._armed = when

    @property
    def armed(self) -> bool:
        """Whether the cut that was asked for last has yet to come."""
        return self._armed is not None

    def _do(self, function: Callable[[], _Result]) -> _Result:
        async def call() -> _Result:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result()

    def _cut_all(self) -> int:
        count = len(self._writers) // 2
        for writer in self._writers:
            writer.transport.abort()
        return count

    async def _finish(self) -> None:
        self._flows.set()
        # Among them those that accept a connection which came just before.
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)
        await asyncio.sleep(0)

    async def _serve(self, client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        try:
            server, asks = await asyncio.open_connection("127.0.0.1", self._upstream)
        except OSError:
            answers.transport.abort()
            return
        if not self._accepts:
            asks.transport.abort()
            answers.transport.abort()
            return
        connection = _Connection(self, asks, answers)
        self._writers |= {asks, answers}
        try:
            await asyncio.gather(
                self._pump(client, asks, connection.ask),
                self._pump(server, answers, connection.reply),
            )
        finally:
            self._writers -= {asks, answers}
            for writer in (asks, answers):
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        forward: Callable[[bytes], None],
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                if self._delay:
                    await asyncio.sleep(self._delay)
                await self._flows.wait()
                forward(data)
        writer.close()

    def take(self, when: Cut) -> bool:
        """Return whether it is time for a cut of that kind, which then is due no more."""
        if self._armed != when:
            return False
        self._armed = None
        self.cuts += 1
        return True


class _Connection:
    """One connection of the server and the proxy's own to PostgreSQL."""

    def __init__(
        self, proxy: Proxy, asks: asyncio.StreamWriter, answers: asyncio.StreamWriter
    ) -> None:
        self._proxy = proxy
        self._asks = asks
        self._answers = answers
        self._records = False

    def ask(self, data: bytes) -> None:
        """Forward what the server asks of PostgreSQL."""
        if any(mark in data for mark in _RECORDS):
            self._records = True
            if self._proxy.take("before"):
                self._asks.write(data[: len(data) // 2])
                self._cut()
                return
        self._asks.write(data)

    def reply(self, data: bytes) -> None:
        """Forward what PostgreSQL replies."""
        if self._records and data.endswith(_COMMITTED):
            self._records = False
            if self._proxy.take("after"):
                self._cut()
                return
        self._answers.write(data)

    def _cut(self) -> None:
        self._answers.transport.abort()
        self._asks.close()
