"""What the writer's process is told when it starts."""

from __future__ import annotations

import msgspec

from onrecord.record.spool_place import SpoolPlace

__all__ = ["WriterOrder"]


class WriterOrder(msgspec.Struct, frozen=True):
    """Where calls are put on record, by URL, and in which spool while that is away, if in any."""

    database_url: str
    spool: SpoolPlace | None = None
    log_format: str = "json"
    log_level: str = "info"
