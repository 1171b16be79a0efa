"""Verification that the record is what the signed heads outside the database say it was.

Only the heads and the public key are trusted. Every leaf is made again from its row, and the roots
over them must be those that were signed. The seal's own tables serve to name the row at fault; who
rewrites them together with rows is found out by the next head all the same. A payload or a row that
is gone is no fault where an erasure that the same key signed names it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, exc, func, select, union_all

from onrecord.errors import DatabaseError, SealError
from onrecord.record.checkpoint import Head, PublicKey, open_note
from onrecord.record.database import Database
from onrecord.record.erasures import Act, Erasure, acts_of, erasures_between
from onrecord.record.heads_file import Line
from onrecord.record.leaf import Leaves, read_leaves
from onrecord.record.merkle import Frontier
from onrecord.record.seal import ID_BYTES, SEQ_BYTES, unsealed
from onrecord.record.tables import (
    erasures,
    model_changes,
    requests,
    sealed_blocks,
    tree_tiles,
    utc_text,
)
from onrecord.record.tiles import HASH_BYTES, WIDTH, split, tile_root
from onrecord.record.verify_erasures import (
    Explained,
    Explanations,
    last_seq_of,
    unexplained,
    with_removed,
)

__all__ = ["Fault", "Verified", "signed_heads", "verify"]

_TILES_AT_ONCE = 16
_LEAVES_AT_ONCE = _TILES_AT_ONCE * WIDTH
_TILE_LEVEL = 8
_UNREADABLE = b""

_Key = tuple[int | None, str | None]


@dataclass(frozen=True, slots=True)
class Fault:
    """The first row that is not as it was sealed.

    `leaf` is its place in the tree, from 0; `seq` and `id` are what was sealed there, None where
    the database does not tell. `what` is a sentence.
    """

    leaf: int
    seq: int | None
    id: str | None
    what: str


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found: `rows` were checked under `heads`; `unsealed` rows follow the last head.

    `erasures` explain what is gone; those in `unsealed_erasures` follow the last head. `changes` is
    how many of the rows are changes of which model version answers.
    """

    rows: int
    heads: int
    newest: Head
    unsealed: int
    fault: Fault | None
    erasures: list[Act]
    unsealed_erasures: list[Act]
    changes: int


def signed_heads(lines: Iterable[Line], key: PublicKey) -> list[Head]:
    """Return the heads in a heads file, smallest first, one of each size.

    A line that a crash cut short is none. Raises SealError where one is not signed by the key, is
    of another record, or two heads of one size differ.
    """
    heads: dict[int, Head] = {}
    for line in lines:
        if line.note is None:
            continue
        try:
            head = open_note(line.note, key)
            if head.origin != key.name:
                raise SealError(f"the head is of another record, {head.origin}")
            if heads.setdefault(head.size, head).root != head.root:
                raise SealError(f"the key has signed two different heads of size {head.size}")
        except SealError as error:
            raise SealError(f"line {line.number} of the heads file: {error}") from None
    if not heads:
        raise SealError("the heads file has no head; `onrecord seal` signs one")
    return [heads[size] for size in sorted(heads)]


def verify(
    database: Database,
    heads: list[Head],
    key: PublicKey,
    advance: Callable[[int], object] = lambda _: None,
) -> Verified:
    """Check the rows under signed heads, smallest first; `advance` is told of rows as they go.

    `key` is that of the heads. Raises DatabaseError where the database cannot be read.
    """
    try:
        return _verify(database, heads, key, advance)
    except (exc.SQLAlchemyError, database.engine.dialect.dbapi.Error) as error:  # type: ignore[union-attr]
        raise DatabaseError(f"The record cannot be read: {error}") from error


def _verify(
    database: Database, heads: list[Head], key: PublicKey, advance: Callable[[int], object]
) -> Verified:
    tree = Frontier()
    rows = _Rows(database, key)
    signed: Head | None = None
    fault: Fault | None = None
    for head in heads:
        while tree.size < head.size and fault is None:
            limit = min(_LEAVES_AT_ONCE - tree.size % _LEAVES_AT_ONCE, head.size - tree.size)
            leaves, fault = _read_and_compared(rows, tree, head, limit)
            if fault is None:
                _add(tree, leaves.hashes)
                rows.pass_by(leaves)
                advance(limit)
        if fault is None and tree.root() != head.root:
            fault = _rewritten(database, signed, head)
        if fault is not None:
            break
        signed = head
    with database.read() as connection:
        rest = 0 if fault else unsealed(connection, rows.last_seq)
        late = erasures_between(connection, after=rows.last_seq) if fault is None else []
    late = [erasure for erasure in late if rows.explanations.are_signed(erasure)]
    return Verified(
        tree.size,
        len(heads),
        heads[-1],
        rest,
        fault,
        acts_of(rows.erasures),
        acts_of(late),
        rows.changes,
    )


