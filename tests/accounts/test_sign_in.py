from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from argon2 import PasswordHasher

from onrecord.accounts.sign_in import Accounts
from onrecord.errors import Conflict, InvalidInput, NotFound, TooManyRequests, Unauthenticated
from onrecord.record import users
from onrecord.record.database import Database
from onrecord.record.ids import new_id

PASSWORD = "correct horse"
HOME = "192.0.2.1"


def find(database: Database, user_id: str) -> users.User:
    with database.read() as connection:
        user = users.by_id(connection, user_id)
    assert user is not None
    return user


@pytest.mark.anyio
async def test_who_registers_is_a_user_and_can_sign_in(
    accounts: Accounts, database: Database
) -> None:
    registered = await accounts.register("Ada", PASSWORD, "ada@example.org")
    user = await accounts.sign_in("ada", PASSWORD, HOME)

    assert user == registered == find(database, user.id)
    assert (user.username, user.email, user.role) == ("Ada", "ada@example.org", "user")
    assert user.password_hash is not None
    assert PASSWORD not in user.password_hash


@pytest.mark.anyio
async def test_only_the_operator_makes_admins(accounts: Accounts) -> None:
    assert (await accounts.create("root", PASSWORD, None, "admin")).role == "admin"
    assert (await accounts.register("ada", PASSWORD, None)).role == "user"


@pytest.mark.anyio
async def test_every_bad_field_is_told_at_once(accounts: Accounts) -> None:
    with pytest.raises(InvalidInput) as refusal:
        await accounts.register("a b", "short", "nowhere")

    assert [fault.pointer for fault in refusal.value.faults] == ["/username", "/password", "/email"]


@pytest.mark.anyio
async def test_a_name_is_taken_once_even_when_asked_for_at_once(accounts: Accounts) -> None:
    answers = await asyncio.gather(
        *(accounts.register(name, PASSWORD, None) for name in ("ada", "Ada", "ADA")),
        return_exceptions=True,
    )

    refusals = [answer for answer in answers if isinstance(answer, Conflict)]
    assert len(refusals) == 2
    for refusal in refusals:
        assert [(f.pointer, f.code) for f in refusal.faults] == [("/username", "taken")]


@pytest.mark.anyio
async def test_unknown_wrong_disabled_and_deleted_are_answered_alike_after_the_same_work(
    accounts: Accounts, hasher: Any
) -> None:
    ids = {name: (await accounts.register(name, PASSWORD, None)).id for name in ("a", "b", "c")}
    await accounts.set_disabled(ids["b"], disabled=True)
    await accounts.delete(ids["c"])

    answers = []
    for name, password in [
        ("nobody", PASSWORD),
        ("no\x00body\ud800", PASSWORD),
        ("a", "wrong"),
        ("a", "\ud800"),
        ("b", PASSWORD),
        ("c", PASSWORD),
    ]:
        before = hasher.verified
        with pytest.raises(Unauthenticated) as refusal:
            await accounts.sign_in(name, password, HOME)
        answers.append((refusal.value.detail, hasher.verified - before))
    assert set(answers) == {("The username or password is wrong.", 1)}


@pytest.mark.anyio
async def test_ten_failures_stop_even_the_right_password_and_successes_do_not_count(
    accounts: Accounts, hasher: Any
) -> None:
    await accounts.register("ada", PASSWORD, None)
    for _ in range(12):
        await accounts.sign_in("ada", PASSWORD, HOME)
    for _ in range(10):
        with pytest.raises(Unauthenticated):
            await accounts.sign_in("Ada", "wrong password", HOME)

    before = hasher.verified
    with pytest.raises(TooManyRequests):
        await accounts.sign_in("ada", PASSWORD, HOME)
    assert hasher.verified == before


@pytest.mark.anyio
async def test_guesses_from_everywhere_do_not_lock_out_the_owner(accounts: Accounts) -> None:
    await accounts.register("ada", PASSWORD, None)
    await accounts.sign_in("ada", PASSWORD, HOME)
    answers = await asyncio.gather(
        *(accounts.sign_in("ada", "wrong password", f"198.51.100.{n}") for n in range(40)),
        return_exceptions=True,
    )

    assert sum(isinstance(answer, Unauthenticated) for answer in answers) == 30
    with pytest.raises(TooManyRequests):
        await accounts.sign_in("ada", PASSWORD, "203.0.113.7")
    await accounts.sign_in("ada", PASSWORD, HOME)


