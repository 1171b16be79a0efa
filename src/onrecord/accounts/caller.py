"""Who is asking, once known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Caller", "Role"]

Role = Literal["user", "admin"]


@dataclass(frozen=True, slots=True)
class Caller:
    """A user whose token was found valid a moment ago."""

    user_id: str
    username: str
    role: Role
