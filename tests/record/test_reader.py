from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from onrecord.record import api_keys, listing, reader, users
from onrecord.record.api_keys import ApiKey
from onrecord.record.batch import committer
from onrecord.record.call import RecordedCall
from onrecord.record.database import Database
from onrecord.record.ids import first_id_at, new_id
from onrecord.record.model_versions import register_model_version
from onrecord.record.reader import Filters

START = datetime(2026, 11, 25, 9, 0, 0, tzinfo=UTC)


def _save(database: Database, calls: list[RecordedCall]) -> None:
    connection = database.raw_connection()
    committer(connection.dbapi_connection, database.dialect)(calls)
    connection.close()


def _register(database: Database, version: str = "1") -> int:
    with database.write() as connection:
        return register_model_version(
            connection, "iris", version, "a" * 64, "b" * 64, b"{}", "onnx"
        )


@dataclass(frozen=True)
class Shelf:
    """Ten calls a second apart, number 9 the newest."""

    database: Database
    calls: list[RecordedCall]
    other: users.User

    def numbers(self, filters: Filters, limit: int = 100, before: int | None = None) -> list[int]:
        ids = [call.id for call in self.calls]
        cursor = None if before is None else ids[before]
        with self.database.read() as connection:
            found = reader.page(connection, filters, limit=limit, before=cursor)
            looked = listing.fitting(connection, filters, before=cursor, limit=limit, window=100)
            assert looked == [entry.id for entry in found]
            if before is None and limit == 100:
                assert reader.count(connection, filters) == len(found)
                assert list(reader.stream(connection, filters)) == found[::-1]
                counted = listing.counts(connection, filters, window=100)
                assert (counted.calls, counted.whole) == (len(found), True)
        return [ids.index(entry.id) for entry in found]


@pytest.fixture
def shelf(database: Database, make_call: Callable[..., RecordedCall]) -> Shelf:
    with database.write() as connection:
        other = users.add(connection, username="Bob", email=None, password_hash=None, role="user")
    version = _register(database)
    calls = []
    for number in range(10):
        changes = {
            "id": first_id_at(START + timedelta(seconds=number)),
            "x_request_id": "mine" if number == 2 else None,
            "status": 422 if number in {4, 7} else 200,
            "error_fields": ("/age",) if number in {4, 7} else (),
            "model": "wine" if number in {1, 2} else "iris",
            "model_version_id": version if number >= 5 else None,
        }
        if number in {0, 1, 7}:
            changes["user_id"] = other.id
        calls.append(make_call(**changes))
    _save(database, calls)
    return Shelf(database, calls, other)


def test_pages_go_from_new_to_old_without_gap_or_overlap(shelf: Shelf) -> None:
    assert shelf.numbers(Filters(), limit=4) == [9, 8, 7, 6]
    assert shelf.numbers(Filters(), limit=4, before=6) == [5, 4, 3, 2]
    assert shelf.numbers(Filters(), limit=4, before=2) == [1, 0]
    assert shelf.numbers(Filters(status=422), limit=1, before=7) == [4]


