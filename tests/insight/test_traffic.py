from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from onrecord.insight.traffic import Traffic
from onrecord.record import api_keys, traffic, users
from onrecord.record.api_keys import ApiKey
from onrecord.record.batch import committer
from onrecord.record.call import RecordedCall
from onrecord.record.database import Database
from onrecord.record.ids import new_id, new_request_id
from onrecord.record.model_versions import register_model_version

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
TEN_MINUTES = timedelta(minutes=10)


class Record:
    """A record with a user, a version, and the calls that are put on it."""

    def __init__(self, url: str) -> None:
        self.database = Database(url)
        self.database.upgrade()
        self.test_key = new_id()
        with self.database.write() as connection:
            user = users.add(connection, username="a", email=None, password_hash=None, role="user")
            self.user = user.id
            self.version = register_model_version(
                connection, "risk", "1", "a" * 64, "b" * 64, b"{}", "onnx"
            )
            api_keys.add(connection, _test_key(self.test_key, self.user))

    def put(self, count: int = 1, **changes: Any) -> None:
        calls = [self._call(**changes) for _ in range(count)]
        with self.database.raw_connection() as raw:
            committer(raw.dbapi_connection, self.database.dialect)(calls)

    def _call(self, minutes: float = 0, **changes: Any) -> RecordedCall:
        values: dict[str, Any] = {
            "id": new_request_id(),
            "user_id": self.user,
            "model": "risk",
            "model_version_id": self.version,
            "x_request_id": None,
            "content_type": "application/json",
            "input": b"{}",
            "received_at": NOON + timedelta(minutes=minutes),
            "status": 200,
            "output": b"{}",
            "error_code": None,
            "error_fields": (),
            "duration_us": 1000,
            "responded_at": NOON + timedelta(minutes=minutes),
        }
        return RecordedCall(**values | changes)

    def report(self, counted: Traffic) -> dict[str, Any]:
        return counted.report(NOON, NOON + timedelta(hours=1), 2 * TEN_MINUTES)


def _test_key(key_id: str, user_id: str) -> ApiKey:
    return ApiKey(
        id=key_id,
        user_id=user_id,
        username="a",
        name="t",
        kind="test",
        prefix="p",
        key_sha256="c" * 64,
        scopes=("predict",),
        models=None,
        created_at=NOON,
        expires_at=NOON,
        revoked_at=None,
        last_used_at=None,
    )


@pytest.fixture
def record(database_url: str) -> Iterator[Record]:
    record = Record(database_url)
    yield record
    record.database.close()


def test_calls_are_counted_once_by_time_version_and_why_they_were_refused(record: Record) -> None:
    counted = Traffic(record.database)
    fields = ("/rows/0/age", "/rows/7/age", "/ward")
    record.put(98, minutes=9.9)
    record.put(2, minutes=45, duration_us=64_000)
    record.put(3, status=400, error_code="invalid_input", error_fields=fields)
    record.put(status=404, error_code="not_found", model_version_id=None, model="nobody's")
    record.put(5, api_key_id=record.test_key)
    record.put(minutes=60)

    assert counted.update()
    record.put(minutes=20)
    assert counted.update()
    found = record.report(counted)

    assert (found["calls"], found["answered"], found["refused"]) == (105, 101, 4)
    assert found["errors"] == [
        {"name": "invalid_input", "calls": 3},
        {"name": "not_found", "calls": 1},
    ]
    assert found["statuses"] == [{"name": 400, "calls": 3}, {"name": 404, "calls": 1}]
    assert found["fields"] == [{"name": "/age", "calls": 3}, {"name": "/ward", "calls": 3}]
    assert [(it["answered"], it["refused"]) for it in found["series"]] == [(98, 4), (1, 0), (2, 0)]
    named = [(it["model"], it["number"], it["calls"]) for it in found["versions"]]
    assert named == [("risk", 1, 104), (None, None, 1)]


def test_percentiles_are_right_to_a_tenth(record: Record) -> None:
    counted = Traffic(record.database)
    record.put(90, duration_us=1500)
    record.put(9, duration_us=20_000)
    record.put(1, duration_us=0)

    counted.update()

    durations = record.report(counted)["duration_us"]
    assert durations["p50"] == pytest.approx(1500, rel=0.12)
    assert durations["p95"] == pytest.approx(20_000, rel=0.12)


def test_counting_stops_after_its_batches_and_another_counts_nothing_twice(record: Record) -> None:
    one, other = Traffic(record.database), Traffic(record.database)
    record.put(10)

    assert not one.update(0)
    assert record.report(one)["calls"] == 0
    assert other.update()
    assert one.update(1)
    assert record.report(one)["calls"] == 10
    with record.database.write() as connection:
        assert not traffic.advance(connection, 0, 10)
