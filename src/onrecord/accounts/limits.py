"""How often one may fail to sign in, and how often a user may call."""

from __future__ import annotations

import ipaddress
import math
import time

from limits import RateLimitItem, RateLimitItemPerMinute, parse_many
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter, SlidingWindowCounterRateLimiter

from onrecord.errors import SettingsError, TooManyRequests

__all__ = ["CallLimit", "SignInLimit"]

_MAX_NAME = 256
_MAX_FAMILIAR = 10_000
_TIDY_EVERY = 1000


class SignInLimit:
    """At most so many failed sign-ins in any minute, by who tries and for whom.

    They are counted by client address, by address and username, and by username over all addresses
    from which it has not signed in lately. So whoever guesses at a username from elsewhere, from
    however many addresses, does not lock out its owner. Each process counts for itself. Usernames
    count whatever their case; IPv6 addresses count by their /64, since a client commonly has a
    whole one.
    """

    def __init__(self, per_pair: int = 10, per_address: int = 30, per_username: int = 30) -> None:
        self._storage = MemoryStorage()
        self._limiter = MovingWindowRateLimiter(self._storage)
        self._per_pair = RateLimitItemPerMinute(per_pair)
        self._per_address = RateLimitItemPerMinute(per_address)
        self._per_username = RateLimitItemPerMinute(per_username)
        self._familiar: dict[tuple[str, str], None] = {}
        self._failures = 0

    def check(self, username: str, address: str) -> None:
        """Raise TooManyRequests where the failures so far are as many as may be."""
        for item, keys in self._counted(username, address):
            if not self._limiter.test(item, *keys):
                raise self._refusal(item, keys)

    def failed(self, username: str, address: str) -> None:
        """Count one failed sign-in; raises TooManyRequests where it is one too many."""
        self._tidy()
        counted = self._counted(username, address)
        full = [(item, keys) for item, keys in counted if not self._limiter.hit(item, *keys)]
        if full:
            raise self._refusal(*full[0])

    def succeeded(self, username: str, address: str) -> None:
        """Remember that a user has signed in from an address."""
        pair = _name(username), _network(address)
        self._familiar.pop(pair, None)
        if len(self._familiar) >= _MAX_FAMILIAR:
            del self._familiar[next(iter(self._familiar))]
        self._familiar[pair] = None

    def _counted(self, username: str, address: str) -> list[tuple[RateLimitItem, tuple[str, ...]]]:
        name, network = _name(username), _network(address)
        counted: list[tuple[RateLimitItem, tuple[str, ...]]] = [
            (self._per_pair, ("pair", name, network)),
            (self._per_address, ("address", network)),
        ]
        if (name, network) not in self._familiar:
            counted.append((self._per_username, ("username", name)))
        return counted

    def _refusal(self, item: RateLimitItem, keys: tuple[str, ...]) -> TooManyRequests:
        free_at = self._limiter.get_window_stats(item, *keys).reset_time
        return TooManyRequests(
            "Too many sign-ins failed; wait before the next try.",
            retry_after=_seconds_until(free_at),
        )

    def _tidy(self) -> None:
        # The storage forgets old failures but keeps an empty list for every name ever tried, and
        # names are free for anyone to make up.
        self._failures += 1
        if self._failures % _TIDY_EVERY == 0:
            for key in [key for key, events in list(self._storage.events.items()) if not events]:
                self._storage.clear(key)


class CallLimit:
    """At most so many calls a user, such as "100/second" or "5000/hour", in each process.

    The window slides: it weighs the calls of the previous period by how much of it still counts.
    Raises SettingsError where the rate cannot be read.
    """

    def __init__(self, rate: str) -> None:
        try:
            (self._item,) = parse_many(rate)
        except ValueError:
            raise _malformed(rate) from None
        if self._item.amount < 1:
            raise _malformed(rate)
        self._rate = rate
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    def check(self, user_id: str) -> None:
        """Count one call of a user; raises TooManyRequests where it is one too many."""
        if not self._limiter.hit(self._item, user_id):
            free_at = self._limiter.get_window_stats(self._item, user_id).reset_time
            raise TooManyRequests(
                f"A user may make {self._rate} calls; slow down.",
                retry_after=_seconds_until(free_at),
            )


def _malformed(rate: str) -> SettingsError:
    return SettingsError(f"setting call_rate: {rate!r} is not a rate; write one such as 100/second")


def _seconds_until(moment: float) -> int:
    return max(1, math.ceil(moment - time.time()))


def _name(username: str) -> str:
    return username.casefold()[:_MAX_NAME]


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed), 64), strict=False))
