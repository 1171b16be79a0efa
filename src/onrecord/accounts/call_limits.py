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
    `detail` is what a call is told that is one too many.
    """

    name: str
    amount: int
    seconds: int
    detail: str


@dataclass(frozen=True, slots=True, eq=False)
class Limits:
    """All that limits one caller: its rates and then its quotas, in the order of `policies`."""

    policies: tuple[Policy, ...]
    rates: tuple[tuple[bytes, Rate], ...]
    quotas: tuple[tuple[bytes, Consumer], ...]


@dataclass(slots=True)  # not frozen: making one would take five times as long
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
                days = [day for key, _ in limits.quotas if (day := counts.today(key))]
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
                unread = [who for key, who in limits.quotas if counts.today(key) is None]
            for consumer in unread:
                await self._days.read(consumer)
        raise Unavailable("The calls of today cannot be counted now.", retry_after=1)

    def _decide(self, limits: Limits, rates: Sequence[Window], days: Sequence[Day]) -> Admission:
        counts: list[Window | Day] = [*rates, *days]
        violated = []
        for policy, count in zip(limits.policies, counts, strict=True):
            if count.total >= policy.amount:
                violated.append((policy, count))
        if not violated:
            for window in rates:
                self._windows.add(window)
            for (_, consumer), day in zip(limits.quotas, days, strict=True):
                if self._days.add(day):
                    self._days.read_later(consumer)
        remaining = []
        for policy, count in zip(limits.policies, counts, strict=True):
            seconds = min(math.ceil(count.frees_in), policy.seconds)
            remaining.append(Remaining(max(0, policy.amount - count.total), max(1, seconds)))
        return Admission(limits, remaining, _refusal(violated) if violated else None)

    def _prepare(self, caller: Caller) -> Limits:
        found: list[tuple[Consumer, str, str, Rate | None, int | None]] = [
            (("user", caller.user_id), "", "A user", self._rate, self._quota)
        ]
        grant = caller.grant
        if grant is not None:
            of_key: Consumer = ("api_key", grant.api_key_id)
            found.append((of_key, "key-", "This API key", grant.rate, grant.quota))
        rates, quotas, rate_policies, quota_policies = [], [], [], []
        for consumer, prefix, who, rate, quota in found:
            key = slot_key(*consumer)
            if rate is not None:
                rates.append((key, rate))
                told = f"{who} may make {rate.text} calls; slow down."
                rate_policies.append(Policy(f"{prefix}rate", rate.amount, rate.seconds, told))
            if quota is not None:
                quotas.append((key, consumer))
                told = f"{who} may make {quota} calls a day; the next day begins at 00:00 UTC."
                quota_policies.append(Policy(f"{prefix}quota", quota, _DAY_SECONDS, told))
        limits = Limits((*rate_policies, *quota_policies), tuple(rates), tuple(quotas))
        if len(self._prepared) >= _MAX_REMEMBERED:
            del self._prepared[next(iter(self._prepared))]
        self._prepared[caller.api_key_id or caller.user_id] = limits
        return limits


def _refusal(violated: Sequence[tuple[Policy, Window | Day]]) -> TooManyRequests:
    return TooManyRequests(
        violated[0][0].detail,
        retry_after=max(1, *(math.ceil(count.frees_in) for _, count in violated)),
        policies=tuple(policy.name for policy, _ in violated),
    )
