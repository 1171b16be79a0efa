"""A load generator in a process of its own whose calls come whether or not others were answered.

Clients that wait for an answer before they call again slow down with the server and cannot overload
it. Here calls are due at random moments (a Poisson process) of a given rate, each goes out on a
connection that is free then, and its latency counts from when it was due, so that nothing of a
server's slowness is left out. `python -m torture.arrivals` reads a `Plan` and writes an `Outcome`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import uvloop

__all__ = ["Outcome", "Plan", "arriving", "percentile"]

_TICK_SECONDS = 0.001
_PATIENCE_SECONDS = 60.0
_LEFT_SECONDS = 2 * _PATIENCE_SECONDS
_HEAD = re.compile(rb"HTTP/1\.1 (\d+) .*?\r\ncontent-length: (\d+)\r\n", re.DOTALL | re.IGNORECASE)
_ID = re.compile(rb"\r\nx-request-id: (\S+)\r\n", re.IGNORECASE)
_REFUSALS = {429, 503}


class Plan(msgspec.Struct, kw_only=True):
    """What to send: `rate` calls a second, or each connection's next one at once where it is 0.

    The inputs are numbered from `first`, so that no two runs have one in common. What comes in the
    first `settling` seconds is recorded, but counts in no percentile.
    """

    host: str
    port: int
    token: str
    rate: float
    seconds: float
    connections: int
    first: int
    seed: int = 1
    settling: float = 0.0


class Outcome(msgspec.Struct, kw_only=True):
    """What came of a plan.

    `milliseconds` has the latencies of the calls with 200 in ascending order and `refused_after`
    those of refusals; `answered` the input and the answer of each by its id; `refused` the inputs
    of the others that were told anything. `bare` counts refusals without Retry-After or which are
    no problem document, `lost` the calls without an answer, whose inputs are `unanswered`, and
    `unsent` those for which no connection was free until the end. `late` is the most that the
    generator itself was behind its plan.
    """

    seconds: float = 0.0
    statuses: dict[int, int] = {}
    milliseconds: list[float] = []
    refused_after: list[float] = []
    answered: dict[str, tuple[str, str]] = {}
    refused: list[str] = []
    bare: int = 0
    unanswered: list[str] = []
    unsent: int = 0
    lost: int = 0
    late: float = 0.0

    @property
    def rate(self) -> float:
        """How many calls a second were answered with 200."""
        return self.statuses.get(200, 0) / self.seconds

    def p(self, percent: float) -> float:
        """Return a percentile of the latencies of calls with 200, in milliseconds."""
        return percentile(self.milliseconds, percent)


def percentile(ascending: list[float], percent: float) -> float:
    """Return the value that `percent` of some values do not exceed; NaN where there are none."""
    if not ascending:
        return float("nan")
    return ascending[min(len(ascending) - 1, int(len(ascending) * percent / 100))]


@contextmanager
def arriving(plan: Plan) -> Iterator[Callable[[], Outcome]]:
    """Carry a plan out in a process of its own; what is given returns the outcome at its end."""
    with tempfile.TemporaryFile() as told:
        process = subprocess.Popen(
            [sys.executable, "-m", "torture.arrivals"],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=told,
        )

        def outcome() -> Outcome:
            process.communicate(msgspec.json.encode(plan), timeout=plan.seconds + _LEFT_SECONDS)
            if process.returncode:
                raise RuntimeError(f"the load generator ended with {process.returncode}")
            told.seek(0)
            return msgspec.json.decode(told.read(), type=Outcome)

        try:
            yield outcome
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()


class _Connection(asyncio.Protocol):
    """One connection, with at most one call on it at a time."""

    def __init__(self, arrivals: _Arrivals) -> None:
        self._arrivals = arrivals
        self._received = b""
        self._transport: asyncio.WriteTransport
        self.due = 0.0
        self.sent: bytes | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def call(self, due: float, body: bytes) -> None:
        self.due, self.sent = due, body
        self._transport.write(b"%b%d\r\n\r\n%b" % (self._arrivals.head, len(body), body))

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        found = _HEAD.match(self._received) if end >= 0 else None
        if found is None or len(self._received) < end + 4 + int(found[2]):
            return
        head, body = self._received[: end + 2], self._received[end + 4 :]
        self._received = b""
        self._arrivals.answer(self, int(found[1]), head, body)

    def connection_lost(self, _: Exception | None) -> None:
        self._arrivals.lost(self)

    def close(self) -> None:
        self._transport.close()


class _Arrivals:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.head = (
            b"POST /predict HTTP/1.1\r\nhost: torture\r\nauthorization: Bearer %b\r\n"
            b"content-type: application/json\r\ncontent-length: "
        ) % plan.token.encode()
        self.outcome = Outcome(seconds=plan.seconds)
        self._statuses: Counter[int] = Counter()
        self._number = plan.first
        self._free: list[_Connection] = []
        self._there: set[_Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._waiting: deque[float] = deque()
        self._under_way = 0
        self._told = asyncio.Event()
        self._open = True

    async def run(self) -> None:
        chance = random.Random(self._plan.seed)
        begin = time.perf_counter()
        end = begin + self._plan.seconds
        self._counting_from = begin + self._plan.settling
        if not self._plan.rate:
            for _ in range(self._plan.connections):
                self._begin(time.perf_counter())
            await asyncio.sleep(self._plan.seconds)
        else:
            due = begin
            while (now := time.perf_counter()) < end:
                while due <= now:
                    self.outcome.late = max(self.outcome.late, now - due)
                    self._begin(due)
                    due += chance.expovariate(self._plan.rate)
                await asyncio.sleep(_TICK_SECONDS)
        self._open = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while self._under_way:
                    await self._told.wait()
                    self._told.clear()
        for connection in list(self._there):
            connection.close()
            if connection.sent is not None:
                self.outcome.lost += 1
                self.outcome.unanswered.append(connection.sent.decode())
                connection.sent = None
        self.outcome.unsent = len(self._waiting)
        self.outcome.statuses = dict(self._statuses)
        self.outcome.milliseconds.sort()
        self.outcome.refused_after.sort()

    def _begin(self, due: float) -> None:
        self._under_way += 1
        if self._free:
            self._send(self._free.pop(), due)
            return
        self._waiting.append(due)
        if len(self._there) + len(self._opening) < self._plan.connections:
            task = asyncio.get_running_loop().create_task(self._connect())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(
                lambda: _Connection(self), self._plan.host, self._plan.port
            )
        except OSError:
            self.outcome.lost += 1
            return
        self._there.add(connection)
        self._next(connection)

    def _next(self, connection: _Connection) -> None:
        if self._waiting:
            self._send(connection, self._waiting.popleft())
        else:
            self._free.append(connection)

    def _send(self, connection: _Connection, due: float) -> None:
        self._number += 1
        connection.call(
            due,
            b'{"age": 61.5, "pressure": 130.%09d, "smoker": true, "visits": 3}' % self._number,
        )

    def answer(self, connection: _Connection, status: int, head: bytes, body: bytes) -> None:
        now = time.perf_counter()
        sent = (connection.sent or b"").decode()
        self._under_way -= 1
        self._told.set()
        self._statuses[status] += 1
        counts = connection.due >= self._counting_from
        if status == 200:
            found = _ID.search(head)
            request_id = found[1].decode() if found else ""
            self.outcome.answered[request_id] = (sent, body.decode())
            if counts:
                self.outcome.milliseconds.append((now - connection.due) * 1000)
        else:
            self.outcome.refused.append(sent)
            if counts:
                self.outcome.refused_after.append((now - connection.due) * 1000)
        if status in _REFUSALS and not (
            b"retry-after: " in head.lower() and b"application/problem+json" in head
        ):
            self.outcome.bare += 1
        connection.sent = None
        if not self._plan.rate and self._open:
            self._begin(now)
        self._next(connection)

    def lost(self, connection: _Connection) -> None:
        self._there.discard(connection)
        if connection in self._free:
            self._free.remove(connection)
        if connection.sent is not None:
            self._under_way -= 1
            self._told.set()
            self.outcome.lost += 1
            self.outcome.unanswered.append(connection.sent.decode())


def main() -> None:
    """Carry out the plan on standard input."""
    arrivals = _Arrivals(msgspec.json.decode(sys.stdin.buffer.read(), type=Plan))
    uvloop.run(arrivals.run())
    sys.stdout.buffer.write(msgspec.json.encode(arrivals.outcome))


if __name__ == "__main__":
    main()
