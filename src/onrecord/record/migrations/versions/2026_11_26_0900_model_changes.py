"""The files of model versions, which of them answers, and what changed about that."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import UUID

__all__ = ["down_revision", "revision", "upgrade"]

revision = "202611260900"
down_revision = "202611251840"

_ID = sa.String(36).with_variant(UUID(as_uuid=False), "postgresql")
_TIME = sa.String(27).with_variant(sa.DateTime(timezone=True), "postgresql")
_BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.alter_column("model_versions", "first_served_at", new_column_name="added_at")
    number = sa.Column("number", sa.Integer, nullable=False, server_default=sa.text("0"))
    op.add_column("model_versions", number)
    op.add_column("model_versions", sa.Column("stored_at", _TIME))
    op.add_column("model_versions", sa.Column("retired_at", _TIME))
    op.execute(
        "UPDATE model_versions SET number = (SELECT count(*) FROM model_versions AS earlier"
        " WHERE earlier.name = model_versions.name AND earlier.id <= model_versions.id)"
    )
    op.create_index(
        "ix_model_versions_name_number", "model_versions", ["name", "number"], unique=True
    )
    op.create_table(
        "model_files",
        sa.Column("model_version_id", sa.Integer, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("part", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("model_version_id", "name", "part", name="pk_model_files"),
        _to_model_versions("model_files", "model_version_id"),
    )
    op.create_table(
        "deployments",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("live_id", sa.Integer),
        sa.Column("previous_id", sa.Integer),
        sa.Column("candidate_id", sa.Integer),
        sa.Column("shadow_share", sa.Float, nullable=False),
        sa.Column("canary_share", sa.Float, nullable=False),
        sa.Column("revision", _BIG, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_deployments"),
        *(
            _to_model_versions("deployments", column)
            for column in ("live_id", "previous_id", "candidate_id")
        ),
    )
    op.create_table(
        "model_changes",
        sa.Column("seq", _BIG, nullable=False, autoincrement=False),
        sa.Column("id", _ID, nullable=False),
        sa.Column("changed_at", _TIME, nullable=False),
        sa.Column("by_user_id", _ID),
        sa.Column("operator", sa.Text),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("model_version_id", sa.Integer, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("schema_sha256", sa.Text, nullable=False),
        sa.Column("details", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_model_changes"),
        sa.UniqueConstraint("id", name="uq_model_changes_id"),
        sa.ForeignKeyConstraint(
            ["by_user_id"], ["users.id"], name="fk_model_changes_by_user_id_users"
        ),
        _to_model_versions("model_changes", "model_version_id"),
    )
    op.create_index("ix_model_changes_model_seq", "model_changes", ["model", "seq"])


def _to_model_versions(table: str, column: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        [column], ["model_versions.id"], name=f"fk_{table}_{column}_model_versions"
    )
