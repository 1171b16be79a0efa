"""A moment as it is written on the command line: so long ago, or a time."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from onrecord.errors import SettingsError

__all__ = ["moment"]

_DURATION = re.compile(r"(\d{1,9})([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def moment(text: str | None, option: str) -> datetime | None:
    """Return the moment that is `7d` ago, or that an ISO 8601 text names; in UTC if it says none.

    Raises SettingsError, which names the option.
    """
    if text is None:
        return None
    duration = _DURATION.fullmatch(text)
    try:
        if duration is not None:
            past = timedelta(seconds=int(duration[1]) * _SECONDS[duration[2]])
            return datetime.now(UTC) - past
        found = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise SettingsError(
            f"{option}: write a duration such as 7d or 12h, or a time such as 2026-11-25T09:00, "
            f"not {text!r}"
        ) from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found
