"""What a candidate answered to calls unseen, and how far it has come."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import UUID

__all__ = ["down_revision", "revision", "upgrade"]

revision = "202611270900"
down_revision = "202611260920"

_ID = sa.String(36).with_variant(UUID(as_uuid=False), "postgresql")
_TIME = sa.String(27).with_variant(sa.DateTime(timezone=True), "postgresql")
_BIG_INTEGER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "shadows",
        sa.Column("change_seq", _BIG_INTEGER, nullable=False, autoincrement=False),
        sa.Column("model_version_id", sa.Integer, nullable=False),
        sa.Column("done_up_to", _BIG_INTEGER, nullable=False),
        sa.Column("skipped", sa.Integer, nullable=False),
        sa.Column("recorded_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("change_seq", name="pk_shadows"),
        sa.ForeignKeyConstraint(
            ["change_seq"], ["model_changes.seq"], name="fk_shadows_change_seq_model_changes"
        ),
        sa.ForeignKeyConstraint(
            ["model_version_id"],
            ["model_versions.id"],
            name="fk_shadows_model_version_id_model_versions",
        ),
    )
    op.create_table(
        "shadow_answers",
        sa.Column("request_id", _ID, nullable=False),
        sa.Column("model_version_id", sa.Integer, nullable=False),
        sa.Column("output", sa.LargeBinary),
        sa.Column("error", sa.Text),
        sa.Column("duration_us", sa.Float, nullable=False),
        sa.Column("recorded_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("request_id", "model_version_id", name="pk_shadow_answers"),
        sa.ForeignKeyConstraint(
            ["request_id"], ["requests.id"], name="fk_shadow_answers_request_id_requests"
        ),
        sa.ForeignKeyConstraint(
            ["model_version_id"],
            ["model_versions.id"],
            name="fk_shadow_answers_model_version_id_model_versions",
        ),
    )
