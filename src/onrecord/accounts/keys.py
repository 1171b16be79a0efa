"""The keys that sign tokens: at most two live ones, so that they can be rotated.

The file is JSON: {"keys": [{"kid": "...", "secret": "<base64url>"}, ...]}; the first key signs.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import structlog

from onrecord.errors import SettingsError
from onrecord.file_lock import locked
from onrecord.private_file import write_private_file

__all__ = ["Key", "KeyRing"]

_MIN_SECRET = 32
_MAX_KEYS = 2
_KID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_OTHERS = 0o077

_Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Key:
    """One signing key: the name that tokens carry, and at least 32 secret bytes."""

    kid: str
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not _KID.fullmatch(self.kid):
            raise SettingsError("a key's name must be 1 to 64 characters: A-Z a-z 0-9 . _ -")
        if len(self.secret) < _MIN_SECRET:
            # Without the name: a secret may have been put in its place.
            raise SettingsError(f"a secret must have at least {_MIN_SECRET} characters")


class KeyRing:
    """One or two keys; the first signs new tokens, and tokens of either are valid.

    `version` grows whenever other keys are read from the file. Raises SettingsError where the
    keys are none, too many or share a name.
    """

    def __init__(self, keys: Sequence[Key]) -> None:
        self.version = 0
        self._path: Path | None = None
        self._stamp: _Stamp | None = None
        self._keys = _checked(keys)

    @classmethod
    def from_file(cls, path: Path | str) -> Self:
        """Return the keys in a file, which is made with a new key where it is missing.

        Safe where several processes do so at once: all get the same key. Raises SettingsError
        where the file cannot be read or made, is malformed, or can be read by other users.
        """
        path = Path(path)
        if _is_missing(path):
            with _locked(path):
                if _is_missing(path):
                    _write(path, [_new_key()])
        keys, stamp = _read(path)
        ring = cls(keys)
        ring._path, ring._stamp = path, stamp
        return ring

    @classmethod
    def from_secrets(cls, text: str) -> Self:
        """Return the keys in a setting, "kid:secret" or "kid:secret,kid:secret"; the first signs.

        Raises SettingsError where the text is malformed or a secret has fewer than 32 characters.
        """
        keys = []
        for item in text.split(","):
            kid, colon, secret = item.strip().partition(":")
            if not colon:
                raise SettingsError("setting token_secrets: write KID:SECRET[,KID:SECRET]")
            try:
                keys.append(Key(kid, secret.encode()))
            except (SettingsError, UnicodeEncodeError) as error:
                reason = error if isinstance(error, SettingsError) else "a secret is not text"
                raise SettingsError(f"setting token_secrets: {reason}") from None
        try:
            return cls(keys)
        except SettingsError as error:
            raise SettingsError(f"setting token_secrets: {error}") from None

    @staticmethod
    def rotate_file(path: Path | str) -> str:
        """Add a new key that signs from now on, keep the one before it, and return its name.

        Running servers take it up by themselves. Raises SettingsError as `from_file` does, and
        where the file is missing.
        """
        path = Path(path)
        with _locked(path):
            keys, _ = _read(path)
            new = _new_key()
            _write(path, [new, keys[0]])
        return new.kid

    def signing_key(self) -> Key:
        """Return the key that signs new tokens."""
        self.refresh()
        return self._keys[0]

    def secret_of(self, kid: str) -> bytes | None:
        """Return the secret of a key by its name; None where there is no such key."""
        self.refresh()
        return next((key.secret for key in self._keys if key.kid == kid), None)

    def refresh(self) -> None:
        """Read the file again where it has changed; a file that became unusable is not taken up."""
        if self._path is None:
            return
        try:
            stamp = _stamp_of(self._path.stat())
        except OSError:
            stamp = None
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            keys, self._stamp = _read(self._path)
        except SettingsError as error:
            structlog.get_logger("onrecord").warning(
                "the token keys cannot be read again; those read before stay", reason=str(error)
            )
            return
        if keys != self._keys:
            self._keys = keys
            self.version += 1


def _new_key() -> Key:
    return Key(secrets.token_hex(8), secrets.token_bytes(_MIN_SECRET))


def _checked(keys: Sequence[Key]) -> tuple[Key, ...]:
    if not 1 <= len(keys) <= _MAX_KEYS:
        raise SettingsError("one or two keys are needed")
    if len({key.kid for key in keys}) < len(keys):
        raise SettingsError("the keys need different names")
    return tuple(keys)


def _is_missing(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


def _stamp_of(status: os.stat_result) -> _Stamp:
    return status.st_mtime_ns, status.st_ino, status.st_size


def _read(path: Path) -> tuple[tuple[Key, ...], _Stamp]:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_mode & _OTHERS:
                raise SettingsError(
                    f"{path}: other users can read or change the token keys; run chmod 600 {path}"
                )
            content = json.loads(file.read())
        return _checked([_parse(item) for item in content["keys"]]), _stamp_of(status)
    except SettingsError as error:
        text = str(error)
        raise SettingsError(text if text.startswith(str(path)) else f"{path}: {text}") from None
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        # Without its cause: that can hold a piece of a secret.
        raise SettingsError(
            f"{path}: this is not a file of token keys; move it away to have a new one made"
        ) from None


def _parse(item: dict[str, Any]) -> Key:
    try:
        return Key(item["kid"], base64.b64decode(item["secret"], altchars=b"-_", validate=True))
    except binascii.Error:
        raise SettingsError("a secret is not base64url") from None


def _write(path: Path, keys: Sequence[Key]) -> None:
    """Put the keys in place in one step, so that no reader sees half a file; hold the lock."""
    content = {
        "keys": [
            {"kid": key.kid, "secret": base64.urlsafe_b64encode(key.secret).decode()}
            for key in keys
        ]
    }
    try:
        write_private_file(path, json.dumps(content).encode())
    except OSError as error:
        raise SettingsError(f"{path}: cannot be written: {error.strerror}") from error


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock on a key file among processes; makes its folder where that is missing."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(path.with_name(f".{path.name}.lock")))
        except OSError as error:
            raise SettingsError(f"{path}: cannot be written: {error.strerror}") from error
        yield
