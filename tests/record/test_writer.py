from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
import sqlalchemy as sa
from anyio.streams.buffered import BufferedByteReceiveStream

from onrecord.errors import AlreadyOnRecord, Unavailable
from onrecord.record import reader
from onrecord.record.call import RecordedCall
from onrecord.record.database import Database
from onrecord.record.ids import new_id
from onrecord.record.writer import Writer
from onrecord.record.writer_order import WriterOrder
from onrecord.record.writer_process import WriterProcess

MakeCall = Callable[..., RecordedCall]

pytestmark = pytest.mark.anyio


@pytest.fixture
def process(database: Database) -> Iterator[WriterProcess]:
    with WriterProcess(
        WriterOrder(database.engine.url.render_as_string(hide_password=False))
    ) as process:
        yield process


@pytest.fixture
async def writer(process: WriterProcess, anyio_backend: str) -> AsyncIterator[Writer]:
    writer = Writer()
    await writer.start(process.address)
    yield writer
    await writer.close()


def _find(database: Database, call: RecordedCall) -> reader.Entry | None:
    with database.read() as connection:
        return reader.find(connection, call.id, None)


def _count(database: Database) -> int:
    with database.read() as connection:
        return reader.count(connection, reader.Filters())


async def _outcomes(writer: Writer, calls: list[RecordedCall]) -> list[BaseException | None]:
    return await asyncio.gather(*map(writer.write, calls), return_exceptions=True)


def _rename(database: Database, old: str, new: str) -> None:
    with database.write() as connection:
        connection.execute(sa.text(f"ALTER TABLE {old} RENAME TO {new}"))


async def test_a_call_is_on_record_exactly_once_write_returns(
    database: Database, writer: Writer, make_call: MakeCall
) -> None:
    call = make_call(
        x_request_id="abc",
        status=422,
        error_code="invalid_input",
        error_fields=("/age", "/a~1b\x00"),
        input=bytes(range(256)) + b"\x00\xff\xfe\n",
        output=b"\x00\xc3\x28",
    )
    await writer.write(call)
    entry = _find(database, call)
    assert entry is not None
    for name in RecordedCall.__struct_fields__:
        assert getattr(entry, name) == getattr(call, name), name
    assert entry.username == "Ada"
    assert entry.received_at.tzinfo is UTC
    assert entry.model_version is None


@pytest.mark.parametrize("content", [None, b"", b"\x00"])
async def test_no_input_and_an_empty_input_are_told_apart(
    database: Database, writer: Writer, make_call: MakeCall, content: bytes | None
) -> None:
    call = make_call(input=content)
    await writer.write(call)
    entry = _find(database, call)
    assert entry is not None
    assert entry.input == content


@pytest.mark.parametrize("hostile", ["a\x00b", "a\udc80b", "a\U0001f600\ud800"])
async def test_text_that_a_database_refuses_is_mended(
    database: Database, writer: Writer, make_call: MakeCall, hostile: str
) -> None:
    call = make_call(
        model=hostile, content_type=hostile, x_request_id=hostile, error_fields=(hostile,)
    )
    await writer.write(call)
    entry = _find(database, call)
    assert entry is not None
    assert entry.model == entry.content_type == entry.x_request_id
    assert "\N{REPLACEMENT CHARACTER}" in entry.model
    with database.read() as connection:
        filters = reader.Filters(model=hostile, x_request_id=hostile)
        assert reader.count(connection, filters) == 1


async def test_many_calls_at_once_are_all_on_record(
    database: Database, writer: Writer, make_call: MakeCall
) -> None:
    calls = [make_call(input=str(number).encode()) for number in range(500)]
    assert await _outcomes(writer, calls) == [None] * 500
    with database.read() as connection:
        entries = list(reader.stream(connection, reader.Filters()))
    assert {entry.id: entry.input for entry in entries} == {call.id: call.input for call in calls}
    assert writer.pending == 0


async def test_several_writers_share_one_process_and_one_database(
    database: Database, process: WriterProcess, make_call: MakeCall
) -> None:
    with WriterProcess(
        WriterOrder(database.engine.url.render_as_string(hide_password=False))
    ) as other:
        writers = [Writer() for _ in range(4)]
        for writer, address in zip(writers, [process.address, other.address] * 2, strict=True):
            await writer.start(address)
        calls = [make_call() for _ in range(400)]
        await asyncio.gather(
            *(pen.write(call) for pen, call in zip(writers * 100, calls, strict=True))
        )
        for writer in writers:
            await writer.close()
    assert _count(database) == 400


