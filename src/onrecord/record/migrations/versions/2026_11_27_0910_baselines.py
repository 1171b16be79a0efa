"""What the values of calls are compared with, and how those of each hour are spread."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import UUID

__all__ = ["down_revision", "revision", "upgrade"]

revision = "202611270910"
down_revision = "202611270900"

_ID = sa.String(36).with_variant(UUID(as_uuid=False), "postgresql")
_TIME = sa.String(27).with_variant(sa.DateTime(timezone=True), "postgresql")
_BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "baselines",
        sa.Column("id", _ID, nullable=False),
        sa.Column("model_version_id", sa.Integer, nullable=False),
        sa.Column("made_at", _TIME, nullable=False),
        sa.Column("by_user_id", _ID),
        sa.Column("operator", sa.Text),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("done_up_to", _BIG, nullable=False),
        sa.Column("found", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_baselines"),
        sa.ForeignKeyConstraint(
            ["model_version_id"],
            ["model_versions.id"],
            name="fk_baselines_model_version_id_model_versions",
        ),
        sa.ForeignKeyConstraint(["by_user_id"], ["users.id"], name="fk_baselines_by_user_id_users"),
    )
    op.create_index("ix_baselines_model_version_id_id", "baselines", ["model_version_id", "id"])
    op.create_table(
        "drift_sketches",
        sa.Column("baseline_id", _ID, nullable=False),
        sa.Column("hour", _TIME, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("baseline_id", "hour", name="pk_drift_sketches"),
        sa.ForeignKeyConstraint(
            ["baseline_id"], ["baselines.id"], name="fk_drift_sketches_baseline_id_baselines"
        ),
    )
