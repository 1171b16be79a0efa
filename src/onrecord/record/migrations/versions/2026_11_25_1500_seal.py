"""The order of the rows, their salts, and the tables of the seal."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import UUID

__all__ = ["down_revision", "revision", "upgrade"]

revision = "202611251500"
down_revision = "202611251430"

# Types are written out here, not taken from tables.py: a migration must not change with it.
_ID = sa.String(36).with_variant(UUID(as_uuid=False), "postgresql")
_TIME = sa.String(27).with_variant(sa.DateTime(timezone=True), "postgresql")
_BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")

_REQUEST = (
    "id, user_id, model, model_version_id, x_request_id, content_type, input, received_at, "
    "api_key_id"
)
_RESPONSE = (
    "request_id, status, output, error_code, error_fields, duration_us, responded_at, content_type"
)


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        _rebuild_in_sqlite()
    else:
        _alter_in_postgresql()
    _create_tables_of_the_seal()


def _alter_in_postgresql() -> None:
    op.execute("ALTER TABLE responses DROP CONSTRAINT fk_responses_request_id_requests")
    op.execute("ALTER TABLE requests DROP CONSTRAINT pk_requests")
    op.execute(
        "ALTER TABLE requests ADD COLUMN seq bigint GENERATED ALWAYS AS IDENTITY, "
        "ADD COLUMN salt bytea, ADD CONSTRAINT uq_requests_id UNIQUE (id)"
    )
    op.execute("ALTER TABLE requests ADD CONSTRAINT pk_requests PRIMARY KEY (seq)")
    op.execute("UPDATE requests SET salt = uuid_send(gen_random_uuid())")
    op.create_foreign_key(
        "fk_responses_request_id_requests", "responses", "requests", ["request_id"], ["id"]
    )


def _rebuild_in_sqlite() -> None:
    """Copy both tables: SQLite cannot change a primary key, nor drop a table that is referred to.

    The new `responses` refers to the new `requests`, and goes on doing so when that is renamed.
    """
    _create_new_requests()
    _create_new_responses()
    op.execute(
        f"INSERT INTO new_requests ({_REQUEST}, salt) "  # noqa: S608 - names of our own
        f"SELECT {_REQUEST}, randomblob(16) FROM requests ORDER BY rowid"
    )
    op.execute(
        f"INSERT INTO new_responses ({_RESPONSE}) "  # noqa: S608 - names of our own
        f"SELECT {_RESPONSE} FROM responses ORDER BY rowid"
    )
    for table in ("responses", "requests"):
        op.drop_table(table)
    for table in ("requests", "responses"):
        op.rename_table(f"new_{table}", table)
    op.create_index("ix_requests_user_id_id", "requests", ["user_id", "id"])
    op.create_index("ix_requests_model_version_id_id", "requests", ["model_version_id", "id"])
    op.create_index(
        "ix_requests_x_request_id",
        "requests",
        ["x_request_id"],
        sqlite_where=sa.text("x_request_id IS NOT NULL"),
    )
    op.create_index(
        "ix_requests_api_key_id_id",
        "requests",
        ["api_key_id", "id"],
        sqlite_where=sa.text("api_key_id IS NOT NULL"),
    )
    op.create_index(
        "ix_responses_status_request_id",
        "responses",
        ["status", "request_id"],
        sqlite_where=sa.text("status >= 400"),
    )


def _create_new_requests() -> None:
    op.create_table(
        "new_requests",
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("id", _ID, nullable=False),
        sa.Column("user_id", _ID, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("model_version_id", sa.Integer),
        sa.Column("x_request_id", sa.Text),
        sa.Column("content_type", sa.Text),
        sa.Column("input", sa.LargeBinary),
        sa.Column("received_at", _TIME, nullable=False),
        sa.Column("api_key_id", _ID),
        sa.Column("salt", sa.LargeBinary),
        sa.PrimaryKeyConstraint("seq", name="pk_requests"),
        sa.UniqueConstraint("id", name="uq_requests_id"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_requests_user_id_users"),
        sa.ForeignKeyConstraint(
            ["model_version_id"],
            ["model_versions.id"],
            name="fk_requests_model_version_id_model_versions",
        ),
        sa.ForeignKeyConstraint(
            ["api_key_id"], ["api_keys.id"], name="fk_requests_api_key_id_api_keys"
        ),
        sqlite_autoincrement=True,
    )


def _create_new_responses() -> None:
    op.create_table(
        "new_responses",
        sa.Column("request_id", _ID, nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("output", sa.LargeBinary, nullable=False),
        sa.Column("error_code", sa.Text),
        sa.Column("error_fields", sa.Text),
        sa.Column("duration_us", sa.Integer, nullable=False),
        sa.Column("responded_at", _TIME, nullable=False),
        sa.Column("content_type", sa.Text),
        sa.PrimaryKeyConstraint("request_id", name="pk_responses"),
        sa.ForeignKeyConstraint(
            ["request_id"], ["new_requests.id"], name="fk_responses_request_id_requests"
        ),
    )


def _create_tables_of_the_seal() -> None:
    op.create_table(
        "tree_tiles",
        sa.Column("level", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("number", _BIG, nullable=False, autoincrement=False),
        sa.Column("hashes", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("level", "number", name="pk_tree_tiles"),
    )
    op.create_table(
        "sealed_blocks",
        sa.Column("number", _BIG, nullable=False, autoincrement=False),
        sa.Column("last_seq", _BIG, nullable=False),
        sa.Column("seqs", sa.LargeBinary, nullable=False),
        sa.Column("ids", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_sealed_blocks"),
        sa.UniqueConstraint("last_seq", name="uq_sealed_blocks_last_seq"),
    )
    op.create_table(
        "tree_heads",
        sa.Column("size", _BIG, nullable=False, autoincrement=False),
        sa.Column("last_seq", _BIG, nullable=False),
        sa.Column("signed_at", _TIME, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("size", name="pk_tree_heads"),
    )
