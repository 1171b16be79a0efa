"""What Alembic runs: the migrations, on the connection that `Database` hands over."""

from __future__ import annotations

from alembic import context

from onrecord.record.tables import metadata

__all__: list[str] = []

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=context.config.attributes["connection"].dialect.name == "sqlite",
)
with context.begin_transaction():
    context.run_migrations()
