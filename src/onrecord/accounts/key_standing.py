"""Whose API key this is, and whether it may still be called with."""

from __future__ import annotations

import asyncio
import hmac
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog

from onrecord.accounts.bearer import bearer_token
from onrecord.accounts.caller import Caller, Grant, role_of
from onrecord.accounts.fresh import Fresh
from onrecord.accounts.opaque import digest_of, head_of
from onrecord.accounts.rates import parse_rate
from onrecord.errors import Unauthenticated, Unavailable
from onrecord.record import api_keys, users
from onrecord.record.api_keys import ApiKey
from onrecord.record.database import Database

__all__ = ["KeyStandings"]

_USE_NOTED_EVERY = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class _Standing:
    """How a key and its owner stood; `caller` is None where it may not be called with.

    `expires_at` is in seconds since the epoch, `read_at` on the monotonic clock.
    """

    caller: Caller | None
    expires_at: float
    read_at: float


class KeyStandings:
    """Turns an Authorization header with an API key into its caller.

    How a key stands is remembered for `freshness_seconds`, for `stale_seconds` while the database
    is away, and for at most `max_remembered` keys.
    """

    def __init__(
        self,
        database: Database,
        *,
        freshness_seconds: float,
        stale_seconds: float,
        max_remembered: int,
    ) -> None:
        self._database = database
        self._freshness = freshness_seconds
        self._standings: Fresh[str | None, _Standing] = Fresh(
            self._read, max_remembered=max_remembered, stale_seconds=stale_seconds
        )
        self._notes: set[asyncio.Task[None]] = set()

    def caller_cached(self, header: str | None) -> Caller | None:
        """Return the caller where all that is needed is known and fresh, else None."""
        standing = self._standings.get(header)
        if (
            standing is None
            or time.monotonic() - standing.read_at >= self._freshness
            or standing.expires_at <= time.time()
        ):
            return None
        return standing.caller

    async def caller(self, header: str | None) -> Caller:
        """Return the caller of a header with an API key.

        Raises Unauthenticated where the key is not valid or its owner may not call, and
        Unavailable where the database cannot tell.
        """
        standing = await self._standings.since(header, time.monotonic() - self._freshness)
        if standing.caller is None or standing.expires_at <= time.time():
            raise Unauthenticated("The API key is no longer valid.")
        return standing.caller

    async def _read(self, header: str | None, began: float) -> _Standing:
        secret = bearer_token(header)
        prefix = head_of(secret)
        if prefix is None:
            raise Unauthenticated("The API key is malformed; it must be copied whole.")
        key, owner = await self._database.run(self._find, prefix)
        if key is None or not hmac.compare_digest(key.key_sha256, digest_of(secret)):
            raise Unauthenticated("There is no such API key.")
        if key.revoked_at is not None or owner is None or not owner.may_call:
            return _Standing(None, 0, began)
        self._note_use(key)
        grant = Grant(
            key.id,
            frozenset(key.scopes),
            None if key.models is None else frozenset(key.models),
            test=key.kind == "test",
            rate=None if key.rate is None else parse_rate(key.rate),
            quota=key.quota,
        )
        caller = Caller(owner.id, owner.username, role_of(owner.role), grant)
        return _Standing(caller, key.expires_at.timestamp(), began)

    def _find(self, prefix: str) -> tuple[ApiKey | None, users.User | None]:
        with self._database.read() as connection:
            key = api_keys.by_prefix(connection, prefix)
            return key, None if key is None else users.by_id(connection, key.user_id)

    def _note_use(self, key: ApiKey) -> None:
        """Have it put down, about once a minute, that a key is in use; no call waits for that."""
        now = datetime.now(UTC)
        noted_lately = key.last_used_at is not None and key.last_used_at > now - _USE_NOTED_EVERY
        if noted_lately or key.expires_at <= now:
            return
        note = asyncio.create_task(self._write_use(key.id, now))
        self._notes.add(note)
        note.add_done_callback(self._notes.discard)

    async def _write_use(self, key_id: str, now: datetime) -> None:
        def write() -> None:
            with self._database.write() as connection:
                api_keys.mark_used(connection, key_id, now, unless_since=now - _USE_NOTED_EVERY)

        try:
            await self._database.run(write)
        except Unavailable as error:
            structlog.get_logger("onrecord").warning(
                "the use of an API key could not be noted", api_key_id=key_id, reason=error.detail
            )
