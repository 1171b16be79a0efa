"""Users of an external issuer, known by it and their subject there."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["down_revision", "revision", "upgrade"]

revision = "202611251840"
down_revision = "202611251830"


def upgrade() -> None:
    op.add_column("users", sa.Column("issuer", sa.Text))
    op.add_column("users", sa.Column("subject", sa.Text))
    op.create_index("ix_users_issuer_subject", "users", ["issuer", "subject"], unique=True)
