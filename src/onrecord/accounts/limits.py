"""How often one may fail to sign in."""

from __future__ import annotations

import ipaddress
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from onrecord.accounts.rates import Rate
from onrecord.accounts.shared_slots import SharedSlots, slot_key
from onrecord.accounts.windows import Window, Windows
from onrecord.errors import TooManyRequests

__all__ = ["SignInLimit"]

_MAX_NAME = 256
_MAX_FAMILIAR = 10_000


class SignInLimit:
    """At most so many failed sign-ins in any minute, by who tries and for whom.

    They are counted by client address, by address and username, and by username over all addresses
    from which it has not signed in lately. So whoever guesses at a username from elsewhere, from
    however many addresses, does not lock out its owner. All who are given the same `directory`
    count together, as the workers of a server do. Usernames count whatever their case; IPv6
    addresses count by their /64, since a client commonly has a whole one.
    """

    def __init__(  # noqa: PLR0913 - one argument a limit
        self,
        per_pair: int = 10,
        per_address: int = 30,
        per_username: int = 30,
        *,
        directory: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
        max_familiar: int = _MAX_FAMILIAR,
    ) -> None:
        self._per_pair = _a_minute(per_pair)
        self._per_address = _a_minute(per_address)
        self._per_username = _a_minute(per_username)
        self._clock = clock
        self._failures = Windows(
            None if directory is None else directory / "failed-sign-ins", clock=clock
        )
        self._familiar = SharedSlots(
            None if directory is None else directory / "familiar-addresses",
            size=0,
            slots=max_familiar,
        )

    def check(self, username: str, address: str) -> None:
        """Raise TooManyRequests where the failures so far are as many as may be."""
        counted = self._counted(username, address)
        with self._failures as failures:
            windows = [failures.read(key, rate) for key, rate in counted]
        _refuse_if_any(window for window in windows if window.full)

    def failed(self, username: str, address: str) -> None:
        """Count one failed sign-in; raises TooManyRequests where it is one too many."""
        counted = self._counted(username, address)
        with self._failures as failures:
            windows = [failures.read(key, rate) for key, rate in counted]
            full = [window for window in windows if window.full]
            for window in windows:
                if not window.full:
                    failures.add(window)
        _refuse_if_any(full)

    def succeeded(self, username: str, address: str) -> None:
        """Remember that a user has signed in from an address; what is longest ago is forgotten."""
        key = slot_key(_name(username), _network(address))
        now = self._clock()
        with self._familiar as familiar:
            place = familiar.find(key)
            if place is None:
                place = familiar.make_room(key, now)
            familiar.write(place, key, b"", ends_at=math.inf, rank=int(now * 1e6))

    def _counted(self, username: str, address: str) -> list[tuple[bytes, Rate]]:
        name, network = _name(username), _network(address)
        counted = [
            (slot_key("pair", name, network), self._per_pair),
            (slot_key("address", network), self._per_address),
        ]
        with self._familiar as familiar:
            is_familiar = familiar.find(slot_key(name, network)) is not None
        if not is_familiar:
            counted.append((slot_key("username", name), self._per_username))
        return counted


def _a_minute(amount: int) -> Rate:
    return Rate(f"{amount}/minute", amount, 60)


def _refuse_if_any(full: Iterable[Window]) -> None:
    for window in full:
        raise TooManyRequests(
            "Too many sign-ins failed; wait before the next try.",
            retry_after=max(1, math.ceil(window.frees_in)),
        )


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
