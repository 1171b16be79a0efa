"""uvicorn's HTTP protocol with a short way for plain prediction calls.

All else is uvicorn's: connections, keep-alive, pipelining, shutdown, and every request that
`DirectPredictions` does not take. What is written in one turn of the event loop leaves together:
uvicorn writes an answer's head and body one after the other and uvloop sends each at once, two
system calls of which the first wakes the client for half an answer.

Where uvicorn has no bound there is one here: on the size of a request's head, on the time until
the first one is there, and on what the trailer of a chunked body may say, which is nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from onrecord.errors import CallError, HeadTooLarge, MalformedRequest
from onrecord.http.context import context_headers
from onrecord.http.direct import STATE_KEY, DirectPredictions
from onrecord.http.problems import PROBLEM_TYPE, STATUS, problem_body
from onrecord.record.ids import new_request_id

__all__ = ["HttpProtocol"]

_MAX_HEAD_BYTES = 64 * 1024
_HEAD_SECONDS = 30.0
"""How long a new connection may take until its first request's head is there."""

_UPGRADE = (b"upgrade", b"http2-settings", b"connection")


class HttpProtocol(HttpToolsProtocol):
    """The protocol to give to `uvicorn.Config(http=...)`.

    Whether a request is taken is decided once all of it has come in one packet; until then it is
    held. One that is not taken, or goes on in another packet, starts its ASGI cycle then.
    """

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._direct: DirectPredictions | None = self.app_state.get(STATE_KEY)
        self._held = False
        self._body = b""
        self._idle_since = 0.0
        self._head_open = True
        self._unread = 0

    def connection_made(self, transport: Any) -> None:
        """Begin a connection."""
        super().connection_made(_Corked(transport, self.loop))  # type: ignore[arg-type]
        self._idle_since = self.loop.time()
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def data_received(self, data: bytes) -> None:
        """Read what has come."""
        self._unread += len(data)
        try:
            self.parser.feed_data(data)
            if self._unread > _MAX_HEAD_BYTES:
                raise _too_large()
        except HeadTooLarge as error:
            self._refuse(error)
        except httptools.HttpParserError as error:
            # What one of the callbacks below has raised comes as the context of the parser's error.
            cause = error.__context__
            self._refuse(cause if isinstance(cause, CallError) else _malformed())
        except httptools.HttpParserUpgrade as upgrade:
            self._go_on_without_upgrade(data[upgrade.args[0] :])
        if self._held:
            self._held = False
            if not self.transport.is_closing():
                self._begin_cycle()

    def connection_lost(self, exc: Exception | None) -> None:
        """End a connection."""
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """End a request; the connection is idle from now on unless another one is there.

        A timer is made and cancelled for longer than a call is validated, so one that runs is left
        to run, and looks at its end whether the connection was idle all the time.
        """
        self._idle_since = self.loop.time()
        if self.pipeline or self.timeout_keep_alive_task is None:
            super().on_response_complete()
            return
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            self.flow.resume_reading()

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection where it was idle for all of its time, else wait on."""
        idle = self.loop.time() - self._idle_since if self._idle() else 0.0
        cycle: Any = self.cycle
        allowed = _HEAD_SECONDS if cycle is None else self.timeout_keep_alive
        if idle >= allowed:
            super().timeout_keep_alive_handler()
        elif not self.transport.is_closing():
            self.timeout_keep_alive_task = self.loop.call_later(
                min(allowed - idle, self.timeout_keep_alive), self.timeout_keep_alive_handler
            )

    def _unset_keepalive_if_required(self) -> None:
        """Leave the timer to `timeout_keep_alive_handler`."""

    def on_message_begin(self) -> None:
        """Begin a request; what only ASGI needs of it is made in `_begin_cycle`."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._body = b""
        self._head_open = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; one after the body is a trailer and is dropped (RFC 9110, 6.5.1)."""
        if self._head_open:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Hold a request that may be taken; uvicorn begins any other."""
        if self._unread > _MAX_HEAD_BYTES:
            size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if size > _MAX_HEAD_BYTES:
                raise _too_large()
        self._head_open = False
        self._unread = 0
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise _malformed()
            return
        if self._may_be_taken():
            self._held = True
        else:
            self._begin_cycle()

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body."""
        self._unread = 0
        if self._held:
            self._body += body
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Have the request that is held taken, or let uvicorn begin and end it."""
        self._unread = 0
        if self.parser.should_upgrade():
            return
        if self._held and self._direct is not None:
            self._held = False
            exchange = _Exchange(self)
            if self._direct.take(exchange):
                self.cycle = exchange  # type: ignore[assignment]
                return
            self._begin_cycle()
        super().on_message_complete()

    def _may_be_taken(self) -> bool:
        return (
            self._direct is not None
            and self._direct.serves(self.url)
            and self._idle()
            and self.parser.get_method() == b"POST"
            and not self.expect_100_continue
            and not self.flow.write_paused
            and self.parser.should_keep_alive()
            and self.parser.get_http_version() == "1.1"
            and self.limit_concurrency is None
        )

    def _go_on_without_upgrade(self, rest: bytes) -> None:
        """Read a request that asked for another protocol as if it had not (RFC 9110, 7.8).

        The parser takes what follows its head for that protocol's. It would read the body as the
        next request, so a parser of its own gets the same head without the wish.
        """
        version = self.parser.get_http_version().encode()
        head = [b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, version)]
        head += [b"%b: %b\r\n" % line for line in self.headers if line[0] not in _UPGRADE]
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"".join([*head, b"\r\n", rest]))

    def _refuse(self, error: CallError) -> None:
        """Answer what is no request, or too large a one, and close the connection."""
        self.logger.warning("request refused: %s", error.detail)
        self._held = False
        if self.transport.is_closing():
            return
        shown_id = new_request_id()
        body = problem_body(error, shown_id)
        headers = [
            *self.server_state.default_headers,
            (b"content-type", PROBLEM_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            *context_headers(shown_id),
            (b"connection", b"close"),
        ]
        lines = b"".join([b"%b: %b\r\n" % header for header in headers])
        self.transport.write(STATUS_LINE[STATUS[type(error)]] + lines + b"\r\n" + body)
        self.transport.close()

    def _idle(self) -> bool:
        cycle: Any = self.cycle
        return cycle is None or cycle.response_complete

    def _begin_cycle(self) -> None:
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        super().on_headers_complete()
        if self._body:
            super().on_body(self._body)


def _malformed() -> MalformedRequest:
    return MalformedRequest("This is no HTTP request that can be read; the connection is closed.")


def _too_large() -> HeadTooLarge:
    return HeadTooLarge(
        f"A request's line and headers may have at most {_MAX_HEAD_BYTES} bytes together."
    )


class _Exchange:
    """A request that was taken; to uvicorn it is the connection's cycle.

    Of a cycle uvicorn asks whether its response is complete, tells it that the client has gone or
    that the connection shall not be kept, and sets the event that a waiting application waits for.
    """

    __slots__ = (
        "_protocol", "body", "disconnected", "headers", "keep_alive", "path", "response_complete",
    )  # fmt: skip

    def __init__(self, protocol: HttpProtocol) -> None:
        self._protocol = protocol
        self.path = protocol.url
        self.headers = protocol.headers
        self.body = protocol._body  # noqa: SLF001 - the two are one
        self.keep_alive = True
        self.disconnected = False
        self.response_complete = False

    @property
    def message_event(self) -> asyncio.Event:
        return asyncio.Event()

    def answer(self, status: int, head: bytes, body: bytes) -> None:
        protocol = self._protocol
        self.response_complete = True
        transport: Any = protocol.transport
        if self.disconnected or transport.is_closing():
            return
        parts = [STATUS_LINE[status]]
        for name, value in protocol.server_state.default_headers:
            parts += (name, b": ", value, b"\r\n")
        parts.append(head)
        if not self.keep_alive:
            parts.append(b"connection: close\r\n")
        parts += (b"\r\n", body)
        transport.write_whole(b"".join(parts))
        if not self.keep_alive:
            transport.close()
        protocol.on_response_complete()

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        tasks = self._protocol.tasks
        task = self._protocol.loop.create_task(work)
        task.add_done_callback(tasks.discard)
        tasks.add(task)


class _Corked:
    """A transport that gathers what is written in one turn of the event loop into one write."""

    __slots__ = ("_chunks", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._chunks: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._chunks:
            self._loop.call_soon(self._flush)
        self._chunks.append(data)

    def write_whole(self, data: bytes) -> None:
        self._flush()
        self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._chunks:
            chunks, self._chunks = self._chunks, []
            self._transport.write(b"".join(chunks))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
