"""How the tables came to be: one Alembic migration per change, in `versions`."""
