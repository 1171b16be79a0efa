"""How a page of a list is asked for, and whose entries it has."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from onrecord.record.ids import ID_PATTERN

__all__ = ["OfUser", "PageCursor", "PageLimit"]

PageLimit = Annotated[int, Query(ge=1, le=1000)]
"""How many entries a page has at most."""

PageCursor = Annotated[
    str | None,
    Query(description="The `next` of the page before.", json_schema_extra={"pattern": ID_PATTERN}),
]
"""Where the page before ended; None: there was none."""

OfUser = Annotated[
    str | None,
    Query(
        description="A user's id; only an admin or auditor may ask for others.",
        json_schema_extra={"pattern": ID_PATTERN},
    ),
]
"""Whose entries are asked for; None: all that the caller may see."""