async def test_a_bad_row_of_one_writer_does_not_harm_another_of_the_same_process(
    database: Database, process: WriterProcess, make_call: MakeCall
) -> None:
    writers = [Writer(), Writer()]
    for writer in writers:
        await writer.start(process.address)
    good = [make_call() for _ in range(50)]
    bad = [make_call(user_id=new_id()) for _ in range(50)]

    outcomes = await asyncio.gather(
        *(_outcomes(w, c) for w, c in zip(writers, [good, bad], strict=True))
    )

    assert outcomes[0] == [None] * 50
    assert all(isinstance(outcome, Unavailable) for outcome in outcomes[1])
    assert _count(database) == 50
    for writer in writers:
        await writer.close()


async def test_a_failure_is_unavailable_and_the_writer_recovers(
    database: Database, writer: Writer, make_call: MakeCall
) -> None:
    _rename(database, "responses", "gone")
    calls = [make_call() for _ in range(3)]
    for outcome in await _outcomes(writer, calls):
        assert isinstance(outcome, Unavailable)
        assert outcome.retry_after == 1
    assert not writer.healthy
    assert _count_requests(database) == 0
    _rename(database, "gone", "responses")
    await writer.write(make_call())
    assert writer.healthy
    assert _count(database) == 1


def _count_requests(database: Database) -> int:
    with database.read() as connection:
        return int(connection.execute(sa.text("SELECT count(*) FROM requests")).scalar_one())


async def _until_recorded(writer: Writer, call: RecordedCall) -> None:
    with anyio.fail_after(30):
        while await _outcomes(writer, [call]) != [None]:
            await anyio.lowlevel.checkpoint()


