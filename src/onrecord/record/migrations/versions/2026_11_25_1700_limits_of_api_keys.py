"""The rate and the quota of an API key's own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["down_revision", "revision", "upgrade"]

revision = "202611251700"
down_revision = "202611251500"


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("rate", sa.Text))
    op.add_column("api_keys", sa.Column("quota", sa.Integer))
