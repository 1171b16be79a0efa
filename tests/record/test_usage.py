from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from onrecord.record import api_keys, users
from onrecord.record.api_keys import ApiKey
from onrecord.record.batch import committer
from onrecord.record.call import RecordedCall
from onrecord.record.database import Database
from onrecord.record.ids import first_id_at, new_id
from onrecord.record.usage import count_calls

MIDNIGHT = datetime(2026, 11, 25, tzinfo=UTC)
NOON = MIDNIGHT + timedelta(hours=12)


def id_at(moment: datetime, number: int) -> str:
    return first_id_at(moment)[:-12] + f"{number:07x}00000"


def test_the_calls_of_a_day_are_counted_but_for_those_refused_as_too_many(
    database: Database, user: users.User, make_call: Callable[..., RecordedCall]
) -> None:
    key = ApiKey(
        new_id(), user.id, user.username, "batch", "live", "onr_live_x", "0" * 64, ("predict",),
        None, MIDNIGHT, MIDNIGHT + timedelta(days=9), None, None,
    )  # fmt: skip
    with database.write() as connection:
        other = users.add(connection, username="Bob", email=None, password_hash=None, role="user")
        api_keys.add(connection, key)
    milliseconds = timedelta(milliseconds=1)
    made = [
        (MIDNIGHT - milliseconds, {}),
        (MIDNIGHT, {}),
        (NOON - milliseconds, {"status": 400}),
        (NOON - milliseconds, {"status": 429}),
        (NOON, {"api_key_id": key.id}),
        (NOON, {"api_key_id": key.id, "status": 429}),
        (NOON + milliseconds, {"user_id": other.id}),
        (NOON + milliseconds, {"status": 403, "api_key_id": key.id}),
    ]
    calls = [make_call(id=id_at(at, i), **more) for i, (at, more) in enumerate(made)]
    connection = database.raw_connection()
    committer(connection.dbapi_connection, database.dialect)(calls)
    connection.close()

    with database.read() as opened:
        assert count_calls(opened, ("user", user.id), MIDNIGHT, NOON) == (2, 2)
        assert count_calls(opened, ("user", other.id), MIDNIGHT, NOON) == (0, 1)
        assert count_calls(opened, ("api_key", key.id), MIDNIGHT, NOON) == (0, 2)
        assert count_calls(opened, ("user", user.id), MIDNIGHT, MIDNIGHT) == (0, 4)
