"""Secrets that say nothing: what API keys and refresh tokens look like.

A *head* that tells them apart, 256 random bits and a checksum, all in letters and digits. By the
head a scanner finds one in code or in a log and a person recognises it; by the checksum it is told
from other text, and a mistyped one from a wrong one, without asking the database. Only a digest of
the whole is kept. It needs neither salt nor many rounds, as nobody guesses 256 bits.

Source: https://github.blog/engineering/behind-githubs-new-authentication-token-formats/
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import zlib

__all__ = ["digest_of", "head_of", "random_text", "with_secret"]

_ALPHABET = string.digits + string.ascii_letters
_SECRET = 43  # letters of 62 kinds: 256 bits
_CHECKSUM = 6
_FORM = re.compile(r"onr_[a-z]{1,16}_[0-9A-Za-z]{49,100}")


def random_text(length: int) -> str:
    """Return that many random letters and digits."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def with_secret(head: str) -> str:
    """Return a new secret that begins with `head`, such as "onr_live_4fZ0q7Kd"."""
    text = head + random_text(_SECRET)
    return text + _checksum(text)


def head_of(text: str) -> str | None:
    """Return the head of a secret; None where the text is none, or not a whole one."""
    body, checksum = text[:-_CHECKSUM], text[-_CHECKSUM:]
    if not _FORM.fullmatch(text) or _checksum(body) != checksum:
        return None
    return body[:-_SECRET]


def digest_of(text: str) -> str:
    """Return the SHA-256 of a secret, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _checksum(text: str) -> str:
    rest, digits = zlib.crc32(text.encode("ascii")), ""
    for _ in range(_CHECKSUM):
        rest, digit = divmod(rest, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits
