from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from onrecord.record import users
from onrecord.record.call import RecordedCall
from onrecord.record.database import Database
from onrecord.record.ids import new_request_id


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    database.upgrade()
    yield database
    database.close()


@pytest.fixture
def user(database: Database) -> users.User:
    with database.write() as connection:
        return users.add(
            connection, username="Ada", email="ada@example.org", password_hash="x", role="user"
        )


@pytest.fixture
def make_call(user: users.User) -> Callable[..., RecordedCall]:
    def make(**changes: Any) -> RecordedCall:
        values: dict[str, Any] = {
            "id": new_request_id(),
            "user_id": user.id,
            "model": "iris",
            "model_version_id": None,
            "x_request_id": None,
            "content_type": "application/json",
            "input": b'{"age": 3}',
            "received_at": datetime(2026, 11, 25, 9, 0, 0, 123456, UTC),
            "status": 200,
            "output": b'{"prediction": 1}',
            "error_code": None,
            "error_fields": (),
            "duration_us": 42,
            "responded_at": datetime(2026, 11, 25, 9, 0, 1, tzinfo=UTC),
        }
        return RecordedCall(**{**values, **changes})

    return make
