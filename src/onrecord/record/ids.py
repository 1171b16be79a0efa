"""Identifiers of what is on record: UUIDv7, made by the application.

One call has one *request id*. Each of its rows has a *prediction id*: the request id with the row's
number in its last 20 bits, which `new_request_id` leaves zero. So a call of one row has one id for
both, and the request of any prediction is found by arithmetic, with no row stored for it.

Source: RFC 9562, sections 5.7 and 6.2 (method 1 allows part of rand_b to be a counter).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

import uuid_utils

__all__ = [
    "ID_PATTERN",
    "MAX_ROWS",
    "first_id_at",
    "is_id",
    "milliseconds_of",
    "new_id",
    "new_request_id",
    "prediction_id",
    "request_id_of",
    "row_of",
    "time_of",
]

MAX_ROWS = 1 << 20
"""The most rows that one call can have: what fits in the last 20 bits of its id."""

ID_PATTERN = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
_FORM = re.compile(ID_PATTERN)


def new_id() -> str:
    """Return a new UUIDv7 as text, for things that are not calls (users, model versions)."""
    return str(uuid_utils.uuid7())


def new_request_id() -> str:
    """Return a new request id: a UUIDv7 whose last 20 bits are zero."""
    return str(uuid_utils.uuid7())[:-5] + "00000"


def prediction_id(request_id: str, row: int) -> str:
    """Return the id of row number `row` (from 0) of a call."""
    return f"{request_id[:-5]}{row:05x}"


def request_id_of(prediction_id: str) -> str:
    """Return the id of the call that a prediction belongs to."""
    return prediction_id[:-5] + "00000"


def row_of(prediction_id: str) -> int:
    """Return the number (from 0) of a prediction's row in its call."""
    return int(prediction_id[-5:], 16)


def is_id(text: str) -> bool:
    """Tell whether `text` is a UUID in the form that this module writes."""
    return _FORM.fullmatch(text) is not None


def first_id_at(moment: datetime) -> str:
    """Return the smallest id that a call at `moment` (or later) can have.

    Ids sort by time, so a bound on the time is a bound on the id.
    """
    milliseconds = max(0, int(moment.timestamp() * 1000))
    digits = f"{milliseconds:012x}"
    return f"{digits[:8]}-{digits[8:]}-7000-8000-000000000000"


def milliseconds_of(identifier: str) -> int:
    """Return the moment that an id was made, in milliseconds since 1970."""
    return int(identifier[:8] + identifier[9:13], 16)


def time_of(identifier: str) -> datetime:
    """Return the moment that an id was made, to the millisecond, in UTC."""
    return datetime.fromtimestamp(milliseconds_of(identifier) / 1000, UTC)
