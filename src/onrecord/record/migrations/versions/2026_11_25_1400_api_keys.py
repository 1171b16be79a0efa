"""API keys, and which of them made a call."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import UUID

__all__ = ["down_revision", "revision", "upgrade"]

revision = "202611251400"
down_revision = "202611251200"

_ID = sa.String(36).with_variant(UUID(as_uuid=False), "postgresql")
_TIME = sa.String(27).with_variant(sa.DateTime(timezone=True), "postgresql")


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", _ID, nullable=False),
        sa.Column("user_id", _ID, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("prefix", sa.Text, nullable=False),
        sa.Column("key_sha256", sa.Text, nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("models", sa.Text),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.Column("revoked_at", _TIME),
        sa.Column("last_used_at", _TIME),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("prefix", name="uq_api_keys_prefix"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_api_keys_user_id_users"),
    )
    op.create_index("ix_api_keys_user_id_id", "api_keys", ["user_id", "id"])
    reference = sa.ForeignKey("api_keys.id", name="fk_requests_api_key_id_api_keys")
    op.add_column("requests", sa.Column("api_key_id", _ID, reference), inline_references=True)
    op.create_index(
        "ix_requests_api_key_id_id",
        "requests",
        ["api_key_id", "id"],
        sqlite_where=sa.text("api_key_id IS NOT NULL"),
        postgresql_where=sa.text("api_key_id IS NOT NULL"),
    )
