from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from onrecord.accounts.call_limits import Admission, CallLimits
from onrecord.accounts.caller import Caller, Grant
from onrecord.accounts.rates import Rate, parse_rate
from onrecord.errors import Unavailable
from onrecord.record import users
from onrecord.record.batch import committer
from onrecord.record.call import RecordedCall
from onrecord.record.database import Database
from onrecord.record.ids import first_id_at

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC).timestamp()
TO_MIDNIGHT = 12 * 60 * 60


class Server:
    """The workers of one server, who count at a moment that a test sets."""

    def __init__(self, database: Database, clock: Any, directory: Path, **limits: Any) -> None:
        directory.mkdir()
        self._arguments = database, clock, directory, limits
        self.workers = [self.worker(), self.worker()]

    def worker(self) -> CallLimits:
        database, clock, directory, limits = self._arguments
        return CallLimits(
            database,
            **{"rate": None, "quota": None, **limits},
            directory=directory,
            clock=clock,
            day_clock=clock,
        )

    async def ask(self, caller: Caller, times: int = 1) -> list[Admission]:
        """Ask one worker after the other and return what they said."""
        admissions = []
        for number in range(times):
            worker = self.workers[number % 2]
            limits = worker.of(caller)
            assert limits is not None
            admissions.append(await worker.admit(limits))
        return admissions

    async def accepted(self, caller: Caller, times: int) -> int:
        return sum(admission.error is None for admission in await self.ask(caller, times))


@pytest.fixture
def noon(clock: Any) -> Any:
    clock.now = NOON
    return clock


@pytest.fixture
def ada(database: Database) -> Caller:
    with database.write() as connection:
        user = users.add(connection, username="ada", email=None, password_hash="x", role="user")
    return Caller(user.id, user.username, "user")


def record(database: Database, caller: Caller, moments: list[float], status: int = 200) -> None:
    """Put calls on record, as any server would."""
    calls = [
        RecordedCall(
            id=first_id_at(datetime.fromtimestamp(at, UTC))[:-12] + f"{i:07x}{status:05x}",
            user_id=caller.user_id,
            model="iris",
            model_version_id=None,
            x_request_id=None,
            content_type=None,
            input=b"",
            received_at=datetime.fromtimestamp(at, UTC),
            status=status,
            output=b"",
            error_code=None,
            error_fields=(),
            duration_us=1,
            responded_at=datetime.fromtimestamp(at, UTC),
        )
        for i, at in enumerate(moments)
    ]
    connection = database.raw_connection()
    committer(connection.dbapi_connection, database.dialect)(calls)
    connection.close()


async def settle(server: Server) -> None:
    """Wait until every count that was to be read again has been."""
    readings = [t for w in server.workers for t in list(w._days._readings.values())]
    await asyncio.gather(*readings)


def with_key(caller: Caller, rate: Rate | None = None, quota: int | None = None) -> Caller:
    grant = Grant("key", frozenset({"predict"}), None, test=False, rate=rate, quota=quota)
    return Caller(caller.user_id, caller.username, caller.role, grant)


@pytest.mark.anyio
async def test_a_rate_counts_over_all_workers_and_is_told(
    database: Database, ada: Caller, noon: Any, tmp_path: Path
) -> None:
    server = Server(database, noon, tmp_path / "counts", rate=parse_rate("5/minute"))
    eve = Caller("eve", "eve", "user")
    first = (await server.ask(ada))[0]
    noon.shift(20)

    assert [(p.name, p.amount, p.seconds) for p in first.limits.policies] == [("rate", 5, 60)]
    assert [(left.calls, left.seconds) for left in first.remaining] == [(4, 60)]
    assert await server.accepted(ada, 10) == 4
    (refused,) = await server.ask(ada)
    assert [left.calls for left in refused.remaining] == [0]
    assert refused.remaining[0].seconds in {40, 41, 42}
    assert refused.error is not None
    assert refused.error.retry_after == refused.remaining[0].seconds
    assert refused.error.policies == ("rate",)
    assert "5/minute" in refused.error.detail
    assert await server.accepted(eve, 10) == 5


@pytest.mark.anyio
async def test_where_nothing_limits_a_caller_nothing_is_counted(
    database: Database, ada: Caller, noon: Any, tmp_path: Path
) -> None:
    (worker, _) = Server(database, noon, tmp_path / "counts").workers

    assert worker.of(ada) is None
    assert worker.of(with_key(ada)) is None
    assert worker.of(with_key(ada, quota=3)) is not None


