"""Signed tree heads: C2SP tlog-checkpoint texts, as signed notes, by Ed25519 keys.

A note is the checkpoint (the record's name, the tree's size, its root, the time), an empty line and
the signature. Keys are written as the note format has them, the secret one as Go's `note` package
does, so that other tools for transparency logs can read both.
Sources: c2sp.org/tlog-checkpoint and c2sp.org/signed-note.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from onrecord.errors import SealError
from onrecord.file_lock import locked
from onrecord.private_file import write_private_file
from onrecord.record.tables import utc_text

__all__ = ["Head", "PublicKey", "SigningKey", "open_note"]

_ED25519 = b"\x01"
_KEY_BYTES = 32
_SECRET = "PRIVATE+KEY+"  # noqa: S105 - how the file of one begins
_OTHERS = 0o077
_DASH = "\N{EM DASH} "
_TIME = "time "


@dataclass(frozen=True, slots=True)
class Head:
    """What is signed: the record named `origin` had `size` calls with this root at that time."""

    origin: str
    size: int
    root: bytes
    signed_at: datetime

    def text(self) -> str:
        """Return the checkpoint's text."""
        root = base64.b64encode(self.root).decode()
        return f"{self.origin}\n{self.size}\n{root}\n{_TIME}{utc_text(self.signed_at)}\n"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """The key that checks a record's heads; as text it is one line, NAME+HASH+KEY."""

    name: str
    raw: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a key's line; raises SealError where it is none."""
        try:
            name, number, data = text.strip().split("+", 2)
            decoded = base64.b64decode(data, validate=True)
            key = cls(name, decoded[1:])
            if decoded[:1] != _ED25519 or len(key.raw) != _KEY_BYTES or key.id.hex() != number:
                raise ValueError
        except (ValueError, binascii.Error):
            raise SealError(
                "this is not a public key of the seal; `onrecord seal key` prints one"
            ) from None
        return key

    @property
    def id(self) -> bytes:
        """The four bytes by which a signature names its key."""
        return sha256(self.name.encode() + b"\n" + _ED25519 + self.raw).digest()[:4]

    def has_signed(self, message: bytes, signature: bytes) -> bool:
        """Tell whether a signature is this key's under a message."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except InvalidSignature:
            return False
        return True

    def __str__(self) -> str:
        data = base64.b64encode(_ED25519 + self.raw).decode()
        return f"{self.name}+{self.id.hex()}+{data}"


class SigningKey:
    """The key that signs a record's heads."""

    def __init__(self, name: str, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self._seed = seed
        self.public = PublicKey(name, self._key.public_key().public_bytes_raw())

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Return the key in a file, which is made with a new key where it is missing.

        Safe where several processes do so at once. Raises SealError where the file cannot be
        read or made, holds no key, or can be read by other users.
        """
        try:
            if not path.exists():
                with locked(path.with_name(f".{path.name}.lock")):
                    if not path.exists():
                        name = f"onrecord/{secrets.token_hex(8)}"
                        new = cls(name, secrets.token_bytes(_KEY_BYTES))
                        write_private_file(path, new.secret_text().encode())
            if path.stat().st_mode & _OTHERS:
                raise SealError(
                    f"{path}: other users can read or change the key; run chmod 600 {path}"
                )
            text = path.read_text(encoding="ascii")
        except OSError as error:
            raise SealError(f"{path}: cannot be read or made: {error.strerror}") from error
        except UnicodeDecodeError:
            text = ""
        return cls._parse(text, path)

    @classmethod
    def _parse(cls, text: str, path: Path) -> Self:
        try:
            if not text.startswith(_SECRET):
                raise ValueError
            name, number, data = text[len(_SECRET) :].strip().split("+", 2)
            decoded = base64.b64decode(data, validate=True)
            key = cls(name, decoded[1:])
            if decoded[:1] != _ED25519 or key.public.id.hex() != number:
                raise ValueError
        except (ValueError, binascii.Error):
            # Without its cause: that can hold a piece of the secret.
            raise SealError(
                f"{path}: this is no signing key; move it away to have a new one made"
            ) from None
        return key

    def secret_text(self) -> str:
        """Return the line that the key's file holds."""
        data = base64.b64encode(_ED25519 + self._seed).decode()
        return f"{_SECRET}{self.public.name}+{self.public.id.hex()}+{data}\n"

    def sign(self, size: int, root: bytes) -> tuple[Head, str]:
        """Return a new head of the record's tree, and its note."""
        head = Head(self.public.name, size, root, datetime.now(UTC))
        text = head.text()
        signature = base64.b64encode(self.public.id + self.signature(text.encode())).decode()
        return head, f"{text}\n{_DASH}{self.public.name} {signature}\n"

    def signature(self, message: bytes) -> bytes:
        """Return the key's signature under a message, which must not read as another kind's."""
        return self._key.sign(message)


def open_note(note: str, key: PublicKey) -> Head:
    """Return the head in a note; raises SealError where the key has not signed it."""
    text, _, signatures = note.rpartition("\n\n")
    text += "\n"
    for line in signatures.splitlines():
        name, _, encoded = line.removeprefix(_DASH).partition(" ")
        try:
            signature = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            continue
        if line.startswith(_DASH) and name == key.name and signature[:4] == key.id:
            if not key.has_signed(text.encode(), signature[4:]):
                raise SealError("the signature does not fit the head")
            return _parse_head(text)
    raise SealError(f"the head is not signed by {key.name}+{key.id.hex()}")


def _parse_head(text: str) -> Head:
    try:
        origin, size, encoded, moment, _ = text.split("\n", 4)
        root = base64.b64decode(encoded, validate=True)
        signed_at = datetime.fromisoformat(moment.removeprefix(_TIME))
        head = Head(origin, int(size), root, signed_at)
    except (ValueError, binascii.Error):
        head = None
    if head is None or head.text() != text:
        raise SealError("what is signed is not a head of a record")
    return head
