"""What the callers know: which calls they sent, and which answers came back whole."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from hashlib import blake2b

__all__ = ["ON_RECORD", "Ledger", "digest"]

ON_RECORD = frozenset({200, 400})
"""The statuses whose answers are promised to be on record."""


def digest(*parts: bytes) -> bytes:
    """Return what stands for some bytes here, so that a million calls fit in memory."""
    whole = blake2b(digest_size=16)
    for part in parts:
        whole.update(len(part).to_bytes(8, "big"))
        whole.update(part)
    return whole.digest()


@dataclass
class Ledger:
    """Every call of a run. Each has an input of its own, so that a call recorded twice is seen.

    `answered` has, by its id, the digest of input and output of each call whose answer is promised
    to be on record; `open` the digest of the input of each other call, which may be there or not.
    """

    answered: dict[str, bytes] = field(default_factory=dict)
    open: set[bytes] = field(default_factory=set)
    statuses: Counter[int] = field(default_factory=Counter)
    cut: int = 0

    def answer(self, status: int, request_id: str, sent: bytes, received: bytes) -> None:
        """Keep an answer that arrived whole."""
        self.statuses[status] += 1
        if status in ON_RECORD:
            self.answered[request_id] = digest(sent, received)
        else:
            self.open.add(digest(sent))

    def no_answer(self, sent: bytes) -> None:
        """Keep that a call was sent and its answer never came."""
        self.cut += 1
        self.open.add(digest(sent))

    @property
    def told(self) -> int:
        """How many calls were told anything."""
        return self.statuses.total()

    @property
    def refused(self) -> int:
        """How many calls were told that they are not on record."""
        return sum(count for status, count in self.statuses.items() if status not in ON_RECORD)
