from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from sqlalchemy import event

from onrecord.accounts.api_keys import ApiKeys
from onrecord.accounts.caller import Caller
from onrecord.accounts.opaque import with_secret
from onrecord.accounts.standing import Gate
from onrecord.accounts.tokens import Tokens
from onrecord.errors import (
    Conflict,
    Forbidden,
    InsufficientScope,
    InvalidInput,
    NotFound,
    Unauthenticated,
)
from onrecord.record import api_keys as queries
from onrecord.record import users
from onrecord.record.api_keys import ApiKey
from onrecord.record.database import Database
from onrecord.record.ids import new_id

FOREVER = 10**9


@pytest.fixture
def api_keys(database: Database) -> ApiKeys:
    return ApiKeys(database, longest=timedelta(days=365))


@pytest.fixture
def user(database: Database) -> users.User:
    with database.write() as connection:
        return users.add(connection, username="ada", email=None, password_hash="x", role="user")


async def make(api_keys: ApiKeys, user_id: str, **changes: Any) -> tuple[ApiKey, str]:
    asked: dict[str, Any] = {
        "name": "batch",
        "kind": "live",
        "scopes": ["predict"],
        "models": None,
        "expires_at": None,
    }
    return await api_keys.create(user_id, **(asked | changes))


def found(database: Database, key_id: str) -> ApiKey:
    with database.read() as connection:
        key = queries.by_id(connection, key_id)
    assert key is not None
    return key


def change(database: Database, act: Callable[..., None], *arguments: Any) -> None:
    with database.write() as connection:
        act(connection, *arguments)


@pytest.mark.anyio
async def test_a_key_is_kept_as_a_digest_and_known_by_its_prefix(
    api_keys: ApiKeys, database: Database, user: users.User
) -> None:
    key, secret = await make(api_keys, user.id, models=["risk", "risk"], scopes=["read", "predict"])

    assert found(database, key.id) == key
    assert secret.startswith(key.prefix)
    assert (key.username, key.scopes, key.models) == ("ada", ("predict", "read"), ("risk",))
    assert key.expires_at - key.created_at == timedelta(days=365)
    with database.read() as connection:
        rows = connection.exec_driver_sql("SELECT * FROM api_keys").all()
    assert secret not in str(rows)
    assert secret[len(key.prefix) :] not in str(rows)


@pytest.mark.anyio
async def test_every_bad_field_is_told_at_once(api_keys: ApiKeys, user: users.User) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    with pytest.raises(InvalidInput) as refusal:
        await make(api_keys, user.id, name=" ", scopes=[], models=[], expires_at=past)

    faults = [(fault.pointer, fault.code) for fault in refusal.value.faults]
    assert faults == [
        ("/name", "wrong_form"),
        ("/scopes", "missing"),
        ("/models", "out_of_range"),
        ("/expires_at", "out_of_range"),
    ]


@pytest.mark.anyio
@pytest.mark.parametrize(
    "bad",
    [
        {"name": "a\nb"},
        {"name": "x" * 101},
        {"models": ["m"] * 101},
        {"scopes": ["predict", "admin"]},
        {"expires_at": datetime.now(UTC) + timedelta(days=366)},
    ],
    ids=["line break", "long name", "many models", "unknown scope", "late expiry"],
)
async def test_what_is_out_of_bounds_is_refused(
    api_keys: ApiKeys, user: users.User, bad: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput):
        await make(api_keys, user.id, **bad)


@pytest.mark.anyio
async def test_auditors_and_users_who_may_not_call_get_no_keys(
    api_keys: ApiKeys, database: Database, user: users.User
) -> None:
    change(database, users.set_role, user.id, "auditor")
    with pytest.raises(Forbidden, match="auditor"):
        await make(api_keys, user.id)

    change(database, users.set_role, user.id, "user")
    change(database, users.set_disabled, user.id, True)
    with pytest.raises(Forbidden):
        await make(api_keys, user.id)
    with pytest.raises(Forbidden):
        await make(api_keys, new_id())


