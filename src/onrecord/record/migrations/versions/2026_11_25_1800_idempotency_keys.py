"""The idempotency key of a call, which no other call of its user may have."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["down_revision", "revision", "upgrade"]

revision = "202611251800"
down_revision = "202611251700"


def upgrade() -> None:
    op.add_column("requests", sa.Column("idempotency_key", sa.Text))
    op.create_index(
        "ix_requests_user_id_idempotency_key",
        "requests",
        ["user_id", "idempotency_key"],
        unique=True,
        sqlite_where=sa.text("idempotency_key IS NOT NULL"),
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
