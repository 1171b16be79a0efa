"""A connection's transport and flow: writes gathered, reads held back, a close that is heard."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl

__all__ = ["Corked", "PipelineFlow"]

_LINGER_SECONDS = 2.0
_PAUSE_SECONDS = 0.01
"""Between two looks at what is dropped: one that floods its connection gets little of the loop."""


class Corked:
    """A transport that gathers what is written in one turn of the event loop into one write.

    While `unread` says that more of a request is to come, closing ends the sending side only, and
    what still comes is dropped for a while: a connection that is closed with bytes unread is reset,
    and the client would lose the answer that says why.
    """

    __slots__ = ("_chunks", "_loop", "_transport", "_unread", "lingers")

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        unread: Callable[[], bool],
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._unread = unread
        self._chunks: list[bytes] = []
        self.lingers = False

    def write(self, data: bytes) -> None:
        """Have bytes leave at the end of this turn of the event loop."""
        if self.lingers:
            return
        if not self._chunks:
            self._loop.call_soon(self._flush)
        self._chunks.append(data)

    def write_whole(self, data: bytes) -> None:
        """Send bytes at once, after those that wait."""
        self._flush()
        self._transport.write(data)

    def is_closing(self) -> bool:
        """Whether nothing more is to be read or written."""
        return self.lingers or self._transport.is_closing()

    def close(self) -> None:
        """Send what waits, then hang up."""
        if self.lingers:
            return
        self._flush()
        if self._transport.is_closing() or not self._unread():
            self._transport.close()
            return
        self.lingers = True
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._transport.resume_reading()
        self._loop.call_later(_LINGER_SECONDS, self._transport.abort)

    def drop(self) -> None:
        """Have received what is not wanted any more, and read on a little later only."""
        if not self._transport.is_closing():
            self._transport.pause_reading()
            self._loop.call_later(_PAUSE_SECONDS, self._read_on)

    def _read_on(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def _flush(self) -> None:
        if self._chunks:
            chunks, self._chunks = self._chunks, []
            self._transport.write(b"".join(chunks))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class PipelineFlow(FlowControl):
    """Flow control that reads no more while requests wait behind the one that is being answered.

    uvicorn reads on after each answer, so that a client could have ever more requests kept.
    """

    def __init__(self, transport: Any, waiting: Callable[[], bool]) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        """Read on, unless requests wait."""
        if not self._waiting():
            super().resume_reading()
