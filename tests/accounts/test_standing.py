from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from sqlalchemy import event

from onrecord.accounts.caller import Caller
from onrecord.accounts.keys import KeyRing
from onrecord.accounts.standing import Gate
from onrecord.accounts.tokens import Tokens
from onrecord.errors import Unauthenticated, Unavailable
from onrecord.record import users
from onrecord.record.database import Database
from onrecord.record.ids import new_id

FOREVER = 10**9


@pytest.fixture
def user(database: Database) -> users.User:
    with database.write() as connection:
        return users.add(connection, username="ada", email=None, password_hash="x", role="user")


@pytest.fixture
def header(tokens: Tokens, user: users.User) -> str:
    return f"Bearer {tokens.issue(user.id, user.token_version)}"


@pytest.fixture
def queries(database: Database) -> Iterator[list[str]]:
    """The queries on users so far."""
    seen: list[str] = []

    def see(*arguments: Any) -> None:
        if "FROM users" in arguments[2]:
            seen.append(arguments[2])

    event.listen(database.engine, "before_cursor_execute", see)
    yield seen
    event.remove(database.engine, "before_cursor_execute", see)


@pytest.mark.anyio
@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "BEARER   {} ", "{}", " {} "])
async def test_the_header_is_bearer_and_a_token_or_the_token_alone(
    tokens: Tokens, database: Database, user: users.User, form: str
) -> None:
    gate = Gate(tokens, database)
    header = form.format(tokens.issue(user.id, 1))

    assert await gate.authenticate(header) == Caller(user.id, "ada", "user")


@pytest.mark.anyio
@pytest.mark.parametrize("header", [None, "", "  ", "Bearer", "bearer ", "Basic YTpi", "A b c"])
async def test_without_a_bearer_token_none_was_sent(
    tokens: Tokens, database: Database, header: str | None
) -> None:
    with pytest.raises(Unauthenticated) as refusal:
        await Gate(tokens, database).authenticate(header)
    assert not refusal.value.token_was_sent


@pytest.mark.anyio
@pytest.mark.parametrize("header", ["Bearer a.b.c", "garbage", "Bearer a b", "Bearer \xff"])
async def test_a_token_that_is_not_valid_was_sent(
    tokens: Tokens, database: Database, header: str
) -> None:
    with pytest.raises(Unauthenticated) as refusal:
        await Gate(tokens, database).authenticate(header)
    assert refusal.value.token_was_sent


@pytest.mark.anyio
async def test_what_is_known_and_fresh_needs_no_query(
    tokens: Tokens, database: Database, header: str, queries: list[str]
) -> None:
    gate = Gate(tokens, database, freshness_seconds=FOREVER)
    assert gate.authenticate_cached(header) is None
    assert gate.authenticate_cached(None) is None

    caller = await gate.authenticate(header)
    assert gate.authenticate_cached(header) == caller
    assert await gate.authenticate(header) == caller
    assert len(queries) == 1


@pytest.mark.anyio
async def test_readings_of_one_user_at_once_are_one_query(
    tokens: Tokens, database: Database, user: users.User, queries: list[str]
) -> None:
    gate = Gate(tokens, database, freshness_seconds=FOREVER)
    headers = [tokens.issue(user.id, 1), f"Bearer {tokens.issue(user.id, 1)}"] * 50

    callers = await asyncio.gather(*(gate.authenticate(header) for header in headers))
    assert {caller.username for caller in callers} == {"ada"}
    assert len(queries) == 1


@pytest.mark.anyio
async def test_a_caller_who_leaves_does_not_take_the_reading_away(
    tokens: Tokens, database: Database, header: str, queries: list[str]
) -> None:
    gate = Gate(tokens, database, freshness_seconds=FOREVER)
    leaving = asyncio.create_task(gate.authenticate(header))
    staying = asyncio.create_task(gate.authenticate(header))
    await asyncio.sleep(0)
    leaving.cancel()

    assert (await staying).username == "ada"
    assert leaving.cancelled()
    assert len(queries) == 1


def _disable(connection: Any, user_id: str) -> None:
    users.set_disabled(connection, user_id, disabled=True)


def _reenable(connection: Any, user_id: str) -> None:
    users.set_disabled(connection, user_id, disabled=True)
    users.set_disabled(connection, user_id, disabled=False)


def _change_password(connection: Any, user_id: str) -> None:
    users.set_password_hash(connection, user_id, "y")


@pytest.mark.anyio
@pytest.mark.parametrize("change", [_disable, _reenable, _change_password, users.delete])
async def test_a_token_stops_once_the_standing_is_no_longer_fresh(
    tokens: Tokens,
    database: Database,
    user: users.User,
    header: str,
    change: Callable[[Any, str], None],
) -> None:
    at_once = Gate(tokens, database, freshness_seconds=0)
    later = Gate(tokens, database, freshness_seconds=FOREVER)
    for gate in (at_once, later):
        await gate.authenticate(header)
    with database.write() as connection:
        change(connection, user.id)

    assert at_once.authenticate_cached(header) is None
    with pytest.raises(Unauthenticated, match="no longer valid"):
        await at_once.authenticate(header)
    later._freshness = 0
    assert later.authenticate_cached(header) is None
    with pytest.raises(Unauthenticated, match="no longer valid"):
        await later.authenticate(header)


