"""The gate: whose token or API key this is, and whether that user may still call."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime

from onrecord.accounts.api_keys import is_api_key
from onrecord.accounts.bearer import bearer_token
from onrecord.accounts.caller import Caller, role_of
from onrecord.accounts.external import ExternalTokens
from onrecord.accounts.external_standing import ExternalStandings
from onrecord.accounts.fresh import Fresh
from onrecord.accounts.key_standing import KeyStandings
from onrecord.accounts.tokens import Claims, Tokens
from onrecord.errors import Unauthenticated
from onrecord.record import sessions, users
from onrecord.record.database import Database

__all__ = ["Gate"]

_MAX_CACHED = 10_000


@dataclass(frozen=True, slots=True)
class _Standing:
    """How a user stood in the database; `caller` is None where the user may not call.

    `ended_sessions` are those whose tokens would be valid still; `read_at` is when the reading
    began, on the monotonic clock.
    """

    caller: Caller | None
    token_version: int
    ended_sessions: frozenset[str]
    read_at: float


class Gate:
    """Turns the Authorization header of a call into its caller.

    Tokens found valid are remembered until they expire, and how a user or an API key stands for
    `freshness_seconds`: so long can a disabled user, a changed role, an ended session, a withdrawn
    signing key or a revoked API key go unnoticed, and no longer, in every process on the database.
    While the database is away, callers it told of in the last `stale_seconds` go on.
    With `external` the tokens of an external issuer are accepted, too.
    """

    def __init__(
        self,
        tokens: Tokens,
        database: Database,
        *,
        external: ExternalTokens | None = None,
        freshness_seconds: float = 0.5,
        stale_seconds: float = 0.0,
    ) -> None:
        self._tokens = tokens
        self._keys = tokens.keys
        self._keys_version = tokens.keys.version
        self._database = database
        self._freshness = freshness_seconds
        self._claims: dict[str | None, Claims] = {}
        self._standings: Fresh[str, _Standing] = Fresh(
            self._read, max_remembered=_MAX_CACHED, stale_seconds=stale_seconds
        )
        self._api_keys = KeyStandings(
            database,
            freshness_seconds=freshness_seconds,
            stale_seconds=stale_seconds,
            max_remembered=_MAX_CACHED,
        )
        self._external = (
            None
            if external is None
            else ExternalStandings(
                external,
                database,
                freshness_seconds=freshness_seconds,
                stale_seconds=stale_seconds,
                max_remembered=_MAX_CACHED,
            )
        )

    def is_external(self, token: str) -> bool:
        """Tell whether a token says that it is one of the external issuer's."""
        return self._external is not None and self._external.names_issuer(token)

    def authenticate_cached(self, header: str | None) -> Caller | None:
        """Return the caller where all that is needed is known and fresh, else None.

        None is no refusal: `authenticate` decides then.
        """
        claims = self._claims.get(header)
        if claims is None:
            caller = self._api_keys.caller_cached(header)
            if caller is None and self._external is not None:
                caller = self._external.caller_cached(header)
            return caller
        standing = self._standings.get(claims.user_id)
        if (
            standing is None
            or time.monotonic() - standing.read_at >= self._freshness
            or standing.token_version != claims.token_version
            or claims.session_id in standing.ended_sessions
            or claims.expires_at <= time.time()
            or self._keys.version != self._keys_version
        ):
            return None
        return standing.caller

    async def authenticate(self, header: str | None) -> Caller:
        """Return the caller of an Authorization header: "Bearer TOKEN" or the token alone.

        An API key is sent as a token is. Raises Unauthenticated where there is no valid token or
        key of a user who may call, Forbidden where a token of the external issuer has no role
        here, and Unavailable where the database or the issuer cannot tell.
        """
        caller = self.authenticate_cached(header)
        if caller is not None:
            return caller
        token = bearer_token(header)
        if is_api_key(token):
            return await self._api_keys.caller(header)
        if self._external is not None and self._external.names_issuer(token):
            return await self._external.caller(header)
        claims = self._read_token(header)
        standing = await self._standing_for(claims)
        if (
            standing.caller is None
            or standing.token_version != claims.token_version
            or claims.session_id in standing.ended_sessions
        ):
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
            claims = self._tokens.read(bearer_token(header))
            if len(self._claims) >= _MAX_CACHED:
                del self._claims[next(iter(self._claims))]
            self._claims[header] = claims
        return claims

    async def _standing_for(self, claims: Claims) -> _Standing:
        now = time.monotonic()
        standing = await self._standings.since(claims.user_id, now - self._freshness)
        if standing.token_version < claims.token_version and standing.read_at < now:
            # The token is younger than what is known: its user has just been let in again.
            standing = await self._standings.since(claims.user_id, now)
        return standing

    async def _read(self, user_id: str, began: float) -> _Standing:
        user, ended = await self._database.run(self._find, user_id)
        if user is None:
            return _Standing(None, 0, ended, began)
        if not user.may_call:
            return _Standing(None, user.token_version, ended, began)
        caller = Caller(user.id, user.username, role_of(user.role))
        return _Standing(caller, user.token_version, ended, began)

    def _find(self, user_id: str) -> tuple[users.User | None, frozenset[str]]:
        with self._database.read() as connection:
            user = users.by_id(connection, user_id)
            if user is None:
                return None, frozenset()
            return user, sessions.ended(connection, user_id, datetime.now(UTC))
