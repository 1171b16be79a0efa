"""Whether a call asked what moved the model."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["down_revision", "revision", "upgrade"]

revision = "202611280900"
down_revision = "202611270910"


def upgrade() -> None:
    op.add_column("requests", sa.Column("explain", sa.Boolean))