@pytest.mark.anyio
async def test_a_user_has_a_hundred_usable_keys_at_most(
    api_keys: ApiKeys, user: users.User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onrecord.accounts.api_keys._MAX_USABLE", 2)
    first, _ = await make(api_keys, user.id)
    soon = datetime.now(UTC) + timedelta(hours=1)
    await make(api_keys, user.id, expires_at=soon)
    with pytest.raises(Conflict):
        await make(api_keys, user.id)

    await api_keys.revoke(first.id, owner_id=user.id)
    await make(api_keys, user.id)
    with time_machine.travel(soon + timedelta(hours=1)):
        await make(api_keys, user.id)


@pytest.mark.anyio
async def test_keys_are_listed_by_owner_and_in_pages(
    api_keys: ApiKeys, database: Database, user: users.User
) -> None:
    with database.write() as connection:
        bob = users.add(connection, username="bob", email=None, password_hash="x", role="user")
    made = [(await make(api_keys, owner.id))[0] for owner in (user, bob, user)]

    assert await api_keys.page(None, limit=2, after_id=None) == made[:2]
    assert await api_keys.page(None, limit=2, after_id=made[1].id) == made[2:]
    assert await api_keys.page(user.id, limit=9, after_id=None) == [made[0], made[2]]


@pytest.mark.anyio
async def test_only_its_owner_revokes_a_key_and_once(
    api_keys: ApiKeys, database: Database, user: users.User
) -> None:
    key, _ = await make(api_keys, user.id)
    for unknown in (new_id(), "no id"):
        with pytest.raises(NotFound):
            await api_keys.revoke(unknown, owner_id=None)
    with pytest.raises(NotFound):
        await api_keys.revoke(key.id, owner_id=new_id())
    assert found(database, key.id).revoked_at is None

    await api_keys.revoke(key.id, owner_id=user.id)
    revoked = found(database, key.id)
    await api_keys.revoke(key.id, owner_id=None)
    assert revoked.revoked_at is not None
    assert found(database, key.id) == revoked


@pytest.mark.anyio
@pytest.mark.parametrize("form", ["Bearer {}", "{}", " bearer  {} "])
async def test_a_key_is_sent_as_a_token_is(
    tokens: Tokens, database: Database, api_keys: ApiKeys, user: users.User, form: str
) -> None:
    key, secret = await make(api_keys, user.id, kind="test", models=["risk"])
    gate = Gate(tokens, database, freshness_seconds=FOREVER)
    header = form.format(secret)

    caller = await gate.authenticate(header)

    assert (caller.user_id, caller.username, caller.role) == (user.id, "ada", "user")
    assert caller.grant is not None
    assert caller.grant.test
    assert caller.api_key_id == key.id
    assert gate.authenticate_cached(header) == caller


@pytest.mark.anyio
async def test_a_known_key_needs_no_query_and_calls_at_once_need_one(
    tokens: Tokens, database: Database, api_keys: ApiKeys, user: users.User
) -> None:
    _, secret = await make(api_keys, user.id)
    asked: list[str] = []
    event.listen(
        database.engine,
        "before_cursor_execute",
        lambda *arguments: asked.append(arguments[2]) if "FROM api_keys" in arguments[2] else None,
    )
    gate = Gate(tokens, database, freshness_seconds=FOREVER)

    await asyncio.gather(*(gate.authenticate(secret) for _ in range(50)))
    assert gate.authenticate_cached(secret) is not None
    assert len(asked) == 1


@pytest.mark.anyio
async def test_a_wrong_a_mistyped_and_a_foreign_key_are_refused_and_not_remembered(
    tokens: Tokens, database: Database, api_keys: ApiKeys, user: users.User
) -> None:
    key, secret = await make(api_keys, user.id)
    gate = Gate(tokens, database, freshness_seconds=FOREVER)

    for wrong, words in [
        (with_secret(key.prefix), "no such API key"),
        (with_secret("onr_live_00000000"), "no such API key"),
        (secret[:-1], "malformed"),
        (secret.swapcase().replace("ONR_LIVE_", "onr_live_"), "malformed"),
        ("onr_live_" + "\ud800", "malformed"),
        ("onr_test_" + "x" * 100_000, "malformed"),
    ]:
        with pytest.raises(Unauthenticated, match=words) as refusal:
            await gate.authenticate(wrong)
        assert refusal.value.token_was_sent
    assert len(gate._api_keys._standings) == 0


def _disable(connection: Any, user_id: str, _: str) -> None:
    users.set_disabled(connection, user_id, disabled=True)


def _delete(connection: Any, user_id: str, _: str) -> None:
    users.delete(connection, user_id)


def _revoke(connection: Any, _: str, key_id: str) -> None:
    queries.revoke(connection, key_id, datetime.now(UTC))


@pytest.mark.anyio
@pytest.mark.parametrize("act", [_disable, _delete, _revoke])
async def test_a_key_stops_within_a_second_with_its_owner_or_by_itself(
    tokens: Tokens,
    database: Database,
    api_keys: ApiKeys,
    user: users.User,
    act: Callable[[Any, str, str], None],
) -> None:
    key, secret = await make(api_keys, user.id)
    gates = [Gate(tokens, database) for _ in range(2)]
    for gate in gates:
        await gate.authenticate(secret)
    change(database, act, user.id, key.id)

    async def call_for_a_second(gate: Gate) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + 1
        while loop.time() < end:
            await gate.authenticate(secret)
            await asyncio.sleep(0.01)

    for gate in gates:
        with pytest.raises(Unauthenticated, match="no longer valid"):
            await call_for_a_second(gate)
        assert gate.authenticate_cached(secret) is None


@pytest.mark.anyio
async def test_a_remembered_key_expires(
    tokens: Tokens, database: Database, api_keys: ApiKeys, user: users.User
) -> None:
    gate = Gate(tokens, database, freshness_seconds=FOREVER)
    with time_machine.travel(1_800_000_000, tick=False) as clock:
        soon = datetime.now(UTC) + timedelta(hours=1)
        _, secret = await make(api_keys, user.id, expires_at=soon)
        await gate.authenticate(secret)
        clock.shift(3599)
        assert gate.authenticate_cached(secret) is not None
        clock.shift(1)
        assert gate.authenticate_cached(secret) is None
        with pytest.raises(Unauthenticated, match="no longer valid"):
            await gate.authenticate(secret)
        with pytest.raises(Unauthenticated, match="no longer valid"):
            await Gate(tokens, database).authenticate(secret)


async def uses_noted(gate: Gate) -> None:
    while notes := gate._api_keys._notes:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*notes)


