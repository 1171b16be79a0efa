"""The key by which inputs with sensitive columns are encrypted before they go on record.

What is recorded is a JSON Web Encryption in compact form (RFC 7516) by a key that both sides have:
`alg` is `dir`, `enc` is `A256GCM`, and `kid` names the key, so that other tools can decrypt it too.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from onrecord.errors import SealError
from onrecord.file_lock import locked
from onrecord.private_file import write_private_file

__all__ = ["PayloadKey"]

_KEY_BYTES = 32
_NONCE_BYTES = 12
_TAG_BYTES = 16
_OTHERS = 0o077
_PARTS = 5


class PayloadKey:
    """A key of 256 bits; several threads may use it."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        header = {"alg": "dir", "enc": "A256GCM", "kid": sha256(key).hexdigest()[:16]}
        self._header = _encoded(json.dumps(header, separators=(",", ":")).encode())

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Return the key in a file, which is made with a new key where it is missing.

        Safe where several processes do so at once. Raises SealError where the file cannot be
        read or made, holds no key, or can be read by other users.
        """
        try:
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                with locked(path.with_name(f".{path.name}.lock")):
                    if not path.exists():
                        write_private_file(path, base64.b64encode(os.urandom(_KEY_BYTES)) + b"\n")
            if path.stat().st_mode & _OTHERS:
                raise SealError(
                    f"{path}: other users can read or change the key; run chmod 600 {path}"
                )
            key = base64.b64decode(path.read_bytes().strip(), validate=True)
        except OSError as error:
            raise SealError(f"{path}: cannot be read or made: {error.strerror}") from error
        except binascii.Error:
            key = b""
        if len(key) != _KEY_BYTES:
            raise SealError(f"{path}: this is no key of payloads; put the right file there")
        return cls(key)

    def conceal(self, payload: bytes) -> bytes:
        """Return a payload encrypted."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, payload, self._header)
        cipher, tag = sealed[:-_TAG_BYTES], sealed[-_TAG_BYTES:]
        return b".".join([self._header, b"", _encoded(nonce), _encoded(cipher), _encoded(tag)])

    def reveal(self, payload: bytes) -> bytes:
        """Return a payload as it was, also one that was never encrypted by this key."""
        parts = payload.split(b".")
        if len(parts) != _PARTS or parts[0] != self._header:
            return payload
        nonce, cipher, tag = map(_decoded, parts[2:])
        try:
            return self._cipher.decrypt(nonce, cipher + tag, self._header)
        except InvalidTag:
            return payload


def _encoded(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")


def _decoded(content: bytes) -> bytes:
    return base64.urlsafe_b64decode(content + b"=" * (-len(content) % 4))
