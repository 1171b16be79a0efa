"""Retention: for how many days payloads and rows are kept, model by model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from onrecord.record.erase import Selection
from onrecord.record.erasures import What

__all__ = ["ANY_OTHER", "Due", "due"]

ANY_OTHER = ""
"""The name under which the days of all models stand that are not named."""


@dataclass(frozen=True, slots=True)
class Due:
    """What has been kept long enough: what goes of which calls, and why."""

    what: What
    selection: Selection
    reason: str


def due(payload_days: Mapping[str, int], row_days: Mapping[str, int], now: datetime) -> list[Due]:
    """Return what is due by the days for each model's name; rows come first, payload and all."""
    return [*_due("rows", row_days, now), *_due("payloads", payload_days, now)]


def _due(what: What, days: Mapping[str, int], now: datetime) -> Iterator[Due]:
    named = frozenset(days) - {ANY_OTHER}
    for model, kept in days.items():
        before = now - timedelta(days=kept)
        meant = (
            Selection(other_than=named, before=before)
            if model == ANY_OTHER
            else Selection(model=model, before=before)
        )
        yield Due(what, meant, f"retention: {what} after {kept} days")
