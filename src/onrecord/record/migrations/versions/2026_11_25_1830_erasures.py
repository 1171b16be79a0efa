"""Erasures, and what is kept of a payload that was erased."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import UUID

__all__ = ["down_revision", "revision", "upgrade"]

revision = "202611251830"
down_revision = "202611251800"

_ID = sa.String(36).with_variant(UUID(as_uuid=False), "postgresql")
_TIME = sa.String(27).with_variant(sa.DateTime(timezone=True), "postgresql")
_BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "erasures",
        sa.Column("seq", _BIG, nullable=False, autoincrement=False),
        sa.Column("id", _ID, nullable=False),
        sa.Column("erased_at", _TIME, nullable=False),
        sa.Column("by_user_id", _ID),
        sa.Column("operator", sa.Text),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("what", sa.Text, nullable=False),
        sa.Column("selection", sa.Text, nullable=False),
        sa.Column("calls", sa.Integer, nullable=False),
        sa.Column("leaves", sa.LargeBinary, nullable=False),
        sa.Column("first_leaf", _BIG, nullable=False),
        sa.Column("last_leaf", _BIG, nullable=False),
        sa.Column("signature", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_erasures"),
        sa.ForeignKeyConstraint(["by_user_id"], ["users.id"], name="fk_erasures_by_user_id_users"),
    )
    op.create_index("ix_erasures_id_seq", "erasures", ["id", "seq"])
    op.create_index("ix_erasures_last_leaf", "erasures", ["last_leaf"])
    # None of these copies a table: each changes what the rows to come, or to go, may be.
    reference = sa.ForeignKey("erasures.seq", name="fk_requests_erasure_seq_erasures")
    op.add_column("requests", sa.Column("input_commitment", sa.LargeBinary))
    op.add_column("requests", sa.Column("erasure_seq", _BIG, reference), inline_references=True)
    op.add_column("responses", sa.Column("output_commitment", sa.LargeBinary))
    op.execute("ALTER TABLE responses ALTER COLUMN output DROP NOT NULL")