@pytest.mark.anyio
async def test_a_call_that_one_limit_refuses_counts_for_no_other(
    database: Database, ada: Caller, noon: Any, tmp_path: Path
) -> None:
    server = Server(database, noon, tmp_path / "counts", rate=parse_rate("10/minute"), quota=20)
    key = with_key(ada, rate=parse_rate("3/minute"), quota=9)

    assert await server.accepted(key, 8) == 3
    (refused,) = await server.ask(key)
    assert [policy.name for policy in refused.limits.policies] == [
        "rate", "key-rate", "quota", "key-quota",
    ]  # fmt: skip
    assert [left.calls for left in refused.remaining] == [7, 0, 17, 6]
    assert refused.error is not None
    assert refused.error.policies == ("key-rate",)
    assert "API key" in refused.error.detail
    assert await server.accepted(ada, 20) == 7


@pytest.mark.anyio
async def test_a_quota_is_counted_from_the_record_of_the_day_and_over_all_workers(
    database: Database, ada: Caller, noon: Any, tmp_path: Path
) -> None:
    record(database, ada, [NOON - TO_MIDNIGHT - 1, NOON - TO_MIDNIGHT, NOON - 600, NOON - 1])
    record(database, ada, [NOON - 5] * 9, status=429)
    server = Server(database, noon, tmp_path / "counts", quota=10)

    answers = await server.ask(ada, 10)

    assert [a.error is None for a in answers] == [True] * 7 + [False] * 3
    assert [a.remaining[0].calls for a in answers] == [6, 5, 4, 3, 2, 1, 0, 0, 0, 0]
    assert {a.remaining[0].seconds for a in answers} == {TO_MIDNIGHT}
    assert answers[-1].error is not None
    assert answers[-1].error.retry_after == TO_MIDNIGHT
    noon.shift(TO_MIDNIGHT)
    assert await server.accepted(ada, 12) == 10


@pytest.mark.anyio
async def test_a_restart_forgets_no_quota(
    database: Database, ada: Caller, noon: Any, tmp_path: Path
) -> None:
    before = Server(database, noon, tmp_path / "before", quota=5)
    assert await before.accepted(ada, 3) == 3
    record(database, ada, [NOON] * 3)

    after = Server(database, noon, tmp_path / "after", quota=5)

    assert await after.accepted(ada, 5) == 2


@pytest.mark.anyio
async def test_a_server_learns_within_seconds_of_the_calls_that_another_let_through(
    database: Database, ada: Caller, noon: Any, tmp_path: Path
) -> None:
    servers = [Server(database, noon, tmp_path / name, quota=100) for name in ("here", "there")]
    recorded = 0
    for _ in range(120):
        for server in servers:
            accepted = await server.accepted(ada, 1)
            record(database, ada, [noon.now + recorded / 1000] * accepted)
            recorded += accepted
            await settle(server)
        noon.shift(5)

    assert 100 <= recorded <= 102


@pytest.mark.anyio
async def test_a_server_that_has_not_looked_for_long_looks_before_it_lets_a_call_through(
    database: Database, ada: Caller, noon: Any, tmp_path: Path
) -> None:
    server = Server(database, noon, tmp_path / "counts", quota=10)
    assert await server.accepted(ada, 1) == 1
    noon.shift(60)
    record(database, ada, [NOON + second for second in range(10)])

    assert await server.accepted(ada, 3) == 0


@pytest.mark.anyio
async def test_counting_costs_one_query_at_first_and_one_in_five_seconds(
    database: Database, ada: Caller, noon: Any, tmp_path: Path
) -> None:
    server = Server(database, noon, tmp_path / "counts", quota=1000)
    queries: list[str] = []

    def note(_: Any, __: Any, statement: str, *more: Any) -> None:
        queries.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    for shift, so_far in ((4.9, 1), (0.2, 2), (4.9, 2), (0.2, 3)):
        await server.ask(ada, 50)
        noon.shift(shift)
        await server.ask(ada, 50)
        await settle(server)

        assert sum("count" in query for query in queries) == so_far


@pytest.mark.anyio
async def test_where_the_record_cannot_tell_the_call_is_refused_as_unavailable(
    database: Database, ada: Caller, noon: Any, tmp_path: Path
) -> None:
    server = Server(database, noon, tmp_path / "counts", quota=10)
    with database.write() as connection:
        connection.exec_driver_sql("ALTER TABLE responses RENAME TO gone")

    with pytest.raises(Unavailable):
        await server.ask(ada)


@pytest.mark.anyio
async def test_garbage_in_the_files_is_no_error(
    database: Database, ada: Caller, noon: Any, tmp_path: Path
) -> None:
    server = Server(
        database, noon, tmp_path / "counts", rate=parse_rate("9000000/day"), quota=9_000_000
    )
    await server.ask(ada)
    for seed in range(20):
        for file in (tmp_path / "counts").iterdir():
            with file.open("r+b") as opened:
                opened.write(bytes([seed * 13 % 256]) * file.stat().st_size)
        (answer,) = await server.ask(ada)
        await settle(server)
        assert all(1 <= left.seconds <= 86400 for left in answer.remaining)
