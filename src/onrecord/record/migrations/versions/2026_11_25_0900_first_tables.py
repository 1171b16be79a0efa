"""First tables: users, model versions, requests and responses."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import UUID

__all__ = ["down_revision", "revision", "upgrade"]

revision = "202611250900"
down_revision = None

# Types are written out here, not taken from tables.py: a migration must not change with it.
_ID = sa.String(36).with_variant(UUID(as_uuid=False), "postgresql")
_TIME = sa.String(27).with_variant(sa.DateTime(timezone=True), "postgresql")


def upgrade() -> None:
    op.create_table(
        "users",
        sa.Column("id", _ID, nullable=False),
        sa.Column("username", sa.Text, nullable=False),
        sa.Column("username_key", sa.Text, nullable=False),
        sa.Column("email", sa.Text),
        sa.Column("password_hash", sa.Text),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("token_version", sa.Integer, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("disabled_at", _TIME),
        sa.Column("deleted_at", _TIME),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("username_key", name="uq_users_username_key"),
    )
    op.create_table(
        "model_versions",
        sa.Column("id", sa.Integer, autoincrement=True, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("schema_sha256", sa.Text, nullable=False),
        sa.Column("input_schema", sa.LargeBinary, nullable=False),
        sa.Column("format", sa.Text, nullable=False),
        sa.Column("first_served_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_model_versions"),
        sa.UniqueConstraint(
            "name",
            "sha256",
            "schema_sha256",
            "version",
            name="uq_model_versions_name_sha256_schema_sha256_version",
        ),
    )
    _create_requests()
    _create_responses()


def _create_requests() -> None:
    op.create_table(
        "requests",
        sa.Column("id", _ID, nullable=False),
        sa.Column("user_id", _ID, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("model_version_id", sa.Integer),
        sa.Column("x_request_id", sa.Text),
        sa.Column("content_type", sa.Text),
        sa.Column("input", sa.LargeBinary),
        sa.Column("received_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_requests"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_requests_user_id_users"),
        sa.ForeignKeyConstraint(
            ["model_version_id"],
            ["model_versions.id"],
            name="fk_requests_model_version_id_model_versions",
        ),
    )
    op.create_index("ix_requests_user_id_id", "requests", ["user_id", "id"])
    op.create_index("ix_requests_model_version_id_id", "requests", ["model_version_id", "id"])
    op.create_index(
        "ix_requests_x_request_id",
        "requests",
        ["x_request_id"],
        sqlite_where=sa.text("x_request_id IS NOT NULL"),
        postgresql_where=sa.text("x_request_id IS NOT NULL"),
    )


def _create_responses() -> None:
    op.create_table(
        "responses",
        sa.Column("request_id", _ID, nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("output", sa.LargeBinary, nullable=False),
        sa.Column("error_code", sa.Text),
        sa.Column("error_fields", sa.Text),
        sa.Column("duration_us", sa.Integer, nullable=False),
        sa.Column("responded_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("request_id", name="pk_responses"),
        sa.ForeignKeyConstraint(
            ["request_id"], ["requests.id"], name="fk_responses_request_id_requests"
        ),
    )
    op.create_index(
        "ix_responses_status_request_id",
        "responses",
        ["status", "request_id"],
        sqlite_where=sa.text("status >= 400"),
        postgresql_where=sa.text("status >= 400"),
    )
