"""The writer: hands calls to the writer's process and tells each of them once it is on record."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from onrecord.errors import AlreadyOnRecord, DatabaseError, Unavailable
from onrecord.record.call import RecordedCall
from onrecord.record.commits import Outcome
from onrecord.record.frames import FrameReader, frame
from onrecord.record.text import storable

__all__ = ["Writer"]

_START_SECONDS = 60.0
_PROBE_SECONDS = 1.0
_RECONNECT_SECONDS = 0.1

_HALF = 32
"""How many calls are handed over before the turn of the event loop that brought them ends.

So calls that came together part into halves, and while the process commits one half the loop reads
and answers the other; else they would come, wait and leave together ever after.
"""

_decode = msgspec.msgpack.Decoder(Outcome).decode


@dataclass(slots=True, eq=False)
class _Waiting:
    call: RecordedCall
    settled: Callable[[Unavailable | None], None]


class Writer:
    """Puts calls on record through the writer's process; to be used on one event loop.

    There is no artificial delay: what arrives during one commit is the next batch. At most
    `max_pending` calls wait at a time.
    """

    def __init__(self, max_pending: int = 10_000) -> None:
        self._address = ""
        self._max_pending = max_pending
        self._healthy = True
        self._open = False
        self._line: _Line | None = None
        self._waiting: list[_Waiting] = []
        self._committing: list[_Waiting] | None = None
        self._pending = 0
        self._drained = asyncio.Event()
        self._next: asyncio.Handle | None = None
        self._reconnecting: asyncio.Task[None] | None = None

    @property
    def healthy(self) -> bool:
        """Whether the last attempt reached the database; after a failure it is probed again."""
        return self._healthy

    @property
    def pending(self) -> int:
        """How many calls wait for their commit."""
        return self._pending

    async def start(self, address: str) -> None:
        """Connect to the process at `address`, the path of its socket.

        Raises DatabaseError where it is not there within a minute.
        """
        self._address = address
        try:
            async with asyncio.timeout(_START_SECONDS):
                await self._connect()
        except (OSError, TimeoutError) as error:
            raise DatabaseError(f"The writer's process does not answer: {error!r}.") from error
        self._open = True

    async def close(self) -> None:
        """Have all that waits committed, then hang up; later calls are refused."""
        self._open = False
        if self._pending:
            await self._drained.wait()
        if self._next is not None:
            self._next.cancel()
        if self._reconnecting is not None:
            self._reconnecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reconnecting
        if self._line is not None:
            await self._line.hang_up()

    async def write(self, call: RecordedCall) -> None:
        """Return once `call` is durably on record.

        Raises Unavailable where it could not be, or where too many wait already, and
        AlreadyOnRecord where another call holds its idempotency key. A caller that is cancelled
        meanwhile may find its call on record all the same.
        """
        future: asyncio.Future[Unavailable | None] = asyncio.get_running_loop().create_future()

        def settled(error: Unavailable | None) -> None:
            if not future.done():
                future.set_result(error)

        self.submit(call, settled)
        error = await future
        if error is not None:
            raise error

    def submit(self, call: RecordedCall, settled: Callable[[Unavailable | None], None]) -> None:
        """Begin to put `call` on record; to be called on the event loop.

        There `settled` is called once: with None when the call is durably on record, or with why
        it is not. Raises Unavailable, and does not call it, where too many wait already or the
        process is out of reach.
        """
        if not self._open:
            raise Unavailable("The record is closed: the server is stopping.", retry_after=1)
        if self._line is None:
            raise _cannot_be_written()
        if self._pending >= self._max_pending:
            raise Unavailable("Too many calls wait to be recorded.", retry_after=1)
        self._waiting.append(_Waiting(call, settled))
        self._pending += 1
        if self._committing is None:
            if len(self._waiting) == 1:
                # Not at once: whatever else this turn of the loop brings shares the commit.
                self._schedule(0)
            elif len(self._waiting) >= _HALF:
                self._hand_over()

    def _schedule(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        if self._next is not None:
            self._next.cancel()
        if seconds:
            self._next = loop.call_later(seconds, self._hand_over)
        else:
            self._next = loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        """Send all that waits; nothing at all is a probe."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if self._line is None or self._committing is not None:
            return
        self._committing, self._waiting = self._waiting, []
        try:
            batch = frame([waiting.call for waiting in self._committing])
        except (ValueError, OverflowError):
            batch = self._encode_one_by_one()
        self._line.send(batch)

    def _encode_one_by_one(self) -> bytearray:
        """Encode a batch of which a call has what no message can hold, and refuse such a call."""
        encoded, refused = [], []
        for waiting in self._committing or ():
            try:
                encoded.append(
                    (waiting, msgspec.Raw(msgspec.msgpack.encode(_mended(waiting.call))))
                )
            except (ValueError, OverflowError):
                refused.append(waiting)
        self._committing = [waiting for waiting, _ in encoded]
        if refused:
            asyncio.get_running_loop().call_soon(self._settle, refused, _cannot_be_written())
        return frame([raw for _, raw in encoded])

    def _settle(self, batch: list[_Waiting], error: Unavailable | None) -> None:
        self._pending -= len(batch)
        for waiting in batch:
            waiting.settled(error)
        if not self._open and not self._pending:
            self._drained.set()

    def _committed(self, message: bytes) -> None:
        """Tell those who wait what became of the batch that was handed over."""
        outcome = _decode(message)
        batch, self._committing = self._committing or [], None
        self._healthy = outcome.healthy
        if self._waiting:
            self._hand_over()
        elif not self._healthy and self._open:
            self._schedule(_PROBE_SECONDS)
        if outcome.repeated:
            error = AlreadyOnRecord("A call with this key is on record already.", retry_after=1)
            self._settle([batch[place] for place in outcome.repeated], error)
        if outcome.refused:
            reason = next(iter(outcome.refused.values()))
            self._refuse([batch[place] for place in outcome.refused], reason)
        if outcome.refused or outcome.repeated:
            left_out = {*outcome.refused, *outcome.repeated}
            batch = [w for place, w in enumerate(batch) if place not in left_out]
        self._settle(batch, None)

    def _refuse(self, batch: list[_Waiting], reason: str) -> None:
        logging.getLogger(__name__).error("%d calls could not be recorded: %s", len(batch), reason)
        self._settle(batch, _cannot_be_written())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        line = _Line(self._committed, self._lost)
        await loop.create_unix_connection(lambda: line, self._address)
        await line.welcomed
        if line.gone:
            raise ConnectionResetError("it hung up")
        self._line = line

    def _lost(self) -> None:
        """Refuse all that waits, since nobody will tell what became of it, and connect anew."""
        if self._line is None:
            return
        self._line = None
        self._healthy = False
        batch = [*(self._committing or ()), *self._waiting]
        self._committing, self._waiting = None, []
        if batch:
            self._refuse(batch, "the writer's process is out of reach")
        if self._open:
            self._reconnecting = asyncio.get_running_loop().create_task(self._reconnect())

    async def _reconnect(self) -> None:
        while self._line is None:
            await asyncio.sleep(_RECONNECT_SECONDS)
            with contextlib.suppress(OSError):
                await self._connect()
        self._hand_over()