@pytest.mark.anyio
async def test_the_last_use_is_put_down_once_a_minute(
    tokens: Tokens, database: Database, api_keys: ApiKeys, user: users.User
) -> None:
    gate = Gate(tokens, database, freshness_seconds=0)
    with time_machine.travel(1_800_000_000, tick=False) as clock:
        key, secret = await make(api_keys, user.id)
        seen = [found(database, key.id).last_used_at]
        for seconds in (0, 30, 31):
            clock.shift(seconds)
            await gate.authenticate(secret)
            await uses_noted(gate)
            seen.append(found(database, key.id).last_used_at)

    start = datetime.fromtimestamp(1_800_000_000, UTC)
    assert seen == [None, start, start, start + timedelta(seconds=61)]


@pytest.mark.anyio
async def test_a_key_has_never_more_rights_than_its_owner(
    tokens: Tokens, database: Database, api_keys: ApiKeys, user: users.User
) -> None:
    _, secret = await make(api_keys, user.id, scopes=["predict", "read"])
    gate = Gate(tokens, database, freshness_seconds=0)
    change(database, users.set_role, user.id, "admin")
    caller = await gate.authenticate(secret)
    assert caller.may_predict("risk")
    assert not caller.reads_all
    with pytest.raises(Forbidden, match="sign in"):
        caller.check_signed_in()

    change(database, users.set_role, user.id, "auditor")
    caller = await gate.authenticate(secret)
    assert not caller.may_predict("risk")
    assert not caller.reads_all


@pytest.mark.anyio
async def test_scopes_and_models_bound_what_a_key_may_do(
    tokens: Tokens, database: Database, api_keys: ApiKeys, user: users.User
) -> None:
    async def caller(**asked: Any) -> Caller:
        _, secret = await make(api_keys, user.id, **asked)
        return await Gate(tokens, database).authenticate(secret)

    reader = await caller(scopes=["read"])
    reader.check_scope("read")
    assert not reader.may_predict("risk")
    with pytest.raises(InsufficientScope, match="'predict'; it has: read") as refusal:
        reader.check_may_predict("risk")
    assert refusal.value.scope == "predict"

    narrow = await caller(models=["risk", "churn"])
    assert narrow.may_predict("risk")
    assert not narrow.may_predict("price")
    with pytest.raises(Forbidden, match="'price', but for: churn, risk"):
        narrow.check_may_predict("price")
    with pytest.raises(InsufficientScope):
        narrow.check_scope("read")
