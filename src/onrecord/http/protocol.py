"""uvicorn's HTTP protocol with a short way for plain prediction calls.

All else is uvicorn's: connections, keep-alive, pipelining, shutdown, and every request that
`DirectPredictions` does not take. What is written in one turn of the event loop leaves together:
uvicorn writes an answer's head and body one after the other and uvloop sends each at once, two
system calls of which the first wakes the client for half an answer.

Where uvicorn has no bound there is one here: on a request's head, on the time until it is there and
until an answer is read, and on what the trailer of a chunked body may say, which is nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import httptools
from starlette.types import Message
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from onrecord.errors import CallError, HeadTooLarge, MalformedRequest, Unavailable
from onrecord.http.connection import Corked, PipelineFlow
from onrecord.http.context import context_headers, header
from onrecord.http.direct import STATE_KEY, DirectPredictions
from onrecord.http.limits import LIMITS_KEY, Limits, connections_within
from onrecord.http.predict import headers_of, refusal
from onrecord.record.ids import new_request_id

__all__ = ["HttpProtocol"]

_CLOSE = b"connection: close\r\n"
_UPGRADE = (b"upgrade", b"http2-settings", b"connection")


class HttpProtocol(HttpToolsProtocol):
    """The protocol to give to `uvicorn.Config(http=...)`.

    Whether a request is taken is decided once all of it has come in one packet; until then it is
    held. One that is not taken, or goes on in another packet, starts its ASGI cycle then.

    Each connection has one timer, from its beginning to its end, that looks whether the client has
    used up its time: to send a request's head, to read an answer, or to call again.
    """

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._direct: DirectPredictions | None = self.app_state.get(STATE_KEY)
        self._limits: Limits = self.app_state.get(LIMITS_KEY) or Limits(connections_within())
        self._corked: Corked
        self._held = False
        self._body = b""
        self._idle_since = 0.0
        # A request is being received, and since when, where it came in several packets.
        self._receiving = False
        self._in_head = False
        self._receiving_since = 0.0
        # What has come since the last piece of a body.
        self._unread = 0
        self._unwritten_since = 0.0

    def connection_made(self, transport: Any) -> None:
        """Begin a connection, or refuse it where there are too many."""
        self._corked = Corked(transport, self.loop, lambda: self._receiving)
        super().connection_made(self._corked)  # type: ignore[arg-type]
        self.flow = PipelineFlow(self._corked, lambda: bool(self.pipeline))
        if len(self.connections) > self._limits.connections:
            self._refuse(Unavailable("The server has too many connections.", retry_after=1))
            return
        self._idle_since = self.loop.time()
        self._look_again_in(min(self.timeout_keep_alive, self._limits.head_seconds))

    def data_received(self, data: bytes) -> None:
        """Read what has come."""
        if self._corked.lingers:
            self._corked.drop()
            return
        if self._direct is not None and self._direct.crowded and self._refused_whole(data):
            return
        self._unread += len(data)
        try:
            self.parser.feed_data(data)
            if self._unread > self._limits.head_bytes:
                raise self._head_too_large()
        except HeadTooLarge as error:
            self._refuse(error)
        except httptools.HttpParserError as error:
            # What one of the callbacks below has raised comes as the context of the parser's error.
            cause = error.__context__
            self._receiving = True
            self._refuse(cause if isinstance(cause, CallError) else _malformed())
        except httptools.HttpParserUpgrade as upgrade:
            self._go_on_without_upgrade(data[upgrade.args[0] :])
        if self._held:
            self._held = False
            if not self.transport.is_closing():
                self._begin_cycle()
        if self._receiving and not self._receiving_since:
            self._receiving_since = self.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        """End a connection."""
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """End a request; the connection is idle from now on unless another one is there."""
        self._idle_since = self.loop.time()
        if self.pipeline:
            super().on_response_complete()
            return
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            self.flow.resume_reading()

    def pause_writing(self) -> None:
        """Notice that the client does not read its answers."""
        self._unwritten_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """Notice that it does again."""
        self._unwritten_since = 0.0
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """Hang up on a client that has used up its time, else look again when it could have."""
        if self.transport.is_closing():
            return
        now = self.loop.time()
        if self.flow.read_paused:
            self._receiving_since = now
        if self._unwritten_since:
            left = self._unwritten_since + self._limits.write_seconds - now
        elif self._receiving and (self._in_head or self._idle()):
            left = self._receiving_since + self._limits.head_seconds - now
        elif self._idle():
            left = self._idle_since + self.timeout_keep_alive - now
        else:
            left = self.timeout_keep_alive
        if left > 0:
            self._look_again_in(left)
        elif self._unwritten_since:
            self.transport.abort()
        else:
            self.transport.close()

    def _look_again_in(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(
            seconds, self.timeout_keep_alive_handler
        )

    def _unset_keepalive_if_required(self) -> None:
        """Leave the timer to `timeout_keep_alive_handler`."""

    def on_message_begin(self) -> None:
        """Begin a request; what only ASGI needs of it is made in `_begin_cycle`."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._body = b""
        self._receiving = self._in_head = True
        self._receiving_since = 0.0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; one after the body is a trailer and is dropped (RFC 9110, 6.5.1)."""
        if not self._in_head:
            return
        # Not uvicorn's: to call that for each header would cost a call as much as its validation.
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Hold a request that may be taken; uvicorn begins any other.

        Raises HeadTooLarge where it has more headers, or longer ones, than it may.
        """
        if len(self.headers) > self._limits.headers:
            raise self._head_too_large()
        if self._unread > self._limits.head_bytes:
            size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if size > self._limits.head_bytes:
                raise self._head_too_large()
        self._in_head = False
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
        self._receiving = False
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

    def _idle(self) -> bool:
        cycle: Any = self.cycle
        return cycle is None or cycle.response_complete

    def _begin_cycle(self) -> None:
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        super().on_headers_complete()
        if self._is_long():
            _close_unless_read(self.cycle)
        if self._body:
            super().on_body(self._body)

    def _is_long(self) -> bool:
        """Whether the body is longer than one that is received though nobody reads it."""
        length = header(self.headers, b"content-length")
        if length is None:
            return header(self.headers, b"transfer-encoding") is not None
        return int(length) > self._limits.small_body

    def _refused_whole(self, data: bytes) -> bool:
        """Refuse a call of which all has come, before it is parsed, while there are too many."""
        if self._direct is None or self._receiving or not self._idle() or self.flow.write_paused:
            return False
        refused = self._direct.refuse(data)
        if refused is None:
            return False
        self._write(*refused)
        self.on_response_complete()
        return True

    def _refuse(self, error: CallError) -> None:
        """Answer with an error and hang up; where another answer is due, that is the last one."""
        self.logger.warning("request refused: %s", error.detail)
        self._held = False
        if self.transport.is_closing():
            return
        if not self._idle() and not self._is_about_the_cycle():
            self.cycle.keep_alive = False
            self.pipeline.clear()
            self.flow.pause_reading()
            return
        shown_id = new_request_id()
        answer = refusal(error, shown_id)
        headers = [*headers_of(answer), *context_headers(shown_id), (b"connection", b"close")]
        lines = b"".join(b"%b: %b\r\n" % line for line in headers)
        self._write(answer.status, lines, answer.body)
        self.transport.close()

    def _is_about_the_cycle(self) -> bool:
        """Whether what came is part of the request that is being answered, and no answer began."""
        cycle: Any = self.cycle
        return (
            not self.pipeline
            and getattr(cycle, "more_body", False)
            and not getattr(cycle, "response_started", False)
        )

    def _write(self, status: int, head: bytes, body: bytes) -> None:
        transport: Any = self.transport
        parts = [STATUS_LINE[status]]
        for name, value in self.server_state.default_headers:
            parts += (name, b": ", value, b"\r\n")
        parts += (head, b"\r\n", body)
        transport.write_whole(b"".join(parts))

    def _head_too_large(self) -> HeadTooLarge:
        return HeadTooLarge(
            f"A request's head may have {self._limits.headers} headers and "
            f"{self._limits.head_bytes} bytes."
        )


def _malformed() -> MalformedRequest:
    return MalformedRequest("This is no HTTP request that can be read; the connection is closed.")


def _close_unless_read(cycle: Any) -> None:
    """Have the connection closed by an answer that leaves before the request's body has come.

    What is left of the body would have to be received before the connection could be used again.
    """
    send = cycle.send

    async def send_knowing(message: Message) -> None:
        if message["type"] == "http.response.start" and cycle.more_body:
            cycle.keep_alive = False
        await send(message)

    cycle.send = send_knowing


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
        transport = protocol.transport
        if self.disconnected or transport.is_closing():
            return
        protocol._write(status, head if self.keep_alive else head + _CLOSE, body)  # noqa: SLF001
        if not self.keep_alive:
            transport.close()
        protocol.on_response_complete()

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        tasks = self._protocol.tasks
        task = self._protocol.loop.create_task(work)
        task.add_done_callback(tasks.discard)
        tasks.add(task)
