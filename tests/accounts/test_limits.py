from __future__ import annotations

from collections.abc import Iterator

import pytest
import time_machine

from onrecord.accounts.limits import CallLimit, SignInLimit
from onrecord.errors import SettingsError, TooManyRequests

HOME = "192.0.2.1"


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(1_800_000_030, tick=False) as clock:
        yield clock


def fail(limit: SignInLimit, times: int, username: str = "ada", address: str = HOME) -> None:
    for _ in range(times):
        limit.check(username, address)
        limit.failed(username, address)


def test_a_name_may_fail_ten_times_in_any_minute_from_one_address(
    clock: time_machine.Traveller,
) -> None:
    limit = SignInLimit()
    fail(limit, 4)
    clock.shift(40)
    fail(limit, 6)

    for name in ("ada", "ADA"):
        with pytest.raises(TooManyRequests) as refusal:
            limit.check(name, HOME)
        assert refusal.value.retry_after == 20
    limit.check("eve", HOME)
    clock.shift(20.1)
    fail(limit, 4)
    with pytest.raises(TooManyRequests):
        limit.check("ada", HOME)


def test_whoever_guesses_elsewhere_does_not_lock_out_the_owner(
    clock: time_machine.Traveller,
) -> None:
    limit = SignInLimit()
    limit.succeeded("Ada", HOME)
    for number in range(30):
        fail(limit, 1, address=f"198.51.100.{number}")

    for stranger in ("198.51.100.1", "203.0.113.7"):
        with pytest.raises(TooManyRequests) as refusal:
            limit.check("ada", stranger)
        assert refusal.value.retry_after == 60
    limit.check("ada", HOME)
    fail(limit, 10)
    with pytest.raises(TooManyRequests):
        limit.check("ada", HOME)


def test_one_address_that_guesses_leaves_the_owner_its_own_at_once(
    clock: time_machine.Traveller,
) -> None:
    limit = SignInLimit()
    fail(limit, 10, address="198.51.100.1")

    with pytest.raises(TooManyRequests):
        limit.check("ada", "198.51.100.1")
    limit.check("ada", HOME)


def test_only_so_many_addresses_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onrecord.accounts.limits._MAX_FAMILIAR", 2)
    limit = SignInLimit()
    for name in ("ada", "bob", "ada", "eve"):
        limit.succeeded(name, HOME)

    assert list(limit._familiar) == [("ada", HOME), ("eve", HOME)]


def test_guesses_sent_at_once_count_all(clock: time_machine.Traveller) -> None:
    limit = SignInLimit()
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
    clock: time_machine.Traveller, address: str, same: str, other: str
) -> None:
    limit = SignInLimit()
    for number in range(30):
        fail(limit, 1, f"user{number}", address)

    with pytest.raises(TooManyRequests) as refusal:
        limit.check("ada", same)
    assert refusal.value.retry_after == 60
    limit.check("ada", other)


def test_made_up_names_are_not_remembered_for_ever() -> None:
    limit = SignInLimit(per_address=10**6)
    with time_machine.travel(1_800_000_000, tick=True) as clock:
        for number in range(999):
            fail(limit, 1, f"user{number}")
        clock.shift(3600)
        # What the storage does by itself, a hundredth of a second after each failure.
        limit._storage.__getattribute__("_MemoryStorage__expire_events")()
        fail(limit, 1, "last")

    assert len(limit._storage.events) <= 3


def test_a_user_may_call_so_often_and_others_are_not_concerned(
    clock: time_machine.Traveller,
) -> None:
    limit = CallLimit("3/minute")
    for _ in range(3):
        limit.check("ada")

    with pytest.raises(TooManyRequests, match="3/minute") as refusal:
        limit.check("ada")
    assert refusal.value.retry_after is not None
    assert 1 <= refusal.value.retry_after <= 60
    limit.check("eve")
    clock.shift(120)
    limit.check("ada")


@pytest.mark.parametrize(
    "rate",
    ["", "fast", "100", "0/second", "-1/second", "1/fortnight", "1/second;5/minute", "9" * 5000],
)
def test_a_rate_that_cannot_be_read_is_refused(rate: str) -> None:
    with pytest.raises(SettingsError, match="call_rate"):
        CallLimit(rate)
