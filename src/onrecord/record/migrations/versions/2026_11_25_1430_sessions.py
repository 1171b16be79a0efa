"""Sessions: sign-ins that can be refreshed and ended."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import UUID

__all__ = ["down_revision", "revision", "upgrade"]

revision = "202611251430"
down_revision = "202611251400"

_ID = sa.String(36).with_variant(UUID(as_uuid=False), "postgresql")
_TIME = sa.String(27).with_variant(sa.DateTime(timezone=True), "postgresql")


def upgrade() -> None:
    op.create_table(
        "sessions",
        sa.Column("id", _ID, nullable=False),
        sa.Column("user_id", _ID, nullable=False),
        sa.Column("token_version", sa.Integer, nullable=False),
        sa.Column("family_sha256", sa.Text, nullable=False),
        sa.Column("refresh_sha256", sa.Text, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("refreshed_at", _TIME, nullable=False),
        sa.Column("access_expires_at", _TIME, nullable=False),
        sa.Column("ended_at", _TIME),
        sa.PrimaryKeyConstraint("id", name="pk_sessions"),
        sa.UniqueConstraint("family_sha256", name="uq_sessions_family_sha256"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_sessions_user_id_users"),
    )
    op.create_index("ix_sessions_user_id_created_at", "sessions", ["user_id", "created_at"])
    op.create_index(
        "ix_sessions_user_id_access_expires_at",
        "sessions",
        ["user_id", "access_expires_at"],
        sqlite_where=sa.text("ended_at IS NOT NULL"),
        postgresql_where=sa.text("ended_at IS NOT NULL"),
    )
