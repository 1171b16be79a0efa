"""Text as every database can hold it."""

from __future__ import annotations

__all__ = ["storable"]

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def storable(text: str) -> str:
    """Return `text` with what PostgreSQL refuses (NUL, lone surrogates) replaced by U+FFFD.

    It is used on what is stored and on what is sought alike, so one finds the other.
    """
    if text.isascii():
        return text.replace("\x00", _REPLACEMENT)
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return whole.replace("\x00", _REPLACEMENT)
