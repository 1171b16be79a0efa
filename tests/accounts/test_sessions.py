from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from sqlalchemy import text
from structlog.testing import capture_logs

from onrecord.accounts.opaque import head_of, with_secret
from onrecord.accounts.sessions import Sessions
from onrecord.accounts.sign_in import Accounts
from onrecord.accounts.standing import Gate
from onrecord.accounts.tokens import Tokens
from onrecord.errors import NotFound, Unauthenticated
from onrecord.record import users
from onrecord.record.database import Database

FOREVER = 10**9


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    database.upgrade()
    yield database
    database.close()


@pytest.fixture
def sessions(database: Database, tokens: Tokens) -> Sessions:
    return Sessions(database, tokens, longest=timedelta(days=30), idle=timedelta(days=7))


@pytest.fixture
def user(database: Database) -> users.User:
    with database.write() as connection:
        return users.add(connection, username="ada", email=None, password_hash="x", role="user")


async def refused(sessions: Sessions, refresh_token: str) -> bool:
    try:
        await sessions.refresh(refresh_token)
    except Unauthenticated:
        return True
    return False


@pytest.mark.anyio
async def test_a_refresh_token_gives_the_next_pair_of_the_same_session(
    sessions: Sessions, tokens: Tokens, user: users.User
) -> None:
    first = await sessions.begin(user)
    again, second = await sessions.refresh(first.refresh_token)
    _, third = await sessions.refresh(second.refresh_token)

    assert again == user
    assert len({first.refresh_token, second.refresh_token, third.refresh_token}) == 3
    claims = [tokens.read(issued.access_token) for issued in (first, second, third)]
    assert {(c.user_id, c.token_version) for c in claims} == {(user.id, 1)}
    assert len({c.session_id for c in claims}) == 1
    other = await sessions.begin(user)
    assert tokens.read(other.access_token).session_id != claims[0].session_id


@pytest.mark.anyio
async def test_no_refresh_token_is_kept(
    sessions: Sessions, database: Database, user: users.User
) -> None:
    issued = await sessions.begin(user)

    with database.read() as connection:
        rows = str(connection.execute(text("SELECT * FROM sessions")).all())
    family = head_of(issued.refresh_token)
    assert family is not None
    assert issued.refresh_token not in rows
    assert family not in rows


@pytest.mark.anyio
async def test_a_refresh_token_that_comes_again_ends_its_session_and_no_other(
    sessions: Sessions, tokens: Tokens, database: Database, user: users.User
) -> None:
    gate = Gate(tokens, database, freshness_seconds=0)
    stolen, other = await sessions.begin(user), await sessions.begin(user)
    _, newest = await sessions.refresh(stolen.refresh_token)
    await gate.authenticate(newest.access_token)

    with capture_logs() as lines:
        assert await refused(sessions, stolen.refresh_token)

    assert await refused(sessions, newest.refresh_token)
    for issued in (stolen, newest):
        with pytest.raises(Unauthenticated, match="no longer valid"):
            await gate.authenticate(issued.access_token)
    assert not await refused(sessions, other.refresh_token)
    await gate.authenticate(other.access_token)
    (line,) = lines
    assert line["event"] == "a refresh token came a second time; its session is ended"
    assert line["user_id"] == user.id
    assert stolen.refresh_token not in str(line)


@pytest.mark.anyio
async def test_of_two_who_refresh_at_once_one_wins_and_the_session_ends(
    sessions: Sessions, user: users.User
) -> None:
    issued = await sessions.begin(user)

    answers = await asyncio.gather(
        *(sessions.refresh(issued.refresh_token) for _ in range(4)), return_exceptions=True
    )

    ((_, won),) = (answer for answer in answers if isinstance(answer, tuple))
    assert sum(isinstance(answer, Unauthenticated) for answer in answers) == 3
    assert await refused(sessions, won.refresh_token)


@pytest.mark.anyio
async def test_what_is_no_refresh_token_is_refused_and_ends_nothing(
    sessions: Sessions, user: users.User
) -> None:
    issued = await sessions.begin(user)
    token = issued.refresh_token

    for wrong in (
        "",
        "\ud800",
        token[:-1],
        token + "0",
        token.replace("onr_refresh_", "onr_live_"),
        with_secret("onr_refresh_" + "0" * 22),
        with_secret("onr_live_00000000"),
        issued.access_token,
        "x" * 100_000,
    ):
        assert await refused(sessions, wrong)
    assert not await refused(sessions, token)


