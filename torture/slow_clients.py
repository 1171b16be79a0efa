"""Clients that ask for too much, or take their time, beside one that calls as it should."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import multiprocessing
import time
from collections.abc import Awaitable, Callable, Iterator
from multiprocessing.synchronize import Event

import uvloop

from onrecord.http.limits import allow_open_files
from torture.arrivals import Outcome, Plan, arriving
from torture.memory import peak
from torture.overload import keep, wrong
from torture.report import Finding, place
from torture.stage import Stage
from torture.subject import Subject
from torture.verdict import examine

__all__ = ["HARMS", "slow_clients"]

_GOOD_RATE = 100
_IDLE = 10_000
_SLOW = 500
_TIMES_UNLOADED = 3
_LEAST_P99_MS = 20
"""Below this the p99 of a small machine is its scheduler's."""

_MOST_GROWTH_MIB = 200
_MIB = 1_048_576
_DEEP = 100_000

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter
Harm = Callable[[Plan, Reader, Writer], Awaitable[None]]


async def _idle(plan: Plan, reader: Reader, _: Writer) -> None:
    await reader.read()
    # One that came again at once would not be idle.
    await asyncio.sleep(10 * plan.seconds)


async def _slow_head(plan: Plan, _: Reader, writer: Writer) -> None:
    for byte in _head(plan, b"x-padding: " + b"y" * 200):
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.1)


async def _slow_body(plan: Plan, _: Reader, writer: Writer) -> None:
    writer.write(_head(plan, b"content-length: 100000") + b"\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.1)


async def _large_body(plan: Plan, reader: Reader, writer: Writer) -> None:
    writer.write(_head(plan, b"content-length: 104857600") + b"\r\n")
    for _ in range(100):
        writer.write(b"x" * _MIB)
        await writer.drain()
    await reader.read()


async def _bomb(plan: Plan, reader: Reader, writer: Writer) -> None:
    body = _BOMB
    head = _head(plan, b"content-encoding: gzip\r\ncontent-length: %d" % len(body))
    writer.write(head + b"\r\n" + body)
    await reader.readuntil(b"}")


async def _deep(plan: Plan, reader: Reader, writer: Writer) -> None:
    writer.write(_head(plan, b"content-length: %d" % _DEEP) + b"\r\n" + b"[" * _DEEP)
    await reader.readuntil(b"}")


async def _unread(plan: Plan, _: Reader, writer: Writer) -> None:
    row = b'{"age": 61.5, "pressure": 130, "smoker": true, "visits": 3}'
    call = _head(plan, b"content-length: %d" % len(row)) + b"\r\n" + row
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    while True:
        writer.write(call * 100)
        await writer.drain()


async def _large_head(plan: Plan, reader: Reader, writer: Writer) -> None:
    writer.write(_head(plan, b"x-long: " + b"y" * _MIB))
    await reader.read()


HARMS: dict[str, tuple[Harm, int]] = {
    "idle connections": (_idle, _IDLE),
    "heads a byte at a time": (_slow_head, _SLOW),
    "bodies a byte at a time": (_slow_body, _SLOW),
    "100 MB bodies": (_large_body, 4),
    "gzip bombs": (_bomb, 8),
    "deep JSON": (_deep, 4),
    "pipelined calls, answers unread": (_unread, 20),
    "heads of 1 MB": (_large_head, 8),
}
"""What bad clients do, and on how many connections at a time."""

_BOMB = gzip.compress(bytes(50 * _MIB))


def _head(plan: Plan, fields: bytes) -> bytes:
    return (
        b"POST /predict HTTP/1.1\r\nhost: torture\r\nauthorization: Bearer %b\r\n"
        b"content-type: application/json\r\n%b\r\n"
    ) % (plan.token.encode(), fields)


def slow_clients(stage: Stage, rounds: int) -> Iterator[Finding]:
    """Do each harm for so many seconds while a good client calls, and compare its latencies."""
    allow_open_files()
    with stage.subject() as subject:
        subject.start()
        _call(subject, 2)
        for name in HARMS:
            yield _harm(subject, name, rounds)


def _harm(subject: Subject, name: str, seconds: int) -> Finding:
    harm, connections = HARMS[name]
    calm = _call(subject, seconds)
    plan = subject.plan(rate=0, seconds=seconds, connections=connections)
    spawn = multiprocessing.get_context("spawn")
    begun = spawn.Event()
    process = spawn.Process(target=_do, args=(harm, plan, begun))
    with peak(subject) as memory:
        process.start()
        begun.wait(60)
        under = _call(subject, seconds)
        process.kill()
        process.join()
    ratio = under.p(99) / max(calm.p(99), _LEAST_P99_MS)
    refused = under.statuses.get(503, 0) + under.statuses.get(429, 0)
    more = wrong(under) | {
        f"p99 is more than {_TIMES_UNLOADED} x the unloaded one": int(ratio > _TIMES_UNLOADED),
        f"memory grew by more than {_MOST_GROWTH_MIB} MiB": int(memory.grown > _MOST_GROWTH_MIB),
        "calls of the good client refused": refused,
    }
    remark = (
        f"{connections:,} connections: p50 and p99 of a good client {under.p(50):.1f} and "
        f"{under.p(99):.1f} ms, alone {calm.p(50):.1f} and {calm.p(99):.1f}; "
        f"memory {memory.before:.0f} + {memory.grown:.0f} MiB"
    )
    verdict = examine(subject.database_url, subject.ledger, alone=False)
    where, harms = place("SQLite", 1), f"s of {name}"
    return Finding("slow-clients", where, seconds, harms, verdict, more, remark=remark)


def _call(subject: Subject, seconds: float) -> Outcome:
    with arriving(subject.plan(rate=_GOOD_RATE, seconds=seconds, connections=16)) as outcome:
        came = outcome()
    keep(subject.ledger, came)
    return came


def _do(harm: Harm, plan: Plan, begun: Event) -> None:
    allow_open_files()
    uvloop.run(_do_all(harm, plan, begun))


async def _do_all(harm: Harm, plan: Plan, begun: Event) -> None:
    end = time.monotonic() + 10 * plan.seconds
    opening = asyncio.Semaphore(100)
    there = 0

    async def do() -> None:
        nonlocal there
        while time.monotonic() < end:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                async with opening:
                    reader, writer = await asyncio.open_connection(plan.host, plan.port)
                there += 1
                if there == plan.connections:
                    begun.set()
                try:
                    await harm(plan, reader, writer)
                finally:
                    writer.close()

    await asyncio.gather(*(do() for _ in range(plan.connections)))