async def test_the_writer_outlives_its_process(
    database: Database, process: WriterProcess, writer: Writer, make_call: MakeCall
) -> None:
    await writer.write(make_call())
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(Unavailable):
        await writer.write(make_call())
    assert not writer.healthy

    await _until_recorded(writer, make_call())

    assert writer.healthy
    assert _count(database) == 2


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_the_writer_outlives_a_lost_connection(
    database: Database, writer: Writer, make_call: MakeCall
) -> None:
    await writer.write(make_call())
    with database.write() as connection:
        connection.execute(
            sa.text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    with pytest.raises(Unavailable):
        await writer.write(make_call())
    await writer.write(make_call())
    assert writer.healthy
    assert _count(database) == 2


async def test_the_process_leaves_with_whoever_started_it(
    database: Database, make_call: MakeCall
) -> None:
    url = database.engine.url.render_as_string(hide_password=False)
    starter = await anyio.open_process(
        [sys.executable, "-c", _STARTER, url], stdout=subprocess.PIPE, stderr=None
    )
    assert starter.stdout is not None
    line = await BufferedByteReceiveStream(starter.stdout).receive_until(b"\n", 1000)
    pid, address = line.decode().split()
    writer = Writer()
    await writer.start(address)
    ended = os.pidfd_open(int(pid))
    starter.kill()
    await starter.wait()
    # While somebody still writes through it, it stays.
    await writer.write(make_call())
    await writer.close()

    with anyio.fail_after(30):
        await anyio.wait_readable(ended)
    assert _count(database) == 1
    assert not Path(address).parent.exists()
    os.close(ended)


_STARTER = """
import sys, time
from onrecord.record.writer_order import WriterOrder
from onrecord.record.writer_process import WriterProcess
with WriterProcess(WriterOrder(sys.argv[1])) as process:
    print(process.pid, process.address, flush=True)
    time.sleep(600)
"""


async def test_one_bad_row_does_not_lose_the_others(
    database: Database, writer: Writer, make_call: MakeCall
) -> None:
    good = [make_call() for _ in range(70)]
    bad = [make_call(user_id=new_id()), good[3], make_call(duration_us=2**70)]
    outcomes = await _outcomes(writer, [*good, *bad])
    assert outcomes[:70] == [None] * 70
    assert all(isinstance(outcome, Unavailable) for outcome in outcomes[70:])
    assert _count(database) == 70
    assert writer.healthy


async def test_of_calls_with_one_key_the_first_is_on_record_and_no_other_call_is_harmed(
    database: Database, writer: Writer, make_call: MakeCall
) -> None:
    before = make_call(idempotency_key="a")
    await writer.write(before)
    plain = [make_call() for _ in range(70)]
    first = make_call(idempotency_key="b")
    repeated = [make_call(idempotency_key=key) for key in "aabb"]
    bad = make_call(idempotency_key="c", user_id=new_id())

    outcomes = await _outcomes(writer, [*plain, first, *repeated, bad])

    assert outcomes[:71] == [None] * 71
    assert all(isinstance(outcome, AlreadyOnRecord) for outcome in outcomes[71:75])
    assert type(outcomes[75]) is Unavailable
    assert _count(database) == 72
    for key, call in (("a", before), ("b", first)):
        with database.read() as connection:
            held = reader.find_by_key(connection, call.user_id, key)
        assert held is not None
        assert held.id == call.id
    assert writer.healthy


async def test_two_processes_that_have_the_same_keys_do_not_wait_for_each_other(
    database: Database, process: WriterProcess, make_call: MakeCall
) -> None:
    keys = [f"key-{number}" for number in range(128)]
    url = database.engine.url.render_as_string(hide_password=False)
    with WriterProcess(WriterOrder(url)) as other:
        writers = [Writer(), Writer()]
        for writer, address in zip(writers, (process.address, other.address), strict=True):
            await writer.start(address)
        for turn in range(10):
            orders = (keys, keys[::-1])
            outcomes = await asyncio.gather(
                *(
                    _outcomes(w, [make_call(idempotency_key=f"{turn}-{key}") for key in order])
                    for w, order in zip(writers, orders, strict=True)
                )
            )
            for outcome in (*outcomes[0], *outcomes[1]):
                assert outcome is None or isinstance(outcome, AlreadyOnRecord)
        for writer in writers:
            await writer.close()
    assert _count(database) == 1280


async def test_a_waiter_that_is_cancelled_breaks_nothing(
    database: Database, writer: Writer, make_call: MakeCall
) -> None:
    tasks = [asyncio.ensure_future(writer.write(make_call())) for _ in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert outcomes[1::2] == [None] * 10
    await writer.write(make_call())
    assert _count(database) >= 11


async def test_a_full_queue_refuses_at_once(
    database: Database, process: WriterProcess, make_call: MakeCall
) -> None:
    writer = Writer(max_pending=2)
    await writer.start(process.address)
    # Whoever holds the write lock, or the table's, keeps the writer's commit waiting.
    with database.write() as connection:
        if database.dialect == "postgresql":
            connection.execute(sa.text("LOCK TABLE requests IN EXCLUSIVE MODE"))
        tasks = [asyncio.ensure_future(writer.write(make_call())) for _ in range(2)]
        await asyncio.sleep(0)
        assert writer.pending == 2
        with pytest.raises(Unavailable, match="Too many"):
            await writer.write(make_call())
    await asyncio.gather(*tasks)
    assert writer.pending == 0
    await writer.close()


async def test_close_drains_what_waits_and_then_refuses(
    database: Database, process: WriterProcess, make_call: MakeCall
) -> None:
    writer = Writer()
    await writer.start(process.address)
    tasks = [asyncio.ensure_future(writer.write(make_call())) for _ in range(100)]
    await asyncio.sleep(0)
    await writer.close()
    assert all(task.done() for task in tasks)
    await asyncio.gather(*tasks)
    assert _count(database) == 100
    with pytest.raises(Unavailable, match="closed"):
        await writer.write(make_call())
    await writer.close()


async def test_a_time_keeps_its_microseconds_and_comes_back_in_utc(
    database: Database, writer: Writer, make_call: MakeCall
) -> None:
    local = datetime.fromisoformat("2026-11-25T23:30:00.000001-05:00")
    call = make_call(received_at=local)
    await writer.write(call)
    entry = _find(database, call)
    assert entry is not None
    assert entry.received_at.isoformat() == "2026-11-26T04:30:00.000001+00:00"