@pytest.mark.parametrize(
    ("filters", "numbers"),
    [
        (Filters(), [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
        (Filters(model="wine"), [2, 1]),
        (Filters(version="1"), [9, 8, 7, 6, 5]),
        (Filters(version="2"), []),
        (Filters(status=422), [7, 4]),
        (Filters(status=200, model="wine"), [2, 1]),
        (Filters(since=START + timedelta(seconds=7)), [9, 8, 7]),
        (Filters(until=START + timedelta(seconds=2)), [1, 0]),
        (Filters(status=422, since=START + timedelta(seconds=5)), [7]),
        (Filters(x_request_id="mine"), [2]),
        (Filters(x_request_id="no\x00"), []),
        (Filters(user_id="no id"), []),
    ],
)
def test_filters_choose_the_calls(shelf: Shelf, filters: Filters, numbers: list[int]) -> None:
    assert shelf.numbers(filters) == numbers


def test_a_window_bounds_what_is_looked_at_and_says_where_to_go_on(shelf: Shelf) -> None:
    with shelf.database.read() as connection:

        def look(filters: Filters, before: str | None = None) -> tuple[list[int], str | None]:
            found = listing.fitting(connection, filters, before=before, limit=9, window=5)
            end = listing.end_of_window(connection, filters, before, 5)
            return [ids.index(it) for it in found], end

        ids = [call.id for call in shelf.calls]
        assert look(Filters(model="wine", status=200, user_id=shelf.other.id)) == ([1], None)
        assert look(Filters(status=200)) == ([9, 8, 6, 5], ids[5])
        assert look(Filters(status=200), ids[5]) == ([3, 2, 1, 0], None)
        counted = listing.counts(connection, Filters(status=200), window=5)
        assert (counted.calls, counted.window, counted.whole) == (4, 5, False)
        assert counted.versions == {("iris", 1, "1"): 4}


def test_a_line_tells_what_a_list_shows_and_leaves_long_payloads(
    database: Database, make_call: Callable[..., RecordedCall], user: users.User
) -> None:
    version = _register(database)
    long = b"[" + b" " * listing.MOST_BYTES + b"]"
    calls = [
        make_call(model_version_id=version, input=long),
        make_call(status=422, error_fields=("/age",), error_code="invalid_input"),
    ]
    _save(database, calls)

    with database.read() as connection:
        newest, oldest = listing.lines(connection, [call.id for call in calls])
        rows = listing.payloads(connection, Filters(), before=None, window=9)

    assert (oldest.input, oldest.input_bytes) == (None, len(long))
    assert (oldest.version, oldest.number, oldest.username) == ("1", 1, user.username)
    assert (newest.version, newest.error_fields, newest.error_code) == (
        None,
        ("/age",),
        "invalid_input",
    )
    assert [(row[0], row[2]) for row in rows] == [
        (calls[1].id, b'{"age": 3}'),
        (calls[0].id, None),
    ]


def test_a_user_sees_its_own_calls_only(shelf: Shelf) -> None:
    assert shelf.numbers(Filters(user_id=shelf.other.id)) == [7, 1, 0]
    with shelf.database.read() as connection:
        assert reader.find(connection, shelf.calls[0].id, shelf.other.id) is not None
        assert reader.find(connection, shelf.calls[0].id, None) is not None
        assert reader.find(connection, shelf.calls[2].id, shelf.other.id) is None
        assert reader.find(connection, new_id(), None) is None
        assert reader.find(connection, "no id", None) is None


def test_calls_of_a_test_key_are_left_out_unless_asked_for(
    database: Database, make_call: Callable[..., RecordedCall], user: users.User
) -> None:
    with database.write() as connection:
        keys = {kind: _add_key(connection, user, kind) for kind in ("live", "test")}
    calls = [make_call(api_key_id=key_id) for key_id in (None, keys["live"], keys["test"])]
    _save(database, calls)

    def found(filters: Filters) -> list[tuple[str | None, bool]]:
        with database.read() as connection:
            entries = list(reader.stream(connection, filters))
            assert reader.count(connection, filters) == len(entries)
            assert reader.page(connection, filters, limit=9, before=None) == entries[::-1]
            looked = listing.fitting(connection, filters, before=None, limit=9, window=9)
            assert looked == [entry.id for entry in entries[::-1]]
        return [(entry.api_key_id, entry.test) for entry in entries]

    live = [(None, False), (keys["live"], False)]
    assert found(Filters()) == live
    assert found(Filters(test=True)) == [(keys["test"], True)]
    assert found(Filters(test=None)) == [*live, (keys["test"], True)]
    assert found(Filters(api_key_id=keys["live"])) == live[1:]
    assert found(Filters(api_key_id="no id")) == []
    assert found(Filters(models=frozenset({"iris", "wine"}))) == live
    assert found(Filters(models=frozenset({"wine"}))) == []


def _add_key(connection: sa.Connection, user: users.User, kind: str) -> str:
    key = ApiKey(
        id=new_id(),
        user_id=user.id,
        username=user.username,
        name="batch",
        kind=kind,
        prefix=f"onr_{kind}_00000000",
        key_sha256="0" * 64,
        scopes=("predict",),
        models=None,
        created_at=START,
        expires_at=START,
        revoked_at=None,
        last_used_at=None,
    )
    assert api_keys.add(connection, key)
    assert not api_keys.add(connection, key)
    return key.id


def test_an_entry_tells_who_asked_and_what_answered(shelf: Shelf) -> None:
    with shelf.database.read() as connection:
        entry = reader.find(connection, shelf.calls[7].id, None)
    assert entry is not None
    assert (entry.username, entry.model_version, entry.model_sha256) == ("Bob", "1", "a" * 64)
    assert entry.error_fields == ("/age",)


def test_a_deleted_user_keeps_its_name_on_record(shelf: Shelf) -> None:
    with shelf.database.write() as connection:
        users.delete(connection, shelf.other.id)
        entry = reader.find(connection, shelf.calls[0].id, None)
    assert entry is not None
    assert entry.username == "Bob"


def test_more_than_one_batch_streams_in_order(
    database: Database, make_call: Callable[..., RecordedCall]
) -> None:
    moments = [START + timedelta(milliseconds=number) for number in range(2001)]
    calls = [make_call(id=first_id_at(moment)) for moment in moments]
    _save(database, calls[::-1])
    with database.read() as connection:
        streamed = [entry.id for entry in reader.stream(connection, Filters())]
    assert streamed == [call.id for call in calls]


def test_refused_calls_are_found_by_the_partial_index(tmp_path: object) -> None:
    database = Database(f"sqlite:///{tmp_path}/record.db")
    database.upgrade()
    query = reader._where(reader._entries(), Filters(status=422))
    sql = query.compile(database.engine, compile_kwargs={"render_postcompile": True})
    with database.read() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", (422,)).all()
    database.close()
    assert "ix_responses_status_request_id" in str(plan)


def test_a_model_version_is_registered_once(database: Database) -> None:
    first = _register(database)
    assert _register(database) == first
    assert _register(database, "2") != first
    with database.read() as connection:
        rows = connection.execute(
            sa.text("SELECT version, input_schema FROM model_versions ORDER BY id")
        ).all()
    assert [(row.version, bytes(row.input_schema)) for row in rows] == [("1", b"{}"), ("2", b"{}")]