Change = Callable[[Database, str], None]


def _write(act: Callable[..., None], *arguments: Any) -> Change:
    def change(database: Database, user_id: str) -> None:
        with database.write() as connection:
            act(connection, user_id, *arguments)

    return change


@pytest.mark.anyio
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(_write(users.set_disabled, True), id="disabled"),
        pytest.param(_write(users.delete), id="deleted"),
        pytest.param(_write(users.set_password_hash, "y"), id="another password"),
        pytest.param(_write(users.end_tokens), id="signed out everywhere"),
    ],
)
async def test_a_session_ends_with_what_its_user_was(
    sessions: Sessions, database: Database, user: users.User, change: Change
) -> None:
    issued = await sessions.begin(user)
    change(database, user.id)

    assert await refused(sessions, issued.refresh_token)


@pytest.mark.anyio
async def test_a_session_ends_when_idle_too_long_and_in_any_case_after_its_longest_time(
    sessions: Sessions, user: users.User
) -> None:
    with time_machine.travel(1_800_000_000, tick=False) as clock:
        idle, used = await sessions.begin(user), await sessions.begin(user)
        for _ in range(4):
            clock.shift(timedelta(days=7) - timedelta(seconds=1))
            _, used = await sessions.refresh(used.refresh_token)
        assert await refused(sessions, idle.refresh_token)
        clock.shift(timedelta(days=2, seconds=4))
        assert await refused(sessions, used.refresh_token)


@pytest.mark.anyio
@pytest.mark.parametrize("by", ["refresh_token", "access_token"])
async def test_ending_a_session_stops_all_its_tokens_within_a_second_in_every_process(
    sessions: Sessions, tokens: Tokens, database: Database, user: users.User, by: str
) -> None:
    gates = [Gate(tokens, database) for _ in range(2)]
    first, other = await sessions.begin(user), await sessions.begin(user)
    _, second = await sessions.refresh(first.refresh_token)
    for gate in gates:
        for issued in (first, second, other):
            await gate.authenticate(issued.access_token)

    await sessions.end(getattr(second, by))
    await sessions.end(getattr(second, by))

    assert await refused(sessions, second.refresh_token)

    async def call_for_a_second(gate: Gate, token: str) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + 1
        while loop.time() < end:
            await gate.authenticate(token)
            await asyncio.sleep(0.01)

    for gate in gates:
        for issued in (first, second):
            with pytest.raises(Unauthenticated, match="no longer valid"):
                await call_for_a_second(gate, issued.access_token)
            assert gate.authenticate_cached(issued.access_token) is None
        await gate.authenticate(other.access_token)


@pytest.mark.anyio
async def test_what_belongs_to_no_session_ends_none(
    sessions: Sessions, tokens: Tokens, user: users.User
) -> None:
    ends: list[Callable[[], Awaitable[None]]] = [
        lambda: sessions.end("garbage"),
        lambda: sessions.end(tokens.issue(user.id, 1)),
        lambda: sessions.end(with_secret("onr_refresh_" + "0" * 22)),
        lambda: sessions.end("onr_refresh_"),
    ]
    for end in ends:
        with pytest.raises(Unauthenticated):
            await end()


@pytest.mark.anyio
async def test_signing_out_everywhere_ends_every_session(
    sessions: Sessions,
    accounts: Accounts,
    tokens: Tokens,
    database: Database,
    user: users.User,
) -> None:
    gate = Gate(tokens, database, freshness_seconds=0)
    issued = [await sessions.begin(user) for _ in range(2)]
    await accounts.sign_out_everywhere(user.id)

    for one in issued:
        assert await refused(sessions, one.refresh_token)
        with pytest.raises(Unauthenticated):
            await gate.authenticate(one.access_token)


@pytest.mark.anyio
async def test_old_sessions_are_forgotten_and_those_with_valid_tokens_are_not(
    sessions: Sessions, database: Database, user: users.User
) -> None:
    def kept() -> int:
        with database.read() as connection:
            return connection.execute(text("SELECT count(*) FROM sessions")).scalar_one()

    with time_machine.travel(1_800_000_000, tick=False) as clock:
        await sessions.begin(user)
        used = await sessions.begin(user)
        for days in (6, 6, 6, 6, 5.99):
            clock.shift(timedelta(days=days))
            _, used = await sessions.refresh(used.refresh_token)
        clock.shift(timedelta(days=0.011))
        await sessions.begin(user)
        assert kept() == 2, "the second one's last access token is valid for an hour"
        clock.shift(timedelta(hours=1))
        await sessions.begin(user)
        assert kept() == 2


