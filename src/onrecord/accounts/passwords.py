"""Passwords: which ones are accepted, and how they are hashed without stopping the server."""

from __future__ import annotations

import asyncio
import base64
import re
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import (
    HashingError,
    InvalidHashError,
    VerificationError,
    VerifyMismatchError,
)

from onrecord.errors import Fault, Unavailable

__all__ = [
    "MAX_PASSWORD",
    "MIN_PASSWORD",
    "USERNAME_PATTERN",
    "Passwords",
    "check_email",
    "check_password",
    "check_username",
]

_Result = TypeVar("_Result")

MIN_PASSWORD = 8
MAX_PASSWORD = 1024
_MAX_EMAIL = 254
USERNAME_PATTERN = "^[A-Za-z0-9._@+-]{1,64}$"
_USERNAME = re.compile(USERNAME_PATTERN)
_EMAIL = re.compile(r"[^@\s\x00-\x1f\x7f]+@[^@\s\x00-\x1f\x7f]+")


def _hash_of_nothing(hasher: PasswordHasher) -> str:
    """Return what looks like a hash, and takes as long to verify, but is that of no password."""
    costs = f"m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
    random = (secrets.token_bytes(length) for length in (hasher.salt_len, hasher.hash_len))
    salt, digest = (base64.b64encode(raw).decode().rstrip("=") for raw in random)
    return f"$argon2id$v=19${costs}${salt}${digest}"


class Passwords:
    """Hashes and verifies passwords with argon2id, in threads of its own.

    At most `workers` run at once, since each takes a core and 64 MiB for some 50 ms, and at most
    `max_waiting` more wait for their turn. Every method that waits raises Unavailable where
    more would wait, or where the machine has no memory for it.
    """

    def __init__(
        self,
        hasher: PasswordHasher | None = None,
        workers: int = 2,
        max_waiting: int = 100,
    ) -> None:
        self._hasher = hasher or PasswordHasher()
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="passwords")
        self._places = threading.BoundedSemaphore(workers + max_waiting)
        self._decoy = _hash_of_nothing(self._hasher)

    async def hash(self, password: str) -> str:
        """Return the encoded hash of a password."""
        return await self._run(self.hash_now, password)

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """Tell whether a password is the one that was hashed.

        Without a hash the answer is False, after as much work as with one, so that the time taken
        does not tell whether there is such a user.
        """
        matches = await self._run(self._verify_now, password_hash or self._decoy, password)
        return matches and password_hash is not None

    def needs_rehash(self, password_hash: str) -> bool:
        """Tell whether a hash was made with other parameters than are in use now."""
        return self._hasher.check_needs_rehash(password_hash)

    def hash_now(self, password: str) -> str:
        """Return the encoded hash of a password, in the calling thread.

        Raises Unavailable where the machine has no memory for it.
        """
        try:
            return self._hasher.hash(_as_bytes(password))
        except HashingError as error:
            raise Unavailable("The password cannot be hashed now.", retry_after=2) from error

    def close(self) -> None:
        """Drop what waits and end the threads."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _verify_now(self, password_hash: str, password: str) -> bool:
        try:
            return self._hasher.verify(password_hash, _as_bytes(password))
        except (VerifyMismatchError, InvalidHashError):
            return False
        except VerificationError as error:
            raise Unavailable("The password cannot be verified now.", retry_after=2) from error

    async def _run(self, function: Callable[..., _Result], *arguments: str) -> _Result:
        if not self._places.acquire(blocking=False):
            raise Unavailable("Too many are signing in; try again shortly.", retry_after=2)
        try:
            future = self._executor.submit(function, *arguments)
        except RuntimeError as error:
            self._places.release()
            raise Unavailable("The server is closing.", retry_after=2) from error
        # The place is free when the thread is done, not when the caller stops waiting for it.
        future.add_done_callback(lambda _: self._places.release())
        return await asyncio.wrap_future(future)


def check_username(username: str) -> Fault | None:
    """Return what is wrong with a new user's name, or None."""
    if _USERNAME.fullmatch(username):
        return None
    return Fault(
        "/username",
        "wrong_form",
        "The username has a length or characters that are not accepted.",
        expected="1 to 64 characters: A-Z a-z 0-9 . _ - @ +",
    )


def check_password(password: str, username: str) -> Fault | None:
    """Return what is wrong with a new password of a user, or None.

    The fault never repeats the password.
    """
    expected = f"{MIN_PASSWORD} to {MAX_PASSWORD} characters"
    if len(password) < MIN_PASSWORD:
        return Fault("/password", "too_short", "The password is too short.", expected)
    if len(password) > MAX_PASSWORD:
        return Fault("/password", "too_long", "The password is too long.", expected)
    if not _is_text(password):
        return Fault("/password", "wrong_form", "The password is not valid Unicode.", expected)
    if password.casefold() == username.casefold():
        return Fault(
            "/password", "same_as_username", "The password must differ from the username.", expected
        )
    return None


def check_email(email: str | None) -> Fault | None:
    """Return what is wrong with a new user's e-mail address, or None; None is no address."""
    if email is None:
        return None
    if len(email) <= _MAX_EMAIL and _is_text(email) and _EMAIL.fullmatch(email):
        return None
    return Fault(
        "/email",
        "wrong_form",
        "This is not an e-mail address.",
        expected=f"name@host, at most {_MAX_EMAIL} characters",
    )


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _as_bytes(password: str) -> bytes:
    # A sign-in may send anything; a lone surrogate is just one more wrong password.
    return password.encode("utf-8", "surrogatepass")
