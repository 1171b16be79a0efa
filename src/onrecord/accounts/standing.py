"""The gate: whose token this is, and whether that user may still call."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from onrecord.accounts.caller import Caller
from onrecord.accounts.tokens import Claims, Tokens
from onrecord.errors import Unauthenticated
from onrecord.record import users
from onrecord.record.database import Database

__all__ = ["Gate"]

_MAX_CACHED = 10_000


@dataclass(frozen=True, slots=True)
class _Standing:
    """How a user stood in the database; `caller` is None where the user may not call.

    `read_at` is when the reading began, on the monotonic clock.
    """

    caller: Caller | None
    token_version: int
    read_at: float


@dataclass(frozen=True, slots=True)
class _Reading:
    began: float
    task: asyncio.Task[_Standing]


class Gate:
    """Turns the Authorization header of a call into its caller.

    Tokens found valid are remembered until they expire, and how a user stands for
    `freshness_seconds`: so long can a disabled user, a changed role or a withdrawn key go
    unnoticed, and no longer, in every process on the database.
    """

    def __init__(
        self, tokens: Tokens, database: Database, *, freshness_seconds: float = 0.5
    ) -> None:
        self._tokens = tokens
        self._keys = tokens.keys
        self._keys_version = tokens.keys.version
        self._database = database
        self._freshness = freshness_seconds
        self._claims: dict[str | None, Claims] = {}
        self._standings: dict[str, _Standing] = {}
        self._readings: dict[str, _Reading] = {}

    def authenticate_cached(self, header: str | None) -> Caller | None:
        """Return the caller where all that is needed is known and fresh, else None.

        None is no refusal: `authenticate` decides then.
        """
        claims = self._claims.get(header)
        if claims is None:
            return None
        standing = self._standings.get(claims.user_id)
        if (
            standing is None
            or time.monotonic() - standing.read_at >= self._freshness
            or standing.token_version != claims.token_version
            or claims.expires_at <= time.time()
            or self._keys.version != self._keys_version
        ):
            return None
        return standing.caller

    async def authenticate(self, header: str | None) -> Caller:
        """Return the caller of an Authorization header: "Bearer TOKEN" or the token alone.

        Raises Unauthenticated where there is no valid token of a user who may call, and
        Unavailable where the database cannot tell.
        """
        caller = self.authenticate_cached(header)
        if caller is not None:
            return caller
        claims = self._read_token(header)
        standing = await self._standing_for(claims)
        if standing.caller is None or standing.token_version != claims.token_version:
            raise Unauthenticated("The token is no longer valid; sign in again.")
        return standing.caller

    def _read_token(self, header: str | None) -> Claims:
        self._keys.refresh()
        if self._keys.version != self._keys_version:
            self._claims.clear()
            self._keys_version = self._keys.version
        claims = self._claims.get(header)
        if claims is None or claims.expires_at <= time.time():
            self._claims.pop(header, None)
            claims = self._tokens.read(_token_in(header))
            if len(self._claims) >= _MAX_CACHED:
                del self._claims[next(iter(self._claims))]
            self._claims[header] = claims
        return claims

    async def _standing_for(self, claims: Claims) -> _Standing:
        now = time.monotonic()
        standing = await self._read_since(claims.user_id, now - self._freshness)
        if standing.token_version < claims.token_version and standing.read_at < now:
            # The token is younger than what is known: its user has just been let in again.
            standing = await self._read_since(claims.user_id, now)
        return standing

    async def _read_since(self, user_id: str, moment: float) -> _Standing:
        """Return how a user stood in a reading that began at `moment` or later."""
        known = self._standings.get(user_id)
        if known is not None and known.read_at > moment:
            return known
        reading = self._readings.get(user_id)
        if reading is None or reading.began <= moment:
            reading = self._begin_reading(user_id)
        # One caller who leaves must not take the reading away from the others.
        return await asyncio.shield(reading.task)

    def _begin_reading(self, user_id: str) -> _Reading:
        began = time.monotonic()
        reading = _Reading(began, asyncio.create_task(self._read(user_id, began)))
        self._readings[user_id] = reading

        def ended(task: asyncio.Task[_Standing]) -> None:
            if self._readings.get(user_id) is reading:
                del self._readings[user_id]
            if not task.cancelled() and task.exception() is None:
                self._remember(user_id, task.result())

        reading.task.add_done_callback(ended)
        return reading

    async def _read(self, user_id: str, began: float) -> _Standing:
        user = await self._database.run(self._find, user_id)
        if user is None:
            return _Standing(None, 0, began)
        if user.disabled_at is not None or user.deleted_at is not None:
            return _Standing(None, user.token_version, began)
        caller = Caller(user.id, user.username, "admin" if user.role == "admin" else "user")
        return _Standing(caller, user.token_version, began)

    def _find(self, user_id: str) -> users.User | None:
        with self._database.read() as connection:
            return users.by_id(connection, user_id)

    def _remember(self, user_id: str, standing: _Standing) -> None:
        known = self._standings.pop(user_id, None)
        if known is None and len(self._standings) >= _MAX_CACHED:
            del self._standings[next(iter(self._standings))]
        later = known is not None and known.read_at > standing.read_at
        self._standings[user_id] = known if known is not None and later else standing


def _token_in(header: str | None) -> str:
    parts = (header or "").split(maxsplit=1)
    if not parts or (len(parts) == 1 and parts[0].lower() == "bearer"):
        raise Unauthenticated("Send a token: Authorization: Bearer TOKEN.", token_was_sent=False)
    if len(parts) == 1:
        return parts[0]
    scheme, token = parts
    if scheme.lower() != "bearer":
        # RFC 6750, section 3.1: another way of authenticating counts as no token at all.
        raise Unauthenticated(
            "Only bearer tokens are accepted: Authorization: Bearer TOKEN.", token_was_sent=False
        )
    return token.rstrip()
