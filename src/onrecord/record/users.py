"""Queries on users; the rules about them are in `onrecord.accounts`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, func, select, update

from onrecord.errors import Conflict
from onrecord.record.ids import is_id, new_id
from onrecord.record.tables import users
from onrecord.record.text import storable
from onrecord.record.upsert import insert_if_missing

__all__ = [
    "User",
    "add",
    "by_id",
    "by_subject",
    "by_username",
    "delete",
    "end_tokens",
    "has_admin",
    "page",
    "rehash",
    "set_disabled",
    "set_password_hash",
    "set_role",
]


@dataclass(frozen=True, slots=True)
class User:
    """A user, deleted ones included.

    `token_version` grows whenever the tokens given out so far must stop working. A deleted user
    has neither `email` nor `password_hash`. Times are in UTC. Where it signs in at an external
    issuer, `issuer` and `subject` say who it is there, and it has no password.
    """

    id: str
    username: str
    email: str | None
    role: str
    token_version: int
    created_at: datetime
    disabled_at: datetime | None
    deleted_at: datetime | None
    password_hash: str | None
    issuer: str | None = None
    subject: str | None = None

    @property
    def may_call(self) -> bool:
        """Whether it is neither disabled nor deleted."""
        return self.disabled_at is None and self.deleted_at is None


_COLUMNS = [users.c[name] for name in User.__dataclass_fields__]


def add(  # noqa: PLR0913 - one argument a property of the user
    connection: Connection,
    *,
    username: str,
    email: str | None,
    password_hash: str | None,
    role: str,
    issuer: str | None = None,
    subject: str | None = None,
) -> User:
    """Add a user and return it.

    Raises Conflict where the name is taken, whatever its case, also by a user since deleted, or
    there is one of that issuer and subject.
    """
    user = User(
        id=new_id(),
        username=storable(username),
        email=None if email is None else storable(email),
        role=role,
        token_version=1,
        created_at=datetime.now(UTC),
        disabled_at=None,
        deleted_at=None,
        password_hash=password_hash,
        issuer=issuer,
        subject=subject,
    )
    values = {name: getattr(user, name) for name in User.__dataclass_fields__}
    if not insert_if_missing(connection, users, {**values, "username_key": _key(username)}):
        raise Conflict("The username is taken.")
    return user


def by_username(connection: Connection, username: str) -> User | None:
    """Return the user with a name, whatever its case; None where there is none."""
    return _one(connection, users.c.username_key == _key(username))


def by_id(connection: Connection, user_id: str) -> User | None:
    """Return the user with an id, or None."""
    return _one(connection, users.c.id == user_id) if is_id(user_id) else None


def by_subject(connection: Connection, issuer: str, subject: str) -> User | None:
    """Return the user who is `subject` at an external issuer, or None."""
    return _one(connection, (users.c.issuer == issuer) & (users.c.subject == subject))


def page(
    connection: Connection, limit: int, after_id: str | None, search: str | None = None
) -> list[User]:
    """Return at most `limit` users, oldest first, that came after the id `after_id`.

    With a `search` only those whose username or e-mail address has it in it, whatever the case.
    """
    query = select(*_COLUMNS).order_by(users.c.id).limit(limit)
    if after_id is not None:
        query = query.where(users.c.id > after_id)
    if search is not None:
        part = _key(search)
        query = query.where(
            users.c.username_key.contains(part, autoescape=True)
            | func.lower(users.c.email).contains(part, autoescape=True)
        )
    return [User(**row._mapping) for row in connection.execute(query)]  # noqa: SLF001


def has_admin(connection: Connection) -> bool:
    """Tell whether an admin exists who can sign in here, not at an external issuer.

    In a transaction for writing no other can change that until this one ends.
    """
    query = select(users.c.id).where(
        users.c.role == "admin",
        users.c.issuer.is_(None),
        users.c.disabled_at.is_(None),
        users.c.deleted_at.is_(None),
    )
    return connection.execute(query.limit(1).with_for_update()).first() is not None


def set_disabled(connection: Connection, user_id: str, disabled: bool) -> None:
    """Disable a user, or enable it again; either way its tokens so far stop working."""
    moment = func.coalesce(users.c.disabled_at, datetime.now(UTC)) if disabled else None
    _change(connection, user_id, disabled_at=moment, token_version=users.c.token_version + 1)


def end_tokens(connection: Connection, user_id: str) -> None:
    """Have the tokens that a user got so far stop working."""
    _change(connection, user_id, token_version=users.c.token_version + 1)


def set_role(connection: Connection, user_id: str, role: str) -> None:
    """Give a user another role."""
    _change(connection, user_id, role=role)


def set_password_hash(connection: Connection, user_id: str, password_hash: str) -> None:
    """Give a user another password; its tokens so far stop working."""
    _change(
        connection,
        user_id,
        password_hash=password_hash,
        token_version=users.c.token_version + 1,
    )


def rehash(connection: Connection, user_id: str, password_hash: str) -> None:
    """Replace the hash of the same password by a stronger one; tokens go on working."""
    _change(connection, user_id, password_hash=password_hash)


def delete(connection: Connection, user_id: str) -> None:
    """Leave only a tombstone: the id, the name and when it was deleted.

    The e-mail address and the password go and tokens stop working. Once deleted, a user stays as
    it is, whatever is asked again.
    """
    _change(
        connection,
        user_id,
        deleted_at=datetime.now(UTC),
        email=None,
        password_hash=None,
        token_version=users.c.token_version + 1,
    )


def _key(username: str) -> str:
    return storable(username).casefold()


def _one(connection: Connection, condition: Any) -> User | None:
    row = connection.execute(select(*_COLUMNS).where(condition)).one_or_none()
    return None if row is None else User(**row._mapping)  # noqa: SLF001


def _change(connection: Connection, user_id: str, **values: Any) -> None:
    """Change a user that is there and not deleted; another is left as it is."""
    if is_id(user_id):
        connection.execute(
            update(users)
            .where(users.c.id == user_id, users.c.deleted_at.is_(None))
            .values(**values)
        )
