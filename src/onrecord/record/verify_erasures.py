"""What erasures explain of a record that is verified, and what they do not."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import Connection

from onrecord.record.checkpoint import PublicKey
from onrecord.record.erasures import Erasure, over
from onrecord.record.leaf import Leaves

__all__ = ["Explained", "Explanations", "last_seq_of", "unexplained", "with_removed"]

_REMOVED = ""


@dataclass(frozen=True, slots=True)
class Explained:
    """What signed erasures say of some leaves that stand side by side, by their place among these.

    `payloads` has the `seq` of the erasure that took a call's payload; the rows of the calls in
    `rows` were removed.
    """

    payloads: dict[int, int] = field(default_factory=dict)
    rows: set[int] = field(default_factory=set)


class Explanations:
    """The erasures on record that the record's key has signed; no other explains anything."""

    def __init__(self, key: PublicKey) -> None:
        self._key = key
        self._signed: dict[int, bool] = {}

    def are_signed(self, erasure: Erasure) -> bool:
        """Tell whether an erasure is signed; each is checked once."""
        found = self._signed.get(erasure.seq)
        if found is None:
            found = self._signed[erasure.seq] = erasure.is_signed_by(self._key)
        return found

    def over(self, connection: Connection, start: int, count: int) -> Explained:
        """Return what they say of `count` leaves from the leaf `start` on."""
        explained = Explained()
        for erasure in over(connection, start, count):
            if not self.are_signed(erasure):
                continue
            for leaf in erasure.places():
                if start <= leaf < start + count:
                    if erasure.what == "rows":
                        explained.rows.add(leaf - start)
                    else:
                        explained.payloads[leaf - start] = erasure.seq
        return explained


def with_removed(leaves: Leaves, explained: Explained, sealed: list[bytes]) -> Leaves:
    """Return leaves with those of removed rows among them, as the seal's tables have these.

    Whether the tables tell the truth shows in the tree's root. A removed row has no id here.
    """
    found = Leaves([], [], [])
    rest = iter(range(len(leaves.hashes)))
    for place in range(len(leaves.hashes) + len(explained.rows)):
        if place in explained.rows and place < len(sealed):
            found.hashes.append(sealed[place])
            found.seqs.append(0)
            found.ids.append(_REMOVED)
            continue
        own = next(rest, None)
        if own is None:
            break
        found.hashes.append(leaves.hashes[own])
        found.seqs.append(leaves.seqs[own])
        found.ids.append(leaves.ids[own])
        if own in leaves.erased:
            found.erased[place] = leaves.erased[own]
        if own in leaves.erasures:
            found.erasures[place] = leaves.erasures[own]
        if own in leaves.changes:
            found.changes[place] = leaves.changes[own]
    return found


def last_seq_of(leaves: Leaves, before: int | None) -> int | None:
    """Return the seq of the last row that is there, `before` where all were removed."""
    places = reversed(range(len(leaves.seqs)))
    return next((leaves.seqs[place] for place in places if leaves.ids[place] != _REMOVED), before)


def unexplained(
    leaves: Leaves, explained: Explained, explanations: Explanations
) -> tuple[int, str] | None:
    """Return the first place, of leaves that are as they were sealed, where erasures do not fit."""
    wrong: dict[int, str] = {}
    for place, seq in leaves.erased.items():
        if explained.payloads.get(place) != seq:
            wrong[place] = (
                "its payload is gone, or said to be, and no erasure that the record's key signed "
                "explains that"
            )
    for place in explained.payloads.keys() - leaves.erased.keys() - explained.rows:
        seq = explained.payloads[place]
        wrong[place] = f"its payload is there, though the erasure in row {seq} took it"
    for place, erasure in leaves.erasures.items():
        if not explanations.are_signed(erasure):
            wrong[place] = "it is an erasure that the record's key did not sign"
    return min(wrong.items()) if wrong else None
