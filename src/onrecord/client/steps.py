"""What a call of the client does, apart from the waiting: a flow of steps, which a driver takes.

A flow is a generator. It yields a step and gets what came of it; a request of which nothing came
is raised into it as httpx2's TransportError. So the same flow serves `Client`, which blocks, and
`AsyncClient`, which awaits.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

__all__ = ["Alone", "Flow", "Pause", "Send", "Step"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Send:
    """Send a request and get its answer, an `httpx2.Response` that has been read.

    `path` is what follows the server's address, with its query. `content` is not shown in a
    traceback: it may be a password.
    """

    method: str
    path: str
    content: bytes | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait for so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Alone:
    """Take another flow's steps while no other `Alone` of this client does, and get its result."""

    flow: Flow[Any]


Step: TypeAlias = Send | Pause | Alone
Flow: TypeAlias = Generator[Step, Any, T]
