from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from onrecord.errors import DatabaseError, Unavailable
from onrecord.record import reader, schema
from onrecord.record.database import Database
from onrecord.record.ids import new_id, new_request_id
from onrecord.record.sqlite_engine import require_version
from onrecord.record.tables import metadata


def test_the_migrations_make_the_tables_that_the_code_describes(database: Database) -> None:
    with database.read() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        differences = compare_metadata(context, metadata)
    if database.dialect == "sqlite":
        # It has no identity columns: the row's own number is one.
        ((difference,),) = differences
        assert difference[:4] == ("modify_default", None, "requests", "seq")
    else:
        assert differences == []


def test_calls_from_before_the_seal_are_numbered_in_their_order_and_salted(
    database_url: str,
) -> None:
    database = Database(database_url)
    if database.dialect == "sqlite":
        Path(database.engine.url.database or "").touch(0o600)
    moment = "'2026-11-25T09:00:00.000000Z'"
    with database.write() as connection:
        config = schema._config()
        config.attributes["connection"] = connection
        command.upgrade(config, "202611251200")
        user = new_id()
        connection.execute(
            sa.text(
                "INSERT INTO users (id, username, username_key, role, token_version, created_at)"
                f" VALUES ('{user}', 'ada', 'ada', 'user', 1, {moment})"
            )
        )
        ids = [new_request_id() for _ in range(3)]
        for number, request_id in enumerate(ids):
            connection.execute(
                sa.text(
                    "INSERT INTO requests (id, user_id, model, x_request_id, received_at)"
                    f" VALUES ('{request_id}', '{user}', 'iris', 'x{number}', {moment})"
                )
            )
            connection.execute(
                sa.text(
                    "INSERT INTO responses (request_id, status, output, duration_us, responded_at)"
                    f" VALUES ('{request_id}', 400, CAST('{number}' AS {_bytes(database)}), 1,"
                    f" {moment})"
                )
            )

    database.upgrade()

    with database.write() as connection:
        rows = connection.execute(sa.text("SELECT seq, id, salt FROM requests ORDER BY seq")).all()
        entries = list(reader.stream(connection, reader.Filters(status=400)))
        assert [(row.seq, str(row.id)) for row in rows] == list(enumerate(ids, 1))
        assert {len(row.salt) for row in rows} == {16}
        assert len({bytes(row.salt) for row in rows}) == 3
        assert [(e.id, e.x_request_id, e.output) for e in entries] == [
            (request_id, f"x{number}", str(number).encode())
            for number, request_id in enumerate(ids)
        ]
    with pytest.raises(sa.exc.IntegrityError), database.write() as connection:
        connection.execute(sa.text("DELETE FROM requests"))
    database.close()


def _bytes(database: Database) -> str:
    return "blob" if database.dialect == "sqlite" else "bytea"


def test_the_partial_indexes_are_partial(database: Database) -> None:
    table = "sqlite_master" if database.dialect == "sqlite" else "pg_indexes"
    column = "sql" if database.dialect == "sqlite" else "indexdef"
    with database.read() as connection:
        made = connection.execute(sa.text(f"SELECT {column} FROM {table}")).scalars().all()
    partial = [sql for sql in made if sql and "INDEX" in sql and "WHERE" in sql]
    assert len(partial) == 5


def test_starters_that_upgrade_at_once_do_not_race(database_url: str) -> None:
    databases = [Database(database_url) for _ in range(2)]
    errors: list[BaseException] = []
    gate = threading.Barrier(2)

    def start(database: Database) -> None:
        gate.wait()
        try:
            database.upgrade()
            database.check()
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=start, args=(database,)) for database in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for database in databases:
        database.close()
    assert errors == []


def test_upgrading_again_changes_nothing(database: Database) -> None:
    database.upgrade()
    database.check()
    database.ping()


def test_a_database_without_tables_names_the_command_that_makes_them(database_url: str) -> None:
    database = Database(database_url)
    with pytest.raises(DatabaseError, match="onrecord db upgrade"):
        database.check()
    database.close()


def test_the_revision_of_the_tables_is_that_of_the_newest_migration() -> None:
    assert ScriptDirectory.from_config(schema._config()).get_heads() == [schema.REVISION]


