"""Where a spool is."""

from __future__ import annotations

import msgspec

__all__ = ["SpoolPlace"]


class SpoolPlace(msgspec.Struct, frozen=True):
    """The file of a spool, and how many bytes it may take."""

    file: str
    max_bytes: int