@pytest.mark.anyio
async def test_by_default_a_disabled_user_is_out_within_a_second(
    tokens: Tokens, database: Database, user: users.User, header: str
) -> None:
    gate = Gate(tokens, database)
    await gate.authenticate(header)
    with database.write() as connection:
        _disable(connection, user.id)

    async def call_for_a_second() -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + 1
        while loop.time() < end:
            await gate.authenticate(header)
            await asyncio.sleep(0.01)
        await gate.authenticate(header)

    with pytest.raises(Unauthenticated):
        await call_for_a_second()


@pytest.mark.anyio
async def test_who_is_let_in_again_need_not_wait(
    tokens: Tokens, database: Database, user: users.User, header: str
) -> None:
    gate = Gate(tokens, database, freshness_seconds=FOREVER)
    await gate.authenticate(header)
    with database.write() as connection:
        _reenable(connection, user.id)

    caller = await gate.authenticate(tokens.issue(user.id, user.token_version + 2))
    assert caller.username == "ada"
    with pytest.raises(Unauthenticated):
        await gate.authenticate(header)


@pytest.mark.anyio
@pytest.mark.parametrize("change", [_disable, users.delete])
async def test_no_token_of_a_user_who_may_not_call_is_accepted(
    tokens: Tokens, database: Database, user: users.User, change: Callable[[Any, str], None]
) -> None:
    with database.write() as connection:
        change(connection, user.id)

    with pytest.raises(Unauthenticated, match="no longer valid"):
        await Gate(tokens, database).authenticate(tokens.issue(user.id, user.token_version + 1))


@pytest.mark.anyio
async def test_a_new_role_is_seen(
    tokens: Tokens, database: Database, user: users.User, header: str
) -> None:
    gate = Gate(tokens, database, freshness_seconds=0)
    assert (await gate.authenticate(header)).role == "user"
    with database.write() as connection:
        users.set_role(connection, user.id, "admin")

    assert (await gate.authenticate(header)).role == "admin"


@pytest.mark.anyio
@pytest.mark.parametrize("user_id", ["01a211c4-777a-7213-b7e5-b2243df5a8ea", "no id"])
async def test_a_token_of_no_user_is_refused(
    tokens: Tokens, database: Database, user_id: str
) -> None:
    with pytest.raises(Unauthenticated, match="no longer valid"):
        await Gate(tokens, database).authenticate(tokens.issue(user_id, 1))


@pytest.mark.anyio
@pytest.mark.parametrize("version", [0, 2])
async def test_a_token_of_another_version_is_refused(
    tokens: Tokens, database: Database, user: users.User, version: int
) -> None:
    with pytest.raises(Unauthenticated, match="no longer valid"):
        await Gate(tokens, database).authenticate(tokens.issue(user.id, version))


@pytest.mark.anyio
async def test_a_remembered_token_expires(
    tokens: Tokens, database: Database, user: users.User
) -> None:
    gate = Gate(tokens, database, freshness_seconds=FOREVER)
    with time_machine.travel(1_800_000_000, tick=True) as clock:
        header = tokens.issue(user.id, 1)
        await gate.authenticate(header)
        assert gate.authenticate_cached(header) is not None
        clock.shift(3600)
        assert gate.authenticate_cached(header) is None
        with pytest.raises(Unauthenticated, match="expired"):
            await gate.authenticate(header)


@pytest.mark.anyio
async def test_a_remembered_token_stops_with_its_key(
    database: Database, user: users.User, tmp_path: Path
) -> None:
    path = tmp_path / "keys.json"
    tokens = Tokens(
        KeyRing.from_file(path), issuer="us", audience="them", lifetime=timedelta(hours=1)
    )
    gate = Gate(tokens, database, freshness_seconds=0)
    header = tokens.issue(user.id, 1)
    await gate.authenticate(header)
    KeyRing.rotate_file(path)
    await gate.authenticate(header)
    KeyRing.rotate_file(path)

    with pytest.raises(Unauthenticated, match="signature"):
        await gate.authenticate(header)


def _replace_by_a_folder(path: Path) -> None:
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()
    path.mkdir()


@pytest.mark.anyio
async def test_nobody_is_let_in_while_the_database_is_out_of_reach(
    tokens: Tokens, database: Database, header: str, tmp_path: Path
) -> None:
    gate = Gate(tokens, database, freshness_seconds=0)
    await gate.authenticate(header)
    database.close()
    _replace_by_a_folder(tmp_path / "record.db")

    with pytest.raises(Unavailable):
        await gate.authenticate(header)
    assert gate.authenticate_cached(header) is None


@pytest.mark.anyio
async def test_what_is_remembered_is_bounded(
    tokens: Tokens, database: Database, user: users.User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onrecord.accounts.standing._MAX_CACHED", 2)
    gate = Gate(tokens, database)
    token = tokens.issue(user.id, 1)
    for spaces in range(1, 6):
        await gate.authenticate(f"Bearer{' ' * spaces}{token}")
    for _ in range(4):
        with pytest.raises(Unauthenticated):
            await gate.authenticate(tokens.issue(new_id(), 1))

    assert len(gate._claims) == 2
    assert len(gate._standings) == 2