class _Rows:
    """The rows of a record, read on and on, those that erasures have removed included."""

    def __init__(self, database: Database, key: PublicKey) -> None:
        self.database = database
        self.explanations = Explanations(key)
        self.last_seq: int | None = None
        self.erasures: list[Erasure] = []
        self.changes = 0

    def read(self, start: int, limit: int, after: int | None) -> tuple[Leaves, Explained]:
        """Return at most `limit` leaves from the leaf `start` on; their rows follow `after`."""
        with self.database.read() as connection:
            explained = self.explanations.over(connection, start, limit)
            sealed = split(_sealed_hashes(connection, start, limit)) if explained.rows else []
        leaves = _read(self.database, after, limit - len(explained.rows))
        return (with_removed(leaves, explained, sealed) if explained.rows else leaves), explained

    def pass_by(self, leaves: Leaves) -> None:
        """Go on after these leaves."""
        self.last_seq = last_seq_of(leaves, self.last_seq)
        self.erasures += leaves.erasures.values()
        self.changes += len(leaves.changes)


def _read_and_compared(
    rows: _Rows, tree: Frontier, head: Head, limit: int
) -> tuple[Leaves, Fault | None]:
    leaves, explained = rows.read(tree.size, limit, rows.last_seq)
    fault = _compared(rows, tree, head, leaves, explained)
    if fault is not None:
        # Somebody may have erased between the reading of erasures and that of rows.
        leaves, explained = rows.read(tree.size, limit, rows.last_seq)
        fault = _compared(rows, tree, head, leaves, explained)
    return leaves, fault


def _compared(
    rows: _Rows, tree: Frontier, head: Head, leaves: Leaves, explained: Explained
) -> Fault | None:
    """Compare the rows that follow `tree` with what was sealed there, up to `head` at most."""
    limit = min(_LEAVES_AT_ONCE - tree.size % _LEAVES_AT_ONCE, head.size - tree.size)
    with rows.database.read() as connection:
        sealed = _sealed_hashes(connection, tree.size, limit)
        if b"".join(leaves.hashes) == sealed and len(leaves.hashes) == limit:
            wrong = unexplained(leaves, explained, rows.explanations)
            return wrong and Fault(tree.size + wrong[0], *_key_of(leaves, wrong[0]), wrong[1])
        place = _first_difference(leaves.hashes, split(sealed))
        leaf = tree.size + place
        if not _gives(_sealed_on(connection, tree.size, head.size), tree, head) and _gives(
            _rows_on(rows, tree.size, head.size), tree, head
        ):
            what = "the row is as it was signed, but the seal's own tables were changed here"
            return Fault(leaf, *_key_of(leaves, place), what)
        return _named(connection, leaf, _sealed_key(connection, leaf), leaves, place)


def _named(
    connection: Connection,
    leaf: int,
    sealed: tuple[int, str] | None,
    leaves: Leaves,
    place: int,
) -> Fault:
    """Say in which way the row at a leaf is not the one that was sealed there."""
    seq, request_id = _key_of(leaves, place)
    if sealed is None:
        return Fault(leaf, seq, request_id, "it is not what was sealed, nor is the seal's table")
    if seq is not None and seq < sealed[0]:
        what = "it was put in among rows that were sealed without it"
        return Fault(leaf, seq, request_id, _of_change(leaves, place) + what)
    if (seq, request_id) == sealed:
        what = _of_change(leaves, place) + "its content is not what was sealed"
    else:
        now = _seq_now(connection, sealed[1])
        if now is not None:
            what = f"it was moved: its seq is now {now}"
        elif seq == sealed[0]:
            what = f"another call stands in its place: {request_id}"
        elif seq is None:
            what = "it is missing: the record ends before it"
        else:
            what = "it is missing"
    return Fault(leaf, *sealed, what)


def _of_change(leaves: Leaves, place: int) -> str:
    change = leaves.changes.get(place)
    return "" if change is None else f"it is a change of the model {change.model}, and "


def _seq_now(connection: Connection, row_id: str) -> int | None:
    """Return where the call or the model change with an id stands; None where it is gone."""
    for table in (requests, model_changes):
        seq = connection.execute(select(table.c.seq).where(table.c.id == row_id)).scalar()
        if seq is not None:
            return int(seq)
    return None


def _rewritten(database: Database, signed: Head | None, head: Head) -> Fault:
    leaf = 0 if signed is None else signed.size
    with database.read() as connection:
        seq, request_id = _sealed_key(connection, leaf) or (None, None)
    return Fault(
        leaf,
        seq,
        request_id,
        f"this row, or one after it up to leaf {head.size - 1}, was changed and the seal's own "
        f"tables with it: they do not give the root that was signed at {utc_text(head.signed_at)}",
    )


def _read(database: Database, after: int | None, limit: int) -> Leaves:
    try:
        with database.read() as connection:
            return read_leaves(connection, after=after, limit=limit)
    except (TypeError, ValueError, database.engine.dialect.dbapi.Error):  # type: ignore[union-attr]
        return _read_one_by_one(database, after, limit)


