"""The types of the record's columns that are not the same in both databases."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, DateTime, Dialect, Integer, String
from sqlalchemy.dialects.postgresql import UUID
from sqlalchemy.types import TypeDecorator, TypeEngine

__all__ = ["BIG_INTEGER", "UtcDateTime", "id_type", "utc_text"]


BIG_INTEGER = BigInteger().with_variant(Integer, "sqlite")
"""64 bits; in SQLite only an INTEGER can be the row's own number."""


def utc_text(moment: datetime) -> str:
    """Return an aware datetime as SQLite stores it: 'YYYY-MM-DDTHH:MM:SS.ffffffZ', in UTC."""
    in_utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return in_utc.isoformat(timespec="microseconds")[:-6] + "Z"


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime: sortable text in SQLite, timestamptz in PostgreSQL."""

    impl = String(27)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Choose the column type of the database at hand."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(DateTime(timezone=True))
        return dialect.type_descriptor(String(27))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Turn a datetime into what the database stores; a naive one is a ValueError."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("A time without a time zone cannot be put on record.")
        return value if dialect.name == "postgresql" else utc_text(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Turn what the database stores into an aware datetime in UTC."""
        del dialect
        if value is None:
            return None
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        return moment.astimezone(UTC)


def id_type() -> TypeEngine[str]:
    """Return the type of an id: 36 characters of text, a uuid in PostgreSQL."""
    return String(36).with_variant(UUID(as_uuid=False), "postgresql")
