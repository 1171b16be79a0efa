"""Other versions of a model becoming live under load: no call fails, and no answer mixes two."""

from __future__ import annotations

import json
import time
from bisect import bisect_right
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
from sqlalchemy import select

from live import linear_model_dir
from onrecord.record import users
from onrecord.record.database import Database
from onrecord.record.tables import model_changes, model_versions, requests, responses
from torture.report import Finding, place
from torture.signals import Deployments
from torture.stage import Stage
from torture.subject import Subject
from torture.verdict import examine

__all__ = ["swaps"]

_DEPLOYMENTS: Deployments = (("SQLite", 2), ("PostgreSQL", 2))
_SWAPS_OF_A_BROKEN_BUILD = 1
_NOTICED = timedelta(seconds=1)
_ANSWERS_BETWEEN = 300
_SECONDS_BETWEEN = 1.5
"""Longer than a change may go unnoticed, so that each has answers that must be by its version."""


def swaps(stage: Stage, rounds: int, deployments: Deployments = _DEPLOYMENTS) -> Iterator[Finding]:
    """Promote and roll back so many times under full load, over each database."""
    second = linear_model_dir(stage.home / "second" / "risk", seed=8)
    for broken in ("name-the-first-version", "keep-the-first-version"):
        with stage.subject(broken=broken) as subject:
            yield _swaps(subject, second, _SWAPS_OF_A_BROKEN_BUILD, "SQLite, 1 worker", broken)
    for kind, workers in deployments:
        with stage.subject(kind, workers=workers) as subject:
            yield _swaps(subject, second, rounds, place(kind, workers))


def _swaps(
    subject: Subject, second: Path, rounds: int, where: str, broken: str | None = None
) -> Finding:
    subject.start()
    admin = _admin(subject)
    added = subject.server.command("models", "add", str(second), "--name", "risk")
    if added.returncode:
        raise RuntimeError(added.stderr)
    with subject.load(connections=32) as load:
        for number in range(rounds):
            load.wait_for(_ANSWERS_BETWEEN)
            time.sleep(_SECONDS_BETWEEN)
            _change(subject, admin, "rollback" if number % 2 else "promote")
        time.sleep(_SECONDS_BETWEEN)
        load.wait_for(_ANSWERS_BETWEEN)
    statuses = subject.ledger.statuses
    failed = sum(count for status, count in statuses.items() if status not in {200, 400})
    more = {"calls failed": failed + subject.ledger.cut, **_faults(subject.database_url)}
    if broken is None:
        more["versions that answer otherwise now"] = _changed_answers(subject, admin)
    subject.stop()
    verdict = examine(subject.database_url, subject.ledger)
    return Finding("swaps", where, rounds, "swaps", verdict, more, broken)


def _admin(subject: Subject) -> dict[str, str]:
    token = subject.server.register("root")
    database = Database(subject.database_url)
    with database.write() as connection:
        root = users.by_username(connection, "root")
        users.set_role(connection, root.id if root else "", "admin")
    database.close()
    return {"authorization": f"Bearer {token}"}


def _change(subject: Subject, admin: dict[str, str], action: str) -> None:
    body: dict[str, Any] = {"version": "2"} if action == "promote" else {}
    url = f"{subject.server.base}/models/risk/{action}"
    httpx2.post(url, json=body, headers=admin, timeout=120).raise_for_status()


def _changed_answers(subject: Subject, admin: dict[str, str]) -> int:
    """Return how many of the two versions do not give again, to the last bit, what they gave."""
    wrong = 0
    for action in (None, "rollback"):
        if action is not None:
            _change(subject, admin, action)
        said = subject.server.command("replay", "--model", "risk", "--against", "live")
        wrong += said.returncode != 0
    return wrong


def _faults(database_url: str) -> dict[str, int]:
    """Count the answers that name another version than the record, and those by a late one."""
    database = Database(database_url)
    with database.read() as connection:
        timeline = connection.execute(
            select(model_changes.c.changed_at, model_changes.c.model_version_id)
            .where(model_changes.c.action.in_(("start", "promote", "rollback")))
            .order_by(model_changes.c.seq)
        ).all()
        rows = connection.execute(
            select(
                requests.c.received_at,
                responses.c.responded_at,
                requests.c.model_version_id,
                model_versions.c.sha256,
                responses.c.output,
            )
            .join(responses, responses.c.request_id == requests.c.id)
            .join(model_versions, model_versions.c.id == requests.c.model_version_id)
            .where(responses.c.status == 200)
        ).all()
    database.close()
    moments = [moment for moment, _ in timeline]
    other = late = 0
    for received, responded, version, sha256, output in rows:
        other += json.loads(output)["model"]["sha256"] != sha256
        late += version not in _live_between(moments, timeline, received - _NOTICED, responded)
    return {"answers that name another version": other, "answers by a version no more live": late}


def _live_between(
    moments: list[datetime], timeline: Any, start: datetime, end: datetime
) -> set[int]:
    first = max(0, bisect_right(moments, start) - 1)
    return {version for _, version in timeline[first : bisect_right(moments, end)]}