@pytest.mark.anyio
async def test_a_browser_gets_new_tokens_once_half_the_time_is_gone(
    sessions: Sessions, tokens: Tokens, user: users.User
) -> None:
    with time_machine.travel(1_800_000_000, tick=False) as clock:
        issued = await sessions.begin(user)
        clock.shift(tokens.lifetime / 2 - timedelta(seconds=1))
        assert await sessions.renew(issued.access_token, issued.refresh_token) is None

        clock.shift(timedelta(seconds=2))
        renewed = await sessions.renew(issued.access_token, issued.refresh_token)

        assert renewed is not None
        assert tokens.read(renewed.access_token).session_id == (
            tokens.read(issued.access_token).session_id
        )
        assert sessions.held(renewed.access_token) == sessions.held(issued.access_token)
        clock.shift(tokens.lifetime)
        with pytest.raises(Unauthenticated):
            await sessions.renew(renewed.access_token, renewed.refresh_token)


@pytest.mark.anyio
async def test_of_requests_that_come_at_once_one_renews_and_none_is_taken_for_a_thief(
    sessions: Sessions, tokens: Tokens, user: users.User
) -> None:
    with time_machine.travel(1_800_000_000, tick=False) as clock:
        issued = await sessions.begin(user)
        clock.shift(tokens.lifetime * 0.75)

        at_once = [sessions.renew(issued.access_token, issued.refresh_token) for _ in range(8)]
        renewed = [it for it in await asyncio.gather(*at_once) if it is not None]
        late = await sessions.renew(issued.access_token, issued.refresh_token)

        assert len(renewed) == 1
        assert late is None
        assert not await refused(sessions, renewed[0].refresh_token)


@pytest.mark.anyio
async def test_a_spent_refresh_token_without_its_access_token_still_ends_the_session(
    sessions: Sessions, tokens: Tokens, user: users.User
) -> None:
    with time_machine.travel(1_800_000_000, tick=False) as clock:
        issued = await sessions.begin(user)
        clock.shift(tokens.lifetime * 0.75)
        renewed = await sessions.renew(issued.access_token, issued.refresh_token)
        assert renewed is not None

        assert await refused(sessions, issued.refresh_token)
        assert await refused(sessions, renewed.refresh_token)


@pytest.mark.anyio
async def test_tokens_of_two_sessions_renew_neither(
    sessions: Sessions, tokens: Tokens, user: users.User
) -> None:
    with time_machine.travel(1_800_000_000, tick=False) as clock:
        first, second = await sessions.begin(user), await sessions.begin(user)
        clock.shift(tokens.lifetime * 0.75)

        with pytest.raises(Unauthenticated):
            await sessions.renew(first.access_token, second.refresh_token)

        assert not await refused(sessions, second.refresh_token)


@pytest.mark.anyio
async def test_a_user_sees_its_sessions_and_ends_one_of_them(
    database: Database, sessions: Sessions, user: users.User
) -> None:
    with database.write() as connection:
        other = users.add(connection, username="eve", email=None, password_hash="x", role="user")
    kept, ended = await sessions.begin(user), await sessions.begin(user)
    newest, oldest = await sessions.of_user(user.id)

    with pytest.raises(NotFound):
        await sessions.end_of_user(other.id, newest.id)
    with pytest.raises(NotFound):
        await sessions.end_of_user(user.id, "no id")
    await sessions.end_of_user(user.id, newest.id)

    assert await refused(sessions, ended.refresh_token)
    assert not await refused(sessions, kept.refresh_token)
    told = {it.id: (it.open, it.ended_at is None) for it in await sessions.of_user(user.id)}
    assert told == {newest.id: (False, False), oldest.id: (True, True)}
    assert await sessions.of_user(other.id) == []


@pytest.mark.anyio
async def test_sessions_that_a_new_password_ended_are_not_open(
    database: Database, sessions: Sessions, user: users.User
) -> None:
    await sessions.begin(user)
    with database.write() as connection:
        users.set_password_hash(connection, user.id, "y")

    assert [it.open for it in await sessions.of_user(user.id)] == [False]