class _Line(asyncio.Protocol):
    """The connection to the process; `welcomed` is done once the process is there."""

    def __init__(self, received: Callable[[bytes], None], lost: Callable[[], None]) -> None:
        self.welcomed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._received = received
        self._tell_lost = lost
        self._frames = FrameReader()
        self._gone = asyncio.Event()
        self._transport: asyncio.WriteTransport

    @property
    def gone(self) -> bool:
        return self._gone.is_set()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        for message in self._frames.feed(data):
            if self.welcomed.done():
                self._received(message)
            else:
                self.welcomed.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone.set()
        if self.welcomed.done():
            self._tell_lost()
        else:
            self.welcomed.set_exception(exc or ConnectionResetError("it hung up"))

    def send(self, batch: bytearray) -> None:
        self._transport.write(batch)

    async def hang_up(self) -> None:
        """Close the connection; the process sees that before this returns."""
        self._transport.close()
        await self._gone.wait()


def _cannot_be_written() -> Unavailable:
    return Unavailable("The record cannot be written now.", retry_after=1)


def _mended(call: RecordedCall) -> RecordedCall:
    """Return a call without the lone surrogates that a client can send as JSON escapes."""
    return msgspec.structs.replace(
        call,
        model=storable(call.model),
        x_request_id=None if call.x_request_id is None else storable(call.x_request_id),
        content_type=None if call.content_type is None else storable(call.content_type),
        error_fields=tuple(map(storable, call.error_fields)),
    )
