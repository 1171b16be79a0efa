"""How often a user and an API key may call: so many in any second or hour, and so many a day."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from onrecord.accounts.caller import Caller
from onrecord.accounts.day_counts import Day, DayCounts
from onrecord.accounts.rates import Rate
from onrecord.accounts.shared_slots import slot_key
from onrecord.accounts.windows import Window, Windows
from onrecord.errors import TooManyRequests, Unavailable
from onrecord.record.database import Database
from onrecord.record.usage import Consumer

__all__ = ["Admission", "CallLimits", "Limits", "Policy", "Remaining"]

_DAY_SECONDS = 24 * 60 * 60
_MAX_REMEMBERED = 10_000
# Midnight can pass during one reading, and another be too slow to go by.
_MAX_READINGS = 4


@dataclass(frozen=True, slots=True)
class Policy:
    """A limit as callers are told of it: at most `amount` calls in `seconds`, under a name.

    "rate" and "quota" are those of the user, "key-rate" and "key-quota" those of the API key.
    """

    name: str
    amount: int
    seconds: int


@dataclass(frozen=True, slots=True)
class _Quota:
    consumer: Consumer
    key: bytes
    amount: int


@dataclass(frozen=True, slots=True, eq=False)
class Limits:
    """All that limits one caller: its rates and then its quotas, in the order of `policies`."""

    policies: tuple[Policy, ...]
    rates: tuple[tuple[bytes, Rate], ...]
    quotas: tuple[_Quota, ...]
    details: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Remaining:
    """How many calls a policy leaves, and for how many seconds there will not be more."""

    calls: int
    seconds: int


@dataclass(slots=True)
class Admission:
    """Whether a call is let through: `error` is why not; `remaining` has one entry a policy."""

    limits: Limits
    remaining: list[Remaining]
    error: TooManyRequests | None


class CallLimits:
    """At most so many calls of a user, and of each API key that has limits of its own.

    `rate` and `quota` are those of every user, None for no limit. All limits of a caller are
    applied at once: a call that one of them refuses counts for none. A call counts as one,
    whatever it holds and however it ends. Rates are counted over all workers that are given the
    same `directory`, quotas over all servers on the database, see `DayCounts` for that and for
    `stale_seconds`.
    """

    def __init__(  # noqa: PLR0913 - one argument a limit, and the clocks
        self,
        database: Database,
        *,
        rate: Rate | None,
        quota: int | None,
        directory: Path | None = None,
        stale_seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        day_clock: Callable[[], float] = time.time,
    ) -> None:
        self._rate = rate
        self._quota = quota
        self._limits_users = rate is not None or quota is not None
        self._windows = Windows(None if directory is None else directory / "rates", clock=clock)
        self._days = DayCounts(
            database,
            None if directory is None else directory / "quotas",
            clock=day_clock,
            stale_seconds=stale_seconds,
        )
        self._prepared: dict[str, Limits] = {}

    def of(self, caller: Caller) -> Limits | None:
        """Return what limits a caller, None where nothing does."""
        grant = caller.grant
        if not self._limits_users and (grant is None or not grant.limited):
            return None
        known = self._prepared.get(caller.user_id if grant is None else grant.api_key_id)
        return known or self._prepare(caller)

    def admit_at_once(self, limits: Limits) -> Admission | None:
        """Count one call where it is within all limits.

        Returns None, having counted nothing, where a quota's use has to be read first: `admit`
        does that.
        """
        with self._windows as windows:
            rates = [windows.read(key, rate) for key, rate in limits.rates]
            if not limits.quotas:
                return self._decide(limits, rates, ())
            with self._days as counts:
                days = [day for quota in limits.quotas if (day := counts.today(quota.key))]
                if len(days) < len(limits.quotas):
                    return None
                return self._decide(limits, rates, days)

    async def admit(self, limits: Limits) -> Admission:
        """Count one call where it is within all limits.

        Raises Unavailable where the database cannot tell, in time, how many there were today.
        """
        for _ in range(_MAX_READINGS):
            admission = self.admit_at_once(limits)
            if admission is not None:
                return admission
            with self._days as counts:
                unread = [quota for quota in limits.quotas if counts.today(quota.key) is None]
            for quota in unread:
                await self._days.read(quota.consumer)
        raise Unavailable("The calls of today cannot be counted now.", retry_after=1)

    def _decide(self, limits: Limits, rates: Sequence[Window], days: Sequence[Day]) -> Admission:
        full = [window.full for window in rates]
        full += [day.used >= quota.amount for quota, day in zip(limits.quotas, days, strict=True)]
        if True not in full:
            for window in rates:
                self._windows.add(window)
            for quota, day in zip(limits.quotas, days, strict=True):
                if self._days.add(day):
                    self._days.read_later(quota.consumer)
        used = [window.total for window in rates] + [day.used for day in days]
        waits = [math.ceil(window.leaves_in) for window in rates]
        waits += [math.ceil(day.ends_in) for day in days]
        remaining = [
            Remaining(max(0, policy.amount - count), max(1, min(wait, policy.seconds)))
            for policy, count, wait in zip(limits.policies, used, waits, strict=True)
        ]
        return Admission(limits, remaining, _refusal(limits, full, waits))

    def _prepare(self, caller: Caller) -> Limits:
        found: list[tuple[Consumer, str, str, Rate | None, int | None]] = [
            (("user", caller.user_id), "", "A user", self._rate, self._quota)
        ]
        grant = caller.grant
        if grant is not None:
            consumer: Consumer = ("api_key", grant.api_key_id)
            found.append((consumer, "key-", "This API key", grant.rate, grant.quota))
        rates = [(c, name, who, rate) for c, name, who, rate, _ in found if rate is not None]
        quotas = [(c, name, who, quota) for c, name, who, _, quota in found if quota is not None]
        limits = Limits(
            policies=(
                *(Policy(f"{name}rate", rate.amount, rate.seconds) for _, name, _, rate in rates),
                *(Policy(f"{name}quota", amount, _DAY_SECONDS) for _, name, _, amount in quotas),
            ),
            rates=tuple((slot_key(*consumer), rate) for consumer, _, _, rate in rates),
            quotas=tuple(_Quota(c, slot_key(*c), amount) for c, _, _, amount in quotas),
            details=(
                *(f"{who} may make {rate.text} calls; slow down." for _, _, who, rate in rates),
                *(
                    f"{who} may make {amount} calls a day; the next day begins at 00:00 UTC."
                    for _, _, who, amount in quotas
                ),
            ),
        )
        if len(self._prepared) >= _MAX_REMEMBERED:
            del self._prepared[next(iter(self._prepared))]
        self._prepared[caller.api_key_id or caller.user_id] = limits
        return limits


def _refusal(limits: Limits, full: Sequence[bool], waits: Sequence[int]) -> TooManyRequests | None:
    violated = [place for place, is_full in enumerate(full) if is_full]
    if not violated:
        return None
    return TooManyRequests(
        limits.details[violated[0]],
        retry_after=max(1, *(waits[place] for place in violated)),
        policies=tuple(limits.policies[place].name for place in violated),
    )
