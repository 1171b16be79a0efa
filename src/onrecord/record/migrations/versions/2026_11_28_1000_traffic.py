"""How many calls came in each ten minutes and three hours, and what became of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

__all__ = ["down_revision", "revision", "upgrade"]

revision = "202611281000"
down_revision = "202611280900"

_TIME = sa.String(27).with_variant(sa.DateTime(timezone=True), "postgresql")
_BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "traffic",
        sa.Column("minutes", sa.Integer, nullable=False),
        sa.Column("since", _TIME, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("minutes", "since", name="pk_traffic"),
    )
    op.create_table(
        "traffic_progress",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("done_up_to", _BIG, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_traffic_progress"),
    )
