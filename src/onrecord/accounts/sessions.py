"""Sessions: a sign-in, the tokens that come of it one after another, and its end."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy import Connection

from onrecord.accounts.opaque import digest_of, head_of, random_text, with_secret
from onrecord.accounts.tokens import Tokens
from onrecord.errors import NotFound, Unauthenticated
from onrecord.record import sessions, users
from onrecord.record.database import Database
from onrecord.record.ids import is_id, new_id
from onrecord.record.sessions import Session
from onrecord.record.users import User

__all__ = ["Held", "Issued", "Sessions", "SignIn"]

_HEAD = "onr_refresh_"
_FAMILY = 22  # letters of 62 kinds: 128 bits
_MOST_LISTED = 50


@dataclass(frozen=True, slots=True)
class Issued:
    """What a client gets by signing in or refreshing: a token to call with, one to refresh by."""

    access_token: str
    refresh_token: str


@dataclass(frozen=True, slots=True)
class Held:
    """The session that a browser holds; `form_secret` is what the forms of its pages hold."""

    id: str | None
    form_secret: str


@dataclass(frozen=True, slots=True)
class SignIn:
    """A session as its user sees it.

    `renewed_at` is when its last token was given out; `ended_at` when somebody ended it. One that
    is not `open` without that has run out, or ended with a password. Times are in UTC.
    """

    id: str
    begun_at: datetime
    renewed_at: datetime
    ended_at: datetime | None
    open: bool


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
                if session is None:
                    return None
                return self._rotate(connection, session, refresh_token, following, now)

        rotated = await self._database.run(rotate)
        if rotated is None:
            raise _not_valid()
        user, session = rotated
        return user, Issued(self._access_token(session), following)

    async def renew(self, access_token: str, refresh_token: str) -> Issued | None:
        """Return new tokens for a browser whose access token has less than half its time left.

        None where it has more, or is not the session's newest: a browser sends the same pair with
        several requests at once. One of them refreshes; the others go on with a token that is
        valid still, and must not be taken for thieves. Raises Unauthenticated where the access
        token is not valid, or either is of no session of the other.
        """
        claims = self._tokens.read(access_token)
        lifetime = self._tokens.lifetime
        now = datetime.now(UTC)
        expires_at = datetime.fromtimestamp(claims.expires_at, UTC)
        if expires_at - now > lifetime / 2:
            return None
        family = _family_of(refresh_token)
        following = with_secret(family)

        def rotate() -> Session | None:
            with self._database.write() as connection:
                session = sessions.by_family(connection, digest_of(family))
                if session is None or session.id != claims.session_id:
                    raise _not_valid()
                # The newest token expires then, to about a second; a newer one half a life later.
                if session.access_expires_at > expires_at + lifetime / 4:
                    return None
                rotated = self._rotate(connection, session, refresh_token, following, now)
            return None if rotated is None else rotated[1]

        session = await self._database.run(rotate)
        return None if session is None else Issued(self._access_token(session), following)

    def held(self, access_token: str) -> Held:
        """Return the session of an access token; raises Unauthenticated where that is not valid."""
        claims = self._tokens.read(access_token)
        text = f"console form {claims.session_id or claims.user_id}"
        return Held(claims.session_id, self._tokens.bound_to(access_token, text))

    async def of_user(self, user_id: str) -> list[SignIn]:
        """Return the newest sessions of a user, ended ones included."""
        now = datetime.now(UTC)

        def read() -> list[SignIn]:
            with self._database.read() as connection:
                user = users.by_id(connection, user_id)
                found = sessions.of_user(connection, user_id, _MOST_LISTED)
            version = None if user is None or not user.may_call else user.token_version
            return [
                SignIn(
                    it.id,
                    it.created_at,
                    it.refreshed_at,
                    it.ended_at,
                    it.token_version == version
                    and it.ended_at is None
                    and (now < it.access_expires_at or self._may_refresh(it, now)),
                )
                for it in found
            ]

        return await self._database.run(read)

    async def end_of_user(self, user_id: str, session_id: str) -> None:
        """End one session of a user; raises NotFound where it is not the user's.

        Every process refuses its tokens within a second.
        """

        def act() -> None:
            with self._database.write() as connection:
                now = datetime.now(UTC)
                if not is_id(session_id) or not sessions.end(
                    connection, session_id, now, user_id=user_id
                ):
                    raise NotFound("There is no such session.")

        await self._database.run(act)

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

    def _rotate(
        self,
        connection: Connection,
        session: Session,
        refresh_token: str,
        following: str,
        now: datetime,
    ) -> tuple[User, Session] | None:
        """Have `following` be the session's refresh token; None where this one is not valid."""
        if not self._may_refresh(session, now):
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
