"""What one client may ask of the server's connections, so that it harms no other."""

from __future__ import annotations

import resource
from dataclasses import dataclass

__all__ = ["LIMITS_KEY", "Limits", "allow_open_files", "connections_within"]

LIMITS_KEY = "onrecord.limits"
"""Under which key of the ASGI lifespan state the protocol finds the `Limits`."""

_MOST_FILES = 65_536
_OWN_FILES = 128
"""For everything that is no client's connection: databases, logs, models, pipes."""


@dataclass(frozen=True)
class Limits:
    """Bounds of one connection, and how many `connections` there may be.

    A request's head has to arrive within `head_seconds`, with at most `head_bytes` and `headers`;
    a client that reads nothing of its answer for `write_seconds` is hung up on. `small_body` is
    the size up to which a body that nobody reads is received, so that its connection can be kept.
    """

    connections: int
    head_seconds: float = 10.0
    write_seconds: float = 30.0
    head_bytes: int = 64 * 1024
    headers: int = 100
    small_body: int = 64 * 1024


def allow_open_files() -> None:
    """Let this process and its children open as many files as the system lets it allow itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def connections_within() -> int:
    """Return how many connections this process can have with the files that it may open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_FILES if soft == resource.RLIM_INFINITY else soft
    return max(most - _OWN_FILES, 1)
