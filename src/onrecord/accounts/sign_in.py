"""Accounts: registering, signing in, and what an admin does with users."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from sqlalchemy import Connection

from onrecord.accounts.caller import Role
from onrecord.accounts.limits import SignInLimit
from onrecord.accounts.passwords import Passwords, check_email, check_password, check_username
from onrecord.errors import Conflict, Fault, InvalidInput, NotFound, Unauthenticated, Unavailable
from onrecord.record import users
from onrecord.record.database import Database
from onrecord.record.users import User

__all__ = ["Accounts"]


class Accounts:
    """The users of one database.

    Every method raises Unavailable where the database is out of reach, and those that take a
    password also where too many passwords wait to be hashed.
    """

    def __init__(
        self,
        database: Database,
        passwords: Passwords,
        sign_in_limit: SignInLimit,
    ) -> None:
        self._database = database
        self._passwords = passwords
        self._limit = sign_in_limit

    async def register(self, username: str, password: str, email: str | None) -> User:
        """Make a user of role "user", as a stranger may where registration is open.

        Raises InvalidInput with every bad field, and Conflict where the name is taken.
        """
        return await self.create(username, password, email, "user")

    async def create(self, username: str, password: str, email: str | None, role: Role) -> User:
        """Make a user of any role; for the operator.

        Raises InvalidInput with every bad field, and Conflict where the name is taken.
        """
        checks = (check_username(username), check_password(password, username), check_email(email))
        _refuse(*(fault for fault in checks if fault is not None))
        password_hash = await self._passwords.hash(password)

        def add() -> User:
            with self._database.write() as connection:
                return users.add(
                    connection,
                    username=username,
                    email=email,
                    password_hash=password_hash,
                    role=role,
                )

        try:
            return await self._database.run(add)
        except Conflict as error:
            fault = Fault("/username", "taken", "Another user has or had this name.")
            raise Conflict(error.detail, faults=(fault,)) from None

    async def sign_in(self, username: str, password: str, address: str) -> User:
        """Return the user whose password it is; `address` is the client's, to count failures.

        Raises Unauthenticated, in the same words and after the same work, where the name is
        unknown, the password wrong or the user disabled or deleted, and TooManyRequests after too
        many failures.
        """
        self._limit.check(username, address)
        user = await self._database.run(self._find, username)
        password_hash = user.password_hash if user is not None and user.may_call else None
        right = await self._passwords.verify(password_hash, password)
        if user is None or password_hash is None or not right:
            self._limit.failed(username, address)
            raise Unauthenticated("The username or password is wrong.", token_was_sent=False)
        # Again: guesses sent all at once are past the first check before any of them has failed.
        self._limit.check(username, address)
        self._limit.succeeded(username, address)
        if self._passwords.needs_rehash(password_hash):
            with contextlib.suppress(Unavailable):
                await self._rehash(user.id, password_hash, password)
        return user

    async def sign_out_everywhere(self, user_id: str) -> None:
        """End every session of a user; its tokens so far stop working, its API keys do not.

        Raises NotFound where there is no such user, and Conflict where it is deleted.
        """
        await self._change(user_id, lambda c: users.end_tokens(c, user_id))

    async def set_disabled(self, user_id: str, *, disabled: bool) -> None:
        """Disable a user, or enable it again; its tokens so far stop working.

        Raises NotFound where there is no such user, and Conflict where it is deleted or the last
        admin.
        """
        await self._change(user_id, lambda c: users.set_disabled(c, user_id, disabled))

    async def set_role(self, user_id: str, role: Role) -> None:
        """Give a user another role.

        Raises NotFound where there is no such user, and Conflict where it is deleted, the last
        admin, or has its role from an external issuer.
        """

        def change(connection: Connection) -> None:
            _signs_in_here(_living(connection, user_id))
            users.set_role(connection, user_id, role)

        await self._change(user_id, change)

    async def set_password(self, user_id: str, password: str) -> None:
        """Give a user another password; its tokens so far stop working.

        Raises InvalidInput where the password is not acceptable, NotFound where there is no such
        user, and Conflict where it is deleted or signs in at an external issuer.
        """
        user = await self._database.run(self._existing, user_id)
        _signs_in_here(user)
        fault = check_password(password, user.username)
        _refuse(*(() if fault is None else (fault,)))
        password_hash = await self._passwords.hash(password)
        await self._change(user_id, lambda c: users.set_password_hash(c, user_id, password_hash))

    async def delete(self, user_id: str) -> None:
        """Delete a user: its e-mail address and password go, its tokens stop working.

        Deleting it again changes nothing. Raises NotFound where there is no such user, and
        Conflict where it is the last admin.
        """

        def act() -> None:
            with self._database.write() as connection:
                user = users.by_id(connection, user_id)
                if user is None:
                    raise _no_such_user()
                users.delete(connection, user_id)
                _leave_an_admin(connection, user)

        await self._database.run(act)

    async def _change(self, user_id: str, change: Callable[[Connection], None]) -> None:
        def act() -> None:
            with self._database.write() as connection:
                user = _living(connection, user_id)
                change(connection)
                _leave_an_admin(connection, user)

        await self._database.run(act)

    async def _rehash(self, user_id: str, old_hash: str, password: str) -> None:
        new_hash = await self._passwords.hash(password)

        def act() -> None:
            with self._database.write() as connection:
                user = users.by_id(connection, user_id)
                # Another password may have been set in the meantime; it must stay.
                if user is not None and user.password_hash == old_hash:
                    users.rehash(connection, user_id, new_hash)

        await self._database.run(act)

    def _find(self, username: str) -> User | None:
        with self._database.read() as connection:
            return users.by_username(connection, username)

    def _existing(self, user_id: str) -> User:
        with self._database.read() as connection:
            return _living(connection, user_id)


def _living(connection: Connection, user_id: str) -> User:
    user = users.by_id(connection, user_id)
    if user is None:
        raise _no_such_user()
    if user.deleted_at is not None:
        raise Conflict("The user has been deleted.")
    return user


def _signs_in_here(user: User) -> None:
    if user.issuer is not None:
        raise Conflict(f"The user signs in at {user.issuer}, which says its role and password.")


def _leave_an_admin(connection: Connection, before: User) -> None:
    """Refuse a change after which nobody could administer; `before` is the user before it."""
    local = before.issuer is None
    if local and before.role == "admin" and before.may_call and not users.has_admin(connection):
        raise Conflict("This is the last admin; make another one first.")


def _refuse(*faults: Fault) -> None:
    if faults:
        raise InvalidInput("Some fields are not acceptable.", faults=faults)


def _no_such_user() -> NotFound:
    return NotFound("There is no such user.")
