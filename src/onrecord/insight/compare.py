"""The live version beside the candidate: on the same calls (shadow), and on their own (canary)."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import Connection, func, select

from onrecord.insight.metrics import mean, wilson
from onrecord.insight.quality import LEAST_ROWS, quality
from onrecord.insight.recorded_calls import (
    Meant,
    answered_calls,
    calls_meant,
    decoded_answers,
)
from onrecord.insight.shadow_pairs import MOST_CALLS, ShadowPairs, latency
from onrecord.record.database import Database
from onrecord.record.ids import time_of
from onrecord.record.model_versions import StoredVersion, find
from onrecord.record.shadows import skipped
from onrecord.record.tables import requests, responses, utc_text
from onrecord.serving.outputs import class_key

__all__ = ["compare"]

_TOLERANCE = 1e-6
_CALLS_AT_ONCE = 2000


def compare(  # noqa: PLR0913, PLR0917 - which versions, and which calls
    database: Database,
    name: str,
    since: datetime | None = None,
    until: datetime | None = None,
    live_reference: str = "live",
    candidate_reference: str = "candidate",
) -> dict[str, Any]:
    """Return how a model's candidate does beside the live version, on calls received in a time.

    `shadow` has both on the same calls, of which the candidate answered some unseen; `canary` has
    each on the calls that it answered itself, since the candidate's first. The references are as
    in `find`: once a candidate has become live, both are named by their numbers. Raises NotFound
    where there is no such model or version, Conflict where several go by a reference.
    """
    with database.read() as connection:
        live = find(connection, name, live_reference)
        candidate = find(connection, name, candidate_reference)
        shed = skipped(connection, candidate.id, since, until)
    meant = Meant(name, since=since, until=until)
    pairs = ShadowPairs(database, _by(meant, live), candidate.id, _TOLERANCE)
    shadow = pairs.report()
    with database.read() as connection:
        if pairs.first_id is not None:
            meant_live = _by(replace(meant, since=_later(since, pairs.first_id)), live)
            refused = _errors(connection, meant_live)
        else:
            refused = _errors(connection, None)
    shadow["errors"] = {"live": refused, "candidate": shadow["errors"]}
    return {
        "model": name,
        "since": since and utc_text(since),
        "until": until and utc_text(until),
        "tolerance": _TOLERANCE,
        "live": _told(live),
        "candidate": _told(candidate),
        "shadow": shadow | {"skipped": shed},
        "canary": _canary(database, meant, live, candidate),
    }


def _told(version: StoredVersion) -> dict[str, Any]:
    return {"number": version.number, "version": version.version, "sha256": version.sha256}


def _by(meant: Meant, version: StoredVersion) -> Meant:
    return replace(meant, versions=frozenset({version.id}))


def _later(since: datetime | None, first_id: str) -> datetime:
    first = time_of(first_id)
    return first if since is None else max(since, first)


def _errors(connection: Connection, meant: Meant | None) -> dict[str, Any]:
    """Return which share of the calls that a version got it did not answer with 200."""
    if meant is None:
        return {"n": 0, **wilson(0, 0)}
    got = connection.execute(calls_meant(select(func.count()), meant)).scalar_one()
    answered = connection.execute(answered_calls(select(func.count()), meant)).scalar_one()
    return {"n": int(got), **wilson(int(got - answered), int(got))}


def _canary(
    database: Database, meant: Meant, live: StoredVersion, candidate: StoredVersion
) -> dict[str, Any]:
    query = calls_meant(select(requests.c.id), _by(meant, candidate)).order_by(requests.c.id)
    with database.read() as connection:
        first = connection.execute(query.limit(1)).scalar_one_or_none()
    if first is None:
        return {"since": None, "live": None, "candidate": None}
    meant = replace(meant, since=_later(meant.since, first))
    return {
        "since": None if meant.since is None else utc_text(meant.since),
        "live": _alone(database, _by(meant, live)),
        "candidate": _alone(database, _by(meant, candidate)),
    }


def _alone(database: Database, meant: Meant) -> dict[str, Any]:
    """Return what the calls say that one version answered itself."""
    durations: list[float] = []
    classes: Counter[str] = Counter()
    numbers: list[float] = []
    before: int | None = None
    columns = (requests.c.seq, responses.c.output, responses.c.content_type)
    query = answered_calls(select(*columns, responses.c.duration_us), meant)
    query = query.order_by(requests.c.seq.desc()).limit(_CALLS_AT_ONCE)
    while len(durations) < MOST_CALLS:
        older = query if before is None else query.where(requests.c.seq < before)
        with database.read() as connection:
            rows = connection.execute(older).all()
        if not rows:
            break
        before = rows[-1].seq
        for row in rows:
            durations.append(row.duration_us)
            answers = None if row.output is None else decoded_answers(row.output, row.content_type)
            for answer in answers or ():
                if isinstance(answer.prediction, float):
                    numbers.append(answer.prediction)
                elif not isinstance(answer.prediction, dict):
                    classes[class_key(answer.prediction)] += 1
    with database.read() as connection:
        errors = _errors(connection, meant)
    told = quality(database, meant)
    return {
        "calls": errors["n"],
        "enough": errors["n"] >= LEAST_ROWS,
        "errors": errors,
        "duration_us": latency(durations),
        "mean": mean(np.array(numbers)) if numbers else None,
        "classes": {
            name: wilson(count, classes.total()) for name, count in sorted(classes.items())
        },
        "outcomes": next(iter(told["groups"]), None),
    }