@pytest.mark.anyio
async def test_guesses_sent_at_once_learn_no_more_than_ten_answers(accounts: Accounts) -> None:
    await accounts.register("ada", PASSWORD, None)
    guesses = ["wrong password"] * 29 + [PASSWORD]

    answers = await asyncio.gather(
        *(accounts.sign_in("ada", guess, HOME) for guess in guesses), return_exceptions=True
    )
    assert sum(isinstance(answer, Unauthenticated) for answer in answers) == 10
    assert sum(isinstance(answer, TooManyRequests) for answer in answers[:29]) == 19
    assert isinstance(answers[29], TooManyRequests)


@pytest.mark.anyio
async def test_signing_in_strengthens_an_old_hash_and_tokens_go_on_working(
    accounts: Accounts, database: Database
) -> None:
    old = PasswordHasher(time_cost=2, memory_cost=8, parallelism=1).hash(PASSWORD)
    with database.write() as connection:
        user = users.add(connection, username="ada", email=None, password_hash=old, role="user")
    await accounts.sign_in("ada", PASSWORD, HOME)

    stronger = find(database, user.id)
    assert stronger.password_hash != old
    assert stronger.token_version == user.token_version
    await accounts.sign_in("ada", PASSWORD, HOME)
    assert find(database, user.id) == stronger


@pytest.mark.anyio
async def test_a_strengthened_hash_does_not_bring_a_changed_password_back(
    accounts: Accounts, database: Database
) -> None:
    user = await accounts.register("ada", PASSWORD, None)
    assert user.password_hash is not None
    await accounts.set_password(user.id, "another password")
    changed = find(database, user.id)

    await accounts._rehash(user.id, user.password_hash, PASSWORD)
    assert find(database, user.id) == changed


@pytest.mark.anyio
async def test_a_new_password_replaces_the_old_one_and_ends_its_tokens(
    accounts: Accounts, database: Database
) -> None:
    user = await accounts.register("ada", PASSWORD, None)
    await accounts.set_password(user.id, "another password")

    assert find(database, user.id).token_version > user.token_version
    await accounts.sign_in("ada", "another password", HOME)
    with pytest.raises(Unauthenticated):
        await accounts.sign_in("ada", PASSWORD, HOME)
    with pytest.raises(InvalidInput):
        await accounts.set_password(user.id, "short")


@pytest.mark.anyio
async def test_a_disabled_user_can_be_enabled_again(accounts: Accounts) -> None:
    user = await accounts.register("ada", PASSWORD, None)
    await accounts.set_disabled(user.id, disabled=True)
    await accounts.set_disabled(user.id, disabled=False)

    again = await accounts.sign_in("ada", PASSWORD, HOME)
    assert again.token_version > user.token_version


@pytest.mark.anyio
async def test_a_role_can_be_given(accounts: Accounts, database: Database) -> None:
    user = await accounts.register("ada", PASSWORD, None)
    await accounts.set_role(user.id, "admin")

    assert find(database, user.id).role == "admin"


CHANGES: list[Callable[[Accounts, str], Awaitable[None]]] = [
    lambda accounts, user_id: accounts.set_disabled(user_id, disabled=True),
    lambda accounts, user_id: accounts.set_role(user_id, "admin"),
    lambda accounts, user_id: accounts.set_password(user_id, "another password"),
]


@pytest.mark.anyio
@pytest.mark.parametrize("change", CHANGES)
async def test_the_unknown_and_the_deleted_cannot_be_changed(
    accounts: Accounts, database: Database, change: Callable[[Accounts, str], Awaitable[None]]
) -> None:
    user = await accounts.register("ada", PASSWORD, None)
    await accounts.delete(user.id)
    tombstone = find(database, user.id)

    with pytest.raises(Conflict):
        await change(accounts, user.id)
    with pytest.raises(NotFound):
        await change(accounts, new_id())
    assert find(database, user.id) == tombstone


@pytest.mark.anyio
async def test_deleting_twice_is_deleting_once(accounts: Accounts, database: Database) -> None:
    user = await accounts.register("ada", PASSWORD, None)
    await accounts.delete(user.id)
    tombstone = find(database, user.id)
    await accounts.delete(user.id)

    assert find(database, user.id) == tombstone
    with pytest.raises(NotFound):
        await accounts.delete(new_id())


@pytest.mark.anyio
async def test_the_last_admin_who_can_sign_in_cannot_be_taken_away(accounts: Accounts) -> None:
    first = await accounts.create("root", PASSWORD, None, "admin")
    other = await accounts.create("deputy", PASSWORD, None, "admin")
    await accounts.set_disabled(other.id, disabled=True)

    with pytest.raises(Conflict, match="last admin"):
        await accounts.set_role(first.id, "user")
    with pytest.raises(Conflict, match="last admin"):
        await accounts.set_disabled(first.id, disabled=True)
    with pytest.raises(Conflict, match="last admin"):
        await accounts.delete(first.id)

    await accounts.set_disabled(other.id, disabled=False)
    await accounts.delete(first.id)
