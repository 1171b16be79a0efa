"""How much a user or an API key has called, counted from the record."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from sqlalchemy import Connection, exists, func, literal_column, select

from onrecord.record.ids import first_id_at
from onrecord.record.tables import requests, responses

__all__ = ["Consumer", "count_calls"]

Consumer = tuple[Literal["user", "api_key"], str]
"""Whose calls are counted: a user's, with whatever it was signed in, or those of one API key."""

# The partial index serves only a query that states its condition literally.
_REFUSED_AS_TOO_MANY = exists().where(
    responses.c.request_id == requests.c.id,
    responses.c.status >= literal_column("400"),
    responses.c.status == literal_column("429"),
)


def count_calls(
    connection: Connection, consumer: Consumer, since: datetime, until: datetime
) -> tuple[int, int]:
    """Return how many calls arrived from `since` to `until` (left out), and how many later.

    A call that was refused as one too many is not counted. Times are exact to the millisecond.
    """
    kind, identifier = consumer
    owner = requests.c.user_id if kind == "user" else requests.c.api_key_id
    bound = first_id_at(until)
    query = select(
        func.count().filter(requests.c.id < bound), func.count().filter(requests.c.id >= bound)
    ).where(owner == identifier, requests.c.id >= first_id_at(since), ~_REFUSED_AS_TOO_MANY)
    before, after = connection.execute(query).one()
    return int(before), int(after)
