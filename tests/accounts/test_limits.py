from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from onrecord.accounts.limits import SignInLimit
from onrecord.errors import TooManyRequests

HOME = "192.0.2.1"


def fail(limit: SignInLimit, times: int, username: str = "ada", address: str = HOME) -> None:
    for _ in range(times):
        limit.check(username, address)
        limit.failed(username, address)


def is_refused(limit: SignInLimit, username: str = "ada", address: str = HOME) -> bool:
    try:
        limit.check(username, address)
    except TooManyRequests:
        return True
    return False


def test_a_name_may_fail_ten_times_in_any_minute_from_one_address(clock: Any) -> None:
    limit = SignInLimit(clock=clock)
    fail(limit, 4)
    clock.shift(40)
    fail(limit, 6)

    for name in ("ada", "ADA"):
        with pytest.raises(TooManyRequests) as refusal:
            limit.check(name, HOME)
        assert refusal.value.retry_after in {20, 21, 22}
    limit.check("eve", HOME)
    clock.shift(19.9)
    assert is_refused(limit)
    clock.shift(refusal.value.retry_after - 19.9)
    fail(limit, 4)
    assert is_refused(limit)


def test_whoever_guesses_elsewhere_does_not_lock_out_the_owner(clock: Any) -> None:
    limit = SignInLimit(clock=clock)
    limit.succeeded("Ada", HOME)
    for number in range(30):
        fail(limit, 1, address=f"198.51.100.{number}")

    for stranger in ("198.51.100.1", "203.0.113.7"):
        with pytest.raises(TooManyRequests) as refusal:
            limit.check("ada", stranger)
        assert refusal.value.retry_after in {60, 61, 62}
    limit.check("ada", HOME)
    fail(limit, 10)
    assert is_refused(limit)


def test_all_workers_count_the_same_failures_and_know_the_same_owner(
    clock: Any, tmp_path: Path
) -> None:
    workers = [SignInLimit(directory=tmp_path, clock=clock) for _ in range(3)]
    workers[0].succeeded("ada", HOME)
    for number in range(30):
        fail(workers[number % 3], 1, address=f"198.51.100.{number}")

    assert [is_refused(worker, address="203.0.113.7") for worker in workers] == [True] * 3
    assert [is_refused(worker) for worker in workers] == [False] * 3
    for number in range(10):
        fail(workers[number % 3], 1)
    assert [is_refused(worker) for worker in workers] == [True] * 3


def test_one_address_that_guesses_leaves_the_owner_its_own_at_once(clock: Any) -> None:
    limit = SignInLimit(clock=clock)
    fail(limit, 10, address="198.51.100.1")

    assert is_refused(limit, address="198.51.100.1")
    limit.check("ada", HOME)


def test_only_so_many_addresses_are_remembered_and_the_oldest_is_forgotten(clock: Any) -> None:
    limit = SignInLimit(clock=clock, per_username=1, max_familiar=8)
    owners = [f"user{number}" for number in range(9)]
    for owner in owners:
        limit.succeeded(owner, HOME)
        clock.shift(1)
        limit.succeeded("user0", HOME)
        clock.shift(1)
    for owner in owners:
        fail(limit, 1, owner, address="198.51.100.1")

    assert [owner for owner in owners if is_refused(limit, owner)] == ["user1"]


def test_guesses_sent_at_once_count_all(clock: Any) -> None:
    limit = SignInLimit(clock=clock)
    for _ in range(20):
        limit.check("ada", HOME)
    for _ in range(10):
        limit.failed("ada", HOME)

    with pytest.raises(TooManyRequests):
        limit.failed("ada", HOME)


@pytest.mark.parametrize(
    ("address", "same", "other"),
    [
        (HOME, f"::ffff:{HOME}", "::ffff:192.0.2.2"),
        ("2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1"),
        ("unknown", "unknown", "elsewhere"),
    ],
)
def test_an_address_may_fail_thirty_times_a_minute(
    clock: Any, address: str, same: str, other: str
) -> None:
    limit = SignInLimit(clock=clock)
    for number in range(30):
        fail(limit, 1, f"user{number}", address)

    with pytest.raises(TooManyRequests) as refusal:
        limit.check("ada", same)
    assert refusal.value.retry_after in {60, 61, 62}
    limit.check("ada", other)
