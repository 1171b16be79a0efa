"""onrecord: serve a tabular machine-learning model with every answer on the record.

`Client` and `AsyncClient` call such a server. They are imported when they are first asked for, and
import nothing of the server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onrecord.client import AsyncClient, Client

__all__ = ["AsyncClient", "Client"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from onrecord import client

    return getattr(client, name)
