"""Sessions: a sign-in, the tokens that come of it one after another, and its end."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy import Connection

from onrecord.accounts.opaque import digest_of, head_of, random_text, with_secret
from onrecord.accounts.tokens import Tokens
from onrecord.errors import Unauthenticated
from onrecord.record import sessions, users
from onrecord.record.database import Database
from onrecord.record.ids import new_id
from onrecord.record.sessions import Session
from onrecord.record.users import User

__all__ = ["Issued", "Sessions"]

_HEAD = "onr_refresh_"
_FAMILY = 22  # letters of 62 kinds: 128 bits


@dataclass(frozen=True, slots=True)
class Issued:
    """What a client gets by signing in or refreshing: a token to call with, one to refresh by."""

    access_token: str
    refresh_token: str


class Sessions:
    """The sessions of one database.

    Each has one refresh token, which is good for one use and gives the next; all of them begin
    alike. One that comes a second time has been taken from its client, or used by whoever took it:
    nobody can tell which, so the session ends (RFC 9700, section 4.14.2). There is no period of
    grace. A session can be refreshed for `longest` after the sign-in, and for `idle` after the
    last time. Where the user is disabled, deleted or gets another password it ends, too.

    Every method raises Unavailable where the database is out of reach.
    """

    def __init__(
        self, database: Database, tokens: Tokens, *, longest: timedelta, idle: timedelta
    ) -> None:
        self._database = database
        self._tokens = tokens
        self._longest = longest
        self._idle = idle

    async def begin(self, user: User) -> Issued:
        """Begin a session of a user who has just proved to be it."""
        now = datetime.now(UTC)
        family = _HEAD + random_text(_FAMILY)
        refresh_token = with_secret(family)
        session = Session(
            id=new_id(),
            user_id=user.id,
            token_version=user.token_version,
            family_sha256=digest_of(family),
            refresh_sha256=digest_of(refresh_token),
            created_at=now,
            refreshed_at=now,
            access_expires_at=now + self._tokens.lifetime,
            ended_at=None,
        )

        def add() -> None:
            with self._database.write() as connection:
                long_ago = now - self._longest
                sessions.forget(connection, user.id, created_before=long_ago, now=now)
                sessions.add(connection, session)

        await self._database.run(add)
        return Issued(self._access_token(session), refresh_token)

    async def refresh(self, refresh_token: str) -> tuple[User, Issued]:
        """Return the user of a refresh token and new tokens; this one is spent.

        Raises Unauthenticated where it is not valid. Where it was spent before, that ends the
        session.
        """
        family = _family_of(refresh_token)
        following = with_secret(family)
        now = datetime.now(UTC)

        def rotate() -> tuple[User, Session] | None:
            with self._database.write() as connection:
                session = sessions.by_family(connection, digest_of(family))
                if session is None or not self._may_refresh(session, now):
                    return None
                if session.refresh_sha256 != digest_of(refresh_token):
                    self._end_for_reuse(connection, session, now)
                    return None
                user = users.by_id(connection, session.user_id)
                if user is None or not user.may_call or user.token_version != session.token_version:
                    return None
                sessions.refresh(
                    connection,
                    session.id,
                    refresh_sha256=digest_of(following),
                    now=now,
                    access_expires_at=now + self._tokens.lifetime,
                )
                return user, session

        rotated = await self._database.run(rotate)
        if rotated is None:
            raise _not_valid()
        user, session = rotated
        return user, Issued(self._access_token(session), following)

    async def end(self, token: str) -> None:
        """End the session that a refresh token, spent or not, or an access token belongs to.

        Every process refuses its tokens within a second. Raises Unauthenticated where the token
        is not valid.
        """
        family = _family_of(token) if token.startswith(_HEAD) else None
        session_id = self._tokens.read(token).session_id if family is None else None

        def act() -> None:
            with self._database.write() as connection:
                if family is not None:
                    session = sessions.by_family(connection, digest_of(family))
                    found = None if session is None else session.id
                else:
                    found = session_id
                if found is None:
                    raise _not_valid()
                sessions.end(connection, found, datetime.now(UTC))

        await self._database.run(act)

    def _access_token(self, session: Session) -> str:
        return self._tokens.issue(session.user_id, session.token_version, session.id)

    def _may_refresh(self, session: Session, now: datetime) -> bool:
        until = min(session.created_at + self._longest, session.refreshed_at + self._idle)
        return session.ended_at is None and now < until

    @staticmethod
    def _end_for_reuse(connection: Connection, session: Session, now: datetime) -> None:
        structlog.get_logger("onrecord").warning(
            "a refresh token came a second time; its session is ended",
            session_id=session.id,
            user_id=session.user_id,
        )
        sessions.end(connection, session.id, now)


def _family_of(refresh_token: str) -> str:
    family = head_of(refresh_token)
    if family is None or not family.startswith(_HEAD):
        raise _not_valid()
    return family


def _not_valid() -> Unauthenticated:
    return Unauthenticated("The refresh token is not valid; sign in again.")
