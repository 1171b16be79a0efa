from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Literal

import pytest
from argon2 import PasswordHasher

from onrecord.accounts.keys import Key, KeyRing
from onrecord.accounts.limits import SignInLimit
from onrecord.accounts.passwords import Passwords
from onrecord.accounts.sign_in import Accounts
from onrecord.accounts.tokens import Tokens
from onrecord.record.database import Database


class Clock:
    """A clock that a test moves."""

    def __init__(self, now: float = 1_800_000_030.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def shift(self, seconds: float) -> None:
        self.now += seconds


class CountingHasher(PasswordHasher):
    """A cheap hasher that counts how often it did the work of verifying."""

    def __init__(self, time_cost: int = 1) -> None:
        super().__init__(time_cost=time_cost, memory_cost=8, parallelism=1)
        self.verified = 0

    def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002 - the library's
        try:
            return super().verify(hash, password)
        finally:
            # A text that is no hash is refused without any work.
            self.verified += str(hash).startswith("$argon2id$")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'record.db'}")
    database.upgrade()
    yield database
    database.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hasher() -> CountingHasher:
    return CountingHasher()


@pytest.fixture
def passwords(hasher: CountingHasher) -> Iterator[Passwords]:
    passwords = Passwords(hasher)
    yield passwords
    passwords.close()


@pytest.fixture
def key() -> Key:
    return Key("first", b"0123456789abcdef0123456789abcdef")


@pytest.fixture
def tokens(key: Key) -> Tokens:
    return Tokens(KeyRing([key]), issuer="us", audience="them", lifetime=timedelta(hours=1))


@pytest.fixture
def accounts(database: Database, passwords: Passwords) -> Accounts:
    return Accounts(database, passwords, SignInLimit())
