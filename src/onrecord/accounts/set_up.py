"""The first admin: made by whoever can read what the server printed when it started."""

from __future__ import annotations

import hmac
from contextlib import suppress
from pathlib import Path

from onrecord.accounts.opaque import digest_of, head_of, with_secret
from onrecord.accounts.sign_in import Accounts
from onrecord.errors import Conflict, Fault, InvalidInput
from onrecord.private_file import write_private_file
from onrecord.record import users
from onrecord.record.database import Database
from onrecord.record.users import User

__all__ = ["SetUp", "new_code"]

_HEAD = "onr_setup_"


def new_code(file: Path) -> str:
    """Return a new set-up code, whose digest is in `file` now in place of one that was there."""
    code = with_secret(_HEAD)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_private_file(file, digest_of(code).encode())
    return code


class SetUp:
    """Makes the first admin of a database for whoever has the code whose digest is in `file`.

    The code is good for one admin, and for none where there is one.
    """

    def __init__(self, database: Database, accounts: Accounts, file: Path) -> None:
        self._database = database
        self._accounts = accounts
        self._file = file

    async def is_open(self) -> bool:
        """Tell whether there is no admin yet; raises Unavailable without a database."""

        def read() -> bool:
            with self._database.read() as connection:
                return not users.has_admin(connection)

        return await self._database.run(read)

    async def make_admin(self, code: str, username: str, password: str) -> User:
        """Make the first admin; the code is spent then.

        Raises Conflict where there is an admin or the name is taken, InvalidInput with the bad
        fields, of which `/code` is one.
        """
        if not await self.is_open():
            raise Conflict("There is an admin already; sign in.")
        spent = self._file.with_name(f"{self._file.name}.spent")
        if not self._is_code(code):
            raise InvalidInput("Some fields are not acceptable.", faults=(_WRONG,))
        try:
            # Of several who have the code, one renames the file.
            self._file.rename(spent)
        except FileNotFoundError:
            raise InvalidInput("Some fields are not acceptable.", faults=(_WRONG,)) from None
        try:
            user = await self._accounts.create(username, password, None, "admin")
        except BaseException:
            spent.rename(self._file)
            raise
        spent.unlink()
        return user

    def _is_code(self, code: str) -> bool:
        digest = ""
        with suppress(OSError):
            digest = self._file.read_text(encoding="ascii")
        return head_of(code) == _HEAD and hmac.compare_digest(digest_of(code), digest)


_WRONG = Fault(
    "/code", "wrong", "This is not the code that the server printed when it last started."
)
