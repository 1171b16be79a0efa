"""Whose token of an external issuer this is, and whether that user may call."""

from __future__ import annotations

import time
from dataclasses import dataclass

import structlog
from sqlalchemy import Connection

from onrecord.accounts.bearer import bearer_token
from onrecord.accounts.caller import Caller
from onrecord.accounts.external import ExternalClaims, ExternalTokens
from onrecord.accounts.fresh import Fresh
from onrecord.accounts.opaque import random_text
from onrecord.errors import Conflict, Unauthenticated
from onrecord.record import users
from onrecord.record.database import Database

__all__ = ["ExternalStandings"]

_MAX_USERNAME = 64
_TAIL = 6


@dataclass(frozen=True, slots=True)
class _Known:
    """A token found valid, and its caller as long as its user may call."""

    claims: ExternalClaims
    caller: Caller


@dataclass(frozen=True, slots=True)
class _Standing:
    """How a user stood; None where there is none. `read_at` is on the monotonic clock."""

    user: users.User | None
    read_at: float

    @property
    def may_call(self) -> bool:
        return self.user is not None and self.user.may_call


class ExternalStandings:
    """Turns an Authorization header with a token of the issuer into its caller.

    Whoever the issuer gives a token for is a user here from the first one on, known by the issuer
    and the token's subject: its name never makes it another. It has the role that its token says;
    the database has the one of the token that came last. Tokens found valid are remembered until
    they expire or the issuer changes its keys, and how a user stands for `freshness_seconds`
    (`stale_seconds` while the database is away), both for at most `max_remembered`.
    """

    def __init__(
        self,
        tokens: ExternalTokens,
        database: Database,
        *,
        freshness_seconds: float,
        stale_seconds: float,
        max_remembered: int,
    ) -> None:
        self._tokens = tokens
        self._keys = tokens.keys
        self._keys_version = tokens.keys.version
        self._database = database
        self._freshness = freshness_seconds
        self._max_remembered = max_remembered
        self._known: dict[str | None, _Known] = {}
        self._standings: Fresh[str, _Standing] = Fresh(
            self._read, max_remembered=max_remembered, stale_seconds=stale_seconds
        )

    def names_issuer(self, token: str) -> bool:
        """Tell whether a token says that it is the issuer's."""
        return self._tokens.names_issuer(token)

    def caller_cached(self, header: str | None) -> Caller | None:
        """Return the caller where all that is needed is known and fresh, else None."""
        known = self._known.get(header)
        if known is None:
            return None
        standing = self._standings.get(known.claims.subject)
        if (
            standing is None
            or time.monotonic() - standing.read_at >= self._freshness
            or not standing.may_call
            or known.claims.expires_at <= time.time()
            or self._keys.version != self._keys_version
        ):
            return None
        return known.caller

    async def caller(self, header: str | None) -> Caller:
        """Return the caller of a header with a token of the issuer.

        Raises Unauthenticated where the token is not valid or its user is disabled or deleted
        here, Forbidden where it has no role that may call, and Unavailable where the issuer or the
        database cannot tell.
        """
        self._forget_where_the_keys_changed()
        known = self._known.get(header)
        if known is not None and known.claims.expires_at <= time.time():
            del self._known[header]
            known = None
        claims = await self._tokens.read(bearer_token(header)) if known is None else known.claims
        read_with = self._keys.version
        user = await self._user_of(claims)
        if not user.may_call:
            raise Unauthenticated("The user of this token may not call this server.")
        if known is not None:
            return known.caller
        if user.role != claims.role:
            await self._database.run(self._note_role, user.id, claims.role)
        caller = Caller(user.id, user.username, claims.role)
        self._forget_where_the_keys_changed()
        if self._keys.version == read_with:
            self._remember(header, _Known(claims, caller))
        return caller

    async def _user_of(self, claims: ExternalClaims) -> users.User:
        moment = time.monotonic() - self._freshness
        while (standing := await self._standings.since(claims.subject, moment)).user is None:
            await self._database.run(self._welcome, claims)
            moment = time.monotonic()
        return standing.user

    def _forget_where_the_keys_changed(self) -> None:
        if self._keys.version != self._keys_version:
            self._known.clear()
            self._keys_version = self._keys.version

    def _remember(self, header: str | None, known: _Known) -> None:
        if len(self._known) >= self._max_remembered:
            del self._known[next(iter(self._known))]
        self._known[header] = known

    async def _read(self, subject: str, began: float) -> _Standing:
        def find() -> users.User | None:
            with self._database.read() as connection:
                return users.by_subject(connection, self._tokens.issuer, subject)

        return _Standing(await self._database.run(find), began)

    def _welcome(self, claims: ExternalClaims) -> None:
        """Make a user; it may have been made by another process a moment ago.

        A name that another user has or had is not shared: the newcomer's gets a tail.
        """
        with self._database.write() as connection:
            name = claims.username
            while users.by_subject(connection, self._tokens.issuer, claims.subject) is None:
                if self._add(connection, name, claims):
                    return
                tail = f"+{random_text(_TAIL).lower()}"
                name = claims.username[: _MAX_USERNAME - len(tail)] + tail

    def _add(self, connection: Connection, name: str, claims: ExternalClaims) -> bool:
        try:
            user = users.add(
                connection,
                username=name,
                email=None,
                password_hash=None,
                role=claims.role,
                issuer=self._tokens.issuer,
                subject=claims.subject,
            )
        except Conflict:
            return False
        structlog.get_logger("onrecord").info(
            "a user of the external issuer came for the first time",
            user_id=user.id,
            username=user.username,
        )
        return True

    def _note_role(self, user_id: str, role: str) -> None:
        with self._database.write() as connection:
            users.set_role(connection, user_id, role)
