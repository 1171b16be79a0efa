"""Bounds the body of every request: its size, and the time it may take to arrive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from onrecord.errors import (
    BodyTimeout,
    BodyTooLarge,
    MalformedRequest,
    Unavailable,
    UnsupportedCoding,
)
from onrecord.http.context import header, request_id
from onrecord.http.negotiate import check_coding
from onrecord.http.problems import problem_response

__all__ = ["BodyLimit", "BodyRoom", "ClientGone", "LargeBodies", "read_body"]

_FREE_BYTES = 64 * 1024


class ClientGone(Exception):
    """The client went away before its body was complete."""


class BodyRoom:
    """The memory that a worker has for the large bodies of all its requests, in bytes.

    The first 64 KiB of each body are free, so that large bodies keep out no small one.
    """

    def __init__(self, most_bytes: int) -> None:
        self._left = most_bytes

    def grow(self, before: int, size: int) -> None:
        """Take room for a body that grows to a size; raises Unavailable where there is none."""
        more = _charged(size) - _charged(before)
        if more > self._left:
            raise Unavailable("Too many large bodies are under way.", retry_after=1)
        self._left -= more

    def give_back(self, size: int) -> None:
        """Give back the room of a body of that size."""
        self._left += _charged(size)


def _charged(size: int) -> int:
    return max(0, size - _FREE_BYTES)


async def read_body(
    headers: list[tuple[bytes, bytes]],
    receive: Receive,
    room: BodyRoom,
    *,
    max_bytes: int,
    seconds: float,
) -> bytes:
    """Return a request's whole body, for which it has taken room that is to be given back.

    Raises BodyTooLarge (before reading, where the header tells), BodyTimeout, Unavailable or
    ClientGone.
    """
    length = header(headers, b"content-length")
    if length is not None and length.isdigit() and int(length) > max_bytes:
        raise _too_large(max_bytes)
    first = _receive_at_once(receive)
    if first is not None and not first.get("more_body") and first["type"] == "http.request":
        body: bytes = first.get("body", b"")
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
        room.grow(0, len(body))
        return body
    # Not a list of what came: a body that comes a byte at a time would take forty times its size.
    gathered = bytearray()
    taken = 0
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = first or await receive()
                first = None
                if message["type"] == "http.disconnect":
                    raise ClientGone
                gathered += message.get("body", b"")
                if len(gathered) > max_bytes:
                    raise _too_large(max_bytes)
                room.grow(taken, len(gathered))
                taken = len(gathered)
                if not message.get("more_body"):
                    taken = 0
                    return bytes(gathered)
    except TimeoutError:
        raise BodyTimeout(f"The body did not arrive within {seconds:g} seconds.") from None
    finally:
        room.give_back(taken)


def _receive_at_once(receive: Receive) -> Message | None:
    """Return the next message where it is there already, None where it must be waited for.

    Most bodies come with their headers, and the timer that waiting needs would cost them more than
    their validation. One that is not there yet is asked for again: like any awaitable that is
    cancelled while it waits, `receive` has taken nothing.
    """
    receiving = receive().__await__()
    try:
        next(receiving)
    except StopIteration as done:
        message: Message = done.value
        return message
    receiving.close()
    return None


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"A body here may have at most {max_bytes} bytes.")


async def _read_plain(
    scope: Scope, receive: Receive, room: BodyRoom, *, max_bytes: int, seconds: float
) -> bytes:
    """Return the body as `read_body` does; raises UnsupportedCoding where it is compressed."""
    headers = scope["headers"]
    check_coding(headers)
    return await read_body(headers, receive, room, max_bytes=max_bytes, seconds=seconds)


class LargeBodies:
    """Reads the large bodies of routes, which do so themselves once they know who is asking.

    At most `at_once` of them are worked on at a time; the others wait for their turn.
    """

    def __init__(self, room: BodyRoom, *, max_bytes: int, seconds: float, at_once: int = 2) -> None:
        self._room = room
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._turns = asyncio.Semaphore(at_once)

    @asynccontextmanager
    async def read(self, scope: Scope, receive: Receive) -> AsyncIterator[bytes]:
        """Give the whole body of a request, while it is its turn.

        Raises UnsupportedCoding, BodyTooLarge, BodyTimeout, Unavailable, and MalformedRequest where
        the client went away.
        """
        try:
            body = await _read_plain(
                scope, receive, self._room, max_bytes=self._max_bytes, seconds=self._seconds
            )
        except ClientGone:
            raise MalformedRequest("The body did not come to its end.") from None
        try:
            async with self._turns:
                yield body
        finally:
            self._room.give_back(len(body))


class BodyLimit:
    """Plain ASGI middleware: reads the body first, within its bounds, and then hands it on.

    Routes whose path `is_large` read theirs through `LargeBodies`.
    """

    def __init__(
        self,
        app: ASGIApp,
        room: BodyRoom,
        *,
        max_bytes: int,
        seconds: float,
        is_large: Callable[[str], bool],
    ) -> None:
        self._app = app
        self._room = room
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._is_large = is_large

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        bodiless = scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS")
        if bodiless or self._is_large(scope["path"]):
            await self._app(scope, receive, send)
            return
        try:
            body = await _read_plain(
                scope, receive, self._room, max_bytes=self._max_bytes, seconds=self._seconds
            )
        except (BodyTimeout, BodyTooLarge, Unavailable, UnsupportedCoding) as error:
            await problem_response(error, request_id(scope))(scope, receive, send)
            return
        except ClientGone:
            return
        first: Message | None = {"type": "http.request", "body": body, "more_body": False}

        async def replay() -> Message:
            nonlocal first
            message, first = first, None
            return message if message is not None else await receive()

        try:
            await self._app(scope, replay, send)
        finally:
            self._room.give_back(len(body))