def test_a_newer_database_is_refused(database: Database) -> None:
    with database.write() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '999999999999'"))
    with pytest.raises(DatabaseError, match=r"newer than this version.*onrecord db upgrade"):
        database.check()
    with pytest.raises(DatabaseError, match="newer than this version"):
        database.upgrade()


def test_a_database_out_of_reach_is_told_in_a_sentence_without_its_password() -> None:
    database = Database("postgresql://ada:secret@127.0.0.1:1/none")
    for act in (database.upgrade, database.check):
        with pytest.raises(DatabaseError, match="cannot be used") as caught:
            act()
        assert "secret" not in str(caught.value)
    assert "secret" not in database.url


@pytest.mark.anyio
async def test_a_query_on_a_database_out_of_reach_is_unavailable() -> None:
    database = Database("postgresql://ada@127.0.0.1:1/none")
    for act in (database.ping, database.check):
        with pytest.raises(Unavailable) as caught:
            await database.run(act)
        assert caught.value.retry_after == 1


@pytest.mark.anyio
async def test_tables_that_do_not_fit_are_not_hidden_as_unavailable(database_url: str) -> None:
    database = Database(database_url)
    with pytest.raises(DatabaseError):
        await database.run(database.check)
    database.close()


@pytest.mark.anyio
async def test_a_fault_of_the_query_itself_is_not_hidden_as_unavailable(database: Database) -> None:
    def insert() -> None:
        with database.write() as connection:
            connection.execute(sa.text("INSERT INTO users (id) VALUES (NULL)"))

    with pytest.raises(sa.exc.IntegrityError):
        await database.run(insert)


def test_a_transaction_that_an_error_leaves_is_rolled_back(database: Database) -> None:
    insert = sa.text(
        "INSERT INTO model_versions (name, version, sha256, schema_sha256, input_schema, format,"
        " added_at) VALUES ('a', '1', 'b', 'c', '', 'd', '2026-01-01T00:00:00.000000Z')"
    )

    def fail_halfway() -> None:
        with database.write() as connection:
            connection.execute(insert)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    with database.read() as connection:
        rows = connection.execute(sa.text("SELECT count(*) FROM model_versions")).scalar_one()
    assert rows == 0


@pytest.mark.parametrize("url", ["", "mysql://host/name", "sqlite://", "sqlite:///:memory:"])
def test_an_address_that_cannot_keep_a_record_is_refused(url: str) -> None:
    with pytest.raises(DatabaseError):
        Database(url)


def test_an_sqlite_file_is_private_and_its_directory_is_made(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "record.db"
    database = Database(f"sqlite:///{path}")
    database.upgrade()
    with database.write() as connection:
        connection.execute(sa.text("DELETE FROM requests"))
        files = list(path.parent.iterdir())
        assert {file.name for file in files} >= {"record.db", "record.db-wal"}
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    database.close()


def test_every_sqlite_connection_commits_durably(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'record.db'}")
    database.upgrade()
    with database.read() as one, database.read() as two:
        for connection in (one, two):
            for pragma, value in (
                ("journal_mode", "wal"),
                ("synchronous", 2),
                ("foreign_keys", 1),
                ("busy_timeout", 10000),
            ):
                assert connection.execute(sa.text(f"PRAGMA {pragma}")).scalar_one() == value
    database.close()


def test_every_postgresql_connection_commits_durably(postgres_url: str) -> None:
    database = Database(postgres_url)
    with database.engine.connect() as connection:
        connection.execute(sa.text("SHOW synchronous_commit"))
        connection.rollback()
        setting = connection.execute(sa.text("SHOW synchronous_commit")).scalar_one()
    database.close()
    assert setting == "on"


def test_commits_of_what_can_be_made_again_do_not_wait_for_the_disk(database_url: str) -> None:
    database = Database(database_url)
    database.upgrade()
    loose = Database(database_url)
    loose.commit_loosely()
    asked = "PRAGMA synchronous" if database.dialect == "sqlite" else "SHOW synchronous_commit"
    found = []
    for it in (database, loose):
        with it.write() as connection:
            found.append(connection.execute(sa.text(asked)).scalar_one())
        it.close()

    assert found == ([2, 1] if database.dialect == "sqlite" else ["on", "off"])


def test_an_sqlite_that_can_corrupt_a_shared_file_is_refused() -> None:
    require_version((3, 53, 0))
    with pytest.raises(DatabaseError, match=r"3\.40\.1"):
        require_version((3, 40, 1))
