"""What really happened to what was predicted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import UUID

__all__ = ["down_revision", "revision", "upgrade"]

revision = "202611260920"
down_revision = "202611260900"

_ID = sa.String(36).with_variant(UUID(as_uuid=False), "postgresql")
_TIME = sa.String(27).with_variant(sa.DateTime(timezone=True), "postgresql")


def upgrade() -> None:
    op.create_table(
        "outcomes",
        sa.Column("id", _ID, nullable=False),
        sa.Column("prediction_id", _ID, nullable=False),
        sa.Column("request_id", _ID, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("observed_at", _TIME),
        sa.Column("recorded_at", _TIME, nullable=False),
        sa.Column("by_user_id", _ID),
        sa.Column("operator", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_outcomes"),
        sa.ForeignKeyConstraint(
            ["request_id"], ["requests.id"], name="fk_outcomes_request_id_requests"
        ),
        sa.ForeignKeyConstraint(["by_user_id"], ["users.id"], name="fk_outcomes_by_user_id_users"),
    )
    op.create_index("ix_outcomes_prediction_id_id", "outcomes", ["prediction_id", "id"])
    op.create_index("ix_outcomes_request_id", "outcomes", ["request_id"])
