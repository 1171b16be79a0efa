from __future__ import annotations

import asyncio
import threading
from typing import Any, Literal

import pytest
from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

from onrecord.accounts.passwords import (
    Passwords,
    _hash_of_nothing,
    check_email,
    check_password,
    check_username,
)
from onrecord.errors import Unavailable


@pytest.mark.anyio
async def test_a_password_is_verified_against_its_own_hash_only(passwords: Passwords) -> None:
    password_hash = await passwords.hash("correct horse")

    assert password_hash.startswith("$argon2id$")
    assert await passwords.verify(password_hash, "correct horse")
    assert not await passwords.verify(password_hash, "wrong horse")
    assert not await passwords.verify("not a hash", "correct horse")


@pytest.mark.anyio
async def test_without_a_hash_one_is_verified_all_the_same_and_never_matches(
    passwords: Passwords, hasher: Any
) -> None:
    assert not await passwords.verify(None, "correct horse")
    assert hasher.verified == 1


def test_what_is_verified_without_a_hash_is_one_of_the_same_cost() -> None:
    hasher = PasswordHasher()
    decoy = _hash_of_nothing(hasher)

    assert not hasher.check_needs_rehash(decoy)
    with pytest.raises(VerifyMismatchError):
        hasher.verify(decoy, "correct horse")


@pytest.mark.anyio
async def test_a_password_that_is_no_text_is_just_wrong(passwords: Passwords) -> None:
    assert not await passwords.verify(await passwords.hash("correct horse"), "\ud800" * 9)


def test_a_hash_with_other_parameters_needs_a_rehash(passwords: Passwords) -> None:
    assert not passwords.needs_rehash(passwords.hash_now("correct horse"))
    assert passwords.needs_rehash(PasswordHasher(1, 16, 1).hash("correct horse"))


class _HeldHasher(PasswordHasher):
    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.go_on = threading.Event()

    def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002
        self.go_on.wait()
        return super().verify(hash, password)


@pytest.mark.anyio
async def test_more_than_may_wait_are_turned_away_and_places_come_back() -> None:
    hasher = _HeldHasher()
    passwords = Passwords(hasher, workers=1, max_waiting=2)
    try:
        waiting = [asyncio.create_task(passwords.verify(None, "x")) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable) as refusal:
            await passwords.verify(None, "x")
        assert refusal.value.retry_after == 2

        waiting[2].cancel()
        hasher.go_on.set()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert await passwords.verify(None, "x") is False
    finally:
        hasher.go_on.set()
        passwords.close()


@pytest.mark.anyio
async def test_a_closed_hasher_answers_that_it_is_unavailable(hasher: Any) -> None:
    passwords = Passwords(hasher)
    passwords.close()

    with pytest.raises(Unavailable):
        await passwords.hash("correct horse")


@pytest.mark.parametrize(
    ("password", "code"),
    [
        ("7 chars", "too_short"),
        ("x" * 1025, "too_long"),
        ("lone \ud800 surrogate", "wrong_form"),
        ("ADA.Lovelace", "same_as_username"),
    ],
)
def test_an_unacceptable_password_is_told_without_repeating_it(password: str, code: str) -> None:
    fault = check_password(password, "ada.lovelace")

    assert fault is not None
    assert (fault.pointer, fault.code, fault.received) == ("/password", code, None)
    assert password not in fault.detail


@pytest.mark.parametrize("password", ["8 chars!", "x" * 1024, "päßwörter 🐧", "nul\x00inside"])
def test_a_password_may_be_any_text(password: str) -> None:
    assert check_password(password, "ada") is None


@pytest.mark.parametrize("username", ["a", "A.b_c-d@e+9", "x" * 64])
def test_an_acceptable_username(username: str) -> None:
    assert check_username(username) is None


@pytest.mark.parametrize(
    "username", ["", "x" * 65, "a b", "ada\n", "ad\x00a", "\N{CYRILLIC SMALL LETTER A}da", "a/b"]
)
def test_an_unacceptable_username(username: str) -> None:
    fault = check_username(username)

    assert fault is not None
    assert fault.pointer == "/username"


@pytest.mark.parametrize("email", [None, "ada@example.org", "ada@localhost", "ä@ö.example"])
def test_an_acceptable_email(email: str | None) -> None:
    assert check_email(email) is None


@pytest.mark.parametrize(
    "email", ["", "ada", "@", "a@", "@b", "a@b@c", "a b@c", "a@b\n", "\ud800@b", "a@" + "b" * 253]
)
def test_an_unacceptable_email(email: str) -> None:
    fault = check_email(email)

    assert fault is not None
    assert fault.pointer == "/email"