def _read_one_by_one(database: Database, after: int | None, limit: int) -> Leaves:
    """Read rows of which one holds what no row of ours can; that one gets no hash."""
    found = Leaves([], [], [])
    both = union_all(
        *(select(table.c.seq) for table in (requests, erasures, model_changes))
    ).subquery()
    query = select(both.c.seq).order_by(both.c.seq).limit(limit)
    if after is not None:
        query = query.where(both.c.seq > after)
    with database.read() as connection:
        seqs = connection.execute(query).scalars().all()
    for seq in seqs:
        try:
            with database.read() as connection:
                one = read_leaves(connection, after=seq - 1, up_to=seq, limit=1)
        except (TypeError, ValueError, database.engine.dialect.dbapi.Error):  # type: ignore[union-attr]
            one = Leaves([_UNREADABLE], [seq], [_key_unread(database, seq)])
        found.take(one)
    return found


def _key_unread(database: Database, seq: int) -> str:
    with database.read() as connection:
        query = select(func.hex(requests.c.id) if database.dialect == "sqlite" else requests.c.id)
        found = connection.execute(query.where(requests.c.seq == seq)).scalar_one_or_none()
    if found is None:  # it is an erasure or a model change
        return ""
    return bytes.fromhex(found).decode(errors="replace") if database.dialect == "sqlite" else found


def _rows_on(rows: _Rows, start: int, end: int) -> Iterator[bytes]:
    after = rows.last_seq
    while start < end:
        leaves, _ = rows.read(start, min(end - start, _LEAVES_AT_ONCE), after)
        if not leaves.hashes:
            return
        yield from leaves.hashes
        after = last_seq_of(leaves, after)
        start += len(leaves.hashes)


def _sealed_on(connection: Connection, start: int, end: int) -> Iterator[bytes]:
    while start < end:
        hashes = split(_sealed_hashes(connection, start, min(end - start, _LEAVES_AT_ONCE)))
        if not hashes:
            return
        yield from hashes
        start += len(hashes)


def _gives(leaves: Iterable[bytes], tree: Frontier, head: Head) -> bool:
    """Tell whether `tree` with these leaves after it is what was signed."""
    other = tree.copy()
    other.extend(leaves)
    return other.size == head.size and other.root() == head.root


def _sealed_hashes(connection: Connection, start: int, count: int) -> bytes:
    """Return the hashes of at most `count` leaves from the leaf `start` on, as they were sealed."""
    first = start // WIDTH
    query = (
        select(tree_tiles.c.hashes)
        .where(tree_tiles.c.level == 0, tree_tiles.c.number >= first)
        .where(tree_tiles.c.number <= (start + count - 1) // WIDTH)
        .order_by(tree_tiles.c.number)
    )
    tiles = b"".join(bytes(tile) for tile in connection.execute(query).scalars())
    offset = (start - first * WIDTH) * HASH_BYTES
    return tiles[offset : offset + count * HASH_BYTES]


def _sealed_key(connection: Connection, leaf: int) -> tuple[int, str] | None:
    """Return the seq and the id of the row that was sealed as a leaf, where the table tells."""
    number, place = divmod(leaf, WIDTH)
    query = select(sealed_blocks.c.seqs, sealed_blocks.c.ids).where(
        sealed_blocks.c.number == number
    )
    block = connection.execute(query).one_or_none()
    if block is None:
        return None
    seq = bytes(block.seqs)[place * SEQ_BYTES : (place + 1) * SEQ_BYTES]
    raw = bytes(block.ids)[place * ID_BYTES : (place + 1) * ID_BYTES]
    if len(seq) < SEQ_BYTES or len(raw) < ID_BYTES:
        return None
    return int.from_bytes(seq, signed=True), str(uuid.UUID(bytes=raw))


def _key_of(leaves: Leaves, place: int) -> _Key:
    if place >= len(leaves.seqs):
        return None, None
    return leaves.seqs[place] or None, leaves.ids[place] or None


def _first_difference(found: list[bytes], sealed: list[bytes]) -> int:
    pairs = enumerate(zip(found, sealed, strict=False))
    shorter = min(len(found), len(sealed))
    return next((place for place, (one, other) in pairs if one != other), shorter)


def _add(tree: Frontier, leaves: list[bytes]) -> None:
    """Add leaves to the tree, whole tiles at once."""
    to_the_tile = -tree.size % WIDTH
    tree.extend(leaves[:to_the_tile])
    whole = to_the_tile + (len(leaves) - to_the_tile) // WIDTH * WIDTH
    for start in range(to_the_tile, whole, WIDTH):
        tree.add(tile_root(leaves[start : start + WIDTH]), _TILE_LEVEL)
    tree.extend(leaves[max(whole, to_the_tile) :])
