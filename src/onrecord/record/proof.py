"""Inclusion proofs: that one call is in the tree under a signed head, for whoever has the key."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from sqlalchemy import Connection, select

from onrecord.record.leaf import Row, leaf_of, read_row
from onrecord.record.merkle import audit_path
from onrecord.record.seal import SEQ_BYTES, newest_head
from onrecord.record.tables import requests, sealed_blocks
from onrecord.record.tiles import WIDTH, Tiles

__all__ = ["Proof", "leaf_index", "leaf_indexes", "prove"]


@dataclass(frozen=True, slots=True)
class Proof:
    """A call's leaf, its place `index` in a tree of `size` leaves, and the path to the head.

    `row` is the call itself: with its salt, its input and output can be checked against the
    commitments in the leaf, unless they were erased. `note` is the signed head.
    """

    row: Row
    leaf: bytes
    index: int
    size: int
    path: list[bytes]
    note: str


def prove(connection: Connection, request_id: str) -> Proof | None:
    """Return the proof of a call that is on record; None where no head covers it yet.

    Raises LookupError where there is no such call, or the seal's tables have been damaged.
    """
    seq = connection.execute(select(requests.c.seq).where(requests.c.id == request_id)).scalar()
    if seq is None:
        raise LookupError(f"there is no call {request_id}")
    head = newest_head(connection)
    if head is None or seq > head.last_seq:
        return None
    row = read_row(connection, seq)
    index = leaf_index(connection, seq)
    path = audit_path(index, head.size, Tiles(connection).node)
    return Proof(row, leaf_of(row), index, head.size, path, head.note)


def leaf_index(connection: Connection, seq: int) -> int:
    """Return the place in the tree of a sealed row; raises LookupError where it has none."""
    try:
        return leaf_indexes(connection, seq)[seq]
    except KeyError:
        raise LookupError(f"the row {seq} is not where it was sealed") from None


def leaf_indexes(connection: Connection, seq: int) -> dict[int, int]:
    """Return the places in the tree of the rows, by `seq`, that were sealed about one."""
    block = connection.execute(
        select(sealed_blocks.c.number, sealed_blocks.c.seqs)
        .where(sealed_blocks.c.last_seq >= seq)
        .order_by(sealed_blocks.c.last_seq)
        .limit(1)
    ).one_or_none()
    seqs = b"" if block is None else bytes(block.seqs)
    numbers = struct.unpack(f">{len(seqs) // SEQ_BYTES}q", seqs)
    first = 0 if block is None else int(block.number) * WIDTH
    return {number: first + place for place, number in enumerate(numbers)}
