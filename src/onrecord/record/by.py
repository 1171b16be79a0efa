"""Who changes what is on record, and why."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["By"]


@dataclass(frozen=True, slots=True)
class By:
    """Who does it and why: the id of an admin, or the account that runs a command."""

    reason: str
    user_id: str | None = None
    operator: str | None = None
