"""The content type of an answer, where it is not JSON."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["down_revision", "revision", "upgrade"]

revision = "202611251200"
down_revision = "202611250900"


def upgrade() -> None:
    op.add_column("responses", sa.Column("content_type", sa.Text))
