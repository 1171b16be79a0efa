"""A database's address as people and logs may see it."""

from __future__ import annotations

from sqlalchemy.engine import URL

__all__ = ["masked_url"]

_MASK = "***"
_OPEN = frozenset({"host", "port", "dbname", "user", "sslmode", "application_name"})
"""What libpq takes in an address that is no secret; anything else there might be one."""


def masked_url(address: URL) -> str:
    """Return an address without its password, wherever in it that stands.

    libpq takes `password` and `sslpassword` behind the question mark as well.
    """
    if address.get_backend_name() != "sqlite":
        hidden = {name: _MASK for name in address.query if name.lower() not in _OPEN}
        address = address.update_query_dict(hidden)
    return address.render_as_string(hide_password=True)
