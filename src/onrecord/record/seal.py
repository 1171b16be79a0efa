"""Sealing: rows that were committed become leaves of the tree, and its head is signed.

It happens after the commit and beside the writers, which it never makes wait for its hashing. The
leaves are the rows in the order of `seq`, without gaps, so whoever seals the same rows gets the
same tree. docs/seal.md has the whole of it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, insert, select, text

from onrecord.errors import SealError
from onrecord.file_lock import locked
from onrecord.record import merkle
from onrecord.record.checkpoint import Head, SigningKey, open_note
from onrecord.record.commit_order import complete_up_to
from onrecord.record.database import Database
from onrecord.record.heads_file import HeadsFile
from onrecord.record.leaf import Leaves, read_leaves
from onrecord.record.tables import requests, sealed_blocks, tree_heads
from onrecord.record.tiles import WIDTH, Tiles
from onrecord.record.upsert import put

__all__ = [
    "ID_BYTES",
    "SEQ_BYTES",
    "Sealer",
    "StoredHead",
    "newest_head",
    "unsealed",
    "unsealed_at_most",
]

SEQ_BYTES = 8
"""How many bytes of `sealed_blocks.seqs` are one leaf's: big-endian and signed."""

ID_BYTES = 16
"""How many bytes of `sealed_blocks.ids` are one leaf's."""

_LOCK = 7165720260511
# What is read between two heads; the lock to write is held only to store 64 tiles.
_LEAVES_AT_ONCE = 64 * WIDTH


@dataclass(frozen=True, slots=True)
class StoredHead:
    """A head as the database has it; `last_seq` is that of the last row under it."""

    size: int
    last_seq: int
    signed_at: datetime
    note: str


class Sealer:
    """Seals one record; several may run at once, and one of them does the work at a time."""

    def __init__(self, database: Database, key: SigningKey, heads: HeadsFile) -> None:
        self._database = database
        self._key = key
        self._heads = heads

    def seal(self) -> Head | None:
        """Seal every row committed so far and return the newest head; None where there is no row.

        The head is in the heads file, durably, when this returns. Raises SealError where the file,
        the database and the key do not agree: nothing is signed then.
        """
        lock = self._heads.path.with_name(f".{self._heads.path.name}.lock")
        try:
            with locked(lock):
                bound = complete_up_to(self._database)
                with self._database.read() as connection:
                    stored = newest_head(connection)
                head = self._agreed(stored)
                while (more := self._seal_some(stored, head, bound)) is not None:
                    stored, head = more
                return head
        except OSError as error:
            raise SealError(f"{lock}: cannot be made: {error.strerror}") from error

    def _agreed(self, stored: StoredHead | None) -> Head | None:
        """Return the newest head; the heads file has it too, or gets it now.

        After a crash between the two, or on a full disk, the file may lack it.
        """
        note = self._heads.last()
        filed = None if note is None else open_note(note, self._key.public)
        if stored is None:
            if filed is not None:
                raise SealError(self._cut(filed, 0))
            return None
        head = open_note(stored.note, self._key.public)
        if filed is not None and filed.size > head.size:
            raise SealError(self._cut(filed, head.size))
        if filed is not None and filed.size == head.size and filed.root != head.root:
            raise SealError(
                f"{self._heads.path} and the database have different heads of size {head.size}: "
                "run `onrecord verify`"
            )
        if filed is None or filed.size < head.size:
            self._heads.append(stored.note)
        return head

    def _cut(self, filed: Head, size: int) -> str:
        return (
            f"{self._heads.path} has a signed head of {filed.size} calls, but the database is "
            f"sealed up to {size} only: it was cut or is an older copy. Run `onrecord verify`; to "
            "seal an older copy from here on, give it another heads file"
        )

    def _seal_some(
        self, stored: StoredHead | None, head: Head | None, bound: int
    ) -> tuple[StoredHead, Head] | None:
        """Seal the next rows up to `bound`; return None where there are none."""
        size = 0 if stored is None else stored.size
        with self._database.read() as connection:
            after = None if stored is None else stored.last_seq
            leaves = read_leaves(connection, after=after, up_to=bound, limit=_LEAVES_AT_ONCE)
            if not leaves.hashes:
                return None
            tiles = Tiles(connection)
            try:
                if head is not None and merkle.root(size, tiles.node) != head.root:
                    raise LookupError("its root is not the one that was signed")
                tiles.grow(size, leaves.hashes)
                blocks = _blocks(connection, size, leaves)
            except LookupError as error:
                raise SealError(
                    f"the sealed part of the record was changed: {error}. Run `onrecord verify`"
                ) from error
            new_size = size + len(leaves.hashes)
            new, note = self._key.sign(new_size, merkle.root(new_size, tiles.node))
        new_stored = StoredHead(new_size, leaves.seqs[-1], new.signed_at, note)
        self._store(size, tiles, blocks, new_stored)
        self._heads.append(note)
        return new_stored, new

    def _store(
        self, size: int, tiles: Tiles, blocks: list[dict[str, object]], head: StoredHead
    ) -> None:
        with self._database.write() as connection:
            if self._database.dialect == "postgresql":
                connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
            newest = newest_head(connection)
            if (0 if newest is None else newest.size) != size:
                raise SealError("the record is being sealed from elsewhere too; this try gave way")
            tiles.store(connection)
            put(connection, sealed_blocks, blocks)
            values = {name: getattr(head, name) for name in StoredHead.__dataclass_fields__}
            connection.execute(insert(tree_heads).values(values))


def newest_head(connection: Connection) -> StoredHead | None:
    """Return the newest head that the database has, None where nothing is sealed."""
    columns = [tree_heads.c[name] for name in StoredHead.__dataclass_fields__]
    row = connection.execute(select(*columns).order_by(tree_heads.c.size.desc()).limit(1)).first()
    return None if row is None else StoredHead(*row)


def unsealed(connection: Connection, after: int | None) -> int:
    """Return how many rows come after the seq `after`; None: how many there are."""
    query = select(func.count()).select_from(requests)
    if after is not None:
        query = query.where(requests.c.seq > after)
    return int(connection.execute(query).scalar_one())


def unsealed_at_most(connection: Connection, after: int | None) -> int:
    """Return what `unsealed` would at most, by two look-ups however many rows there are.

    In SQLite it is as many; PostgreSQL leaves numbers out where a transaction failed.
    """
    first, last = connection.execute(
        select(
            select(func.min(requests.c.seq)).scalar_subquery(),
            select(func.max(requests.c.seq)).scalar_subquery(),
        )
    ).one()
    if last is None:
        return 0
    return max(0, int(last) - (int(first) - 1 if after is None else after))


def _blocks(connection: Connection, size: int, leaves: Leaves) -> list[dict[str, object]]:
    """Return the rows of `sealed_blocks` that change when leaves follow `size` others."""
    number, held = divmod(size, WIDTH)
    seqs = struct.pack(f">{len(leaves.seqs)}q", *leaves.seqs)
    ids = bytes.fromhex("".join(leaves.ids).replace("-", ""))
    if held:
        table = sealed_blocks.c
        query = select(table.seqs, table.ids).where(table.number == number)
        before = connection.execute(query).one_or_none()
        if before is None or len(before.seqs) < held * SEQ_BYTES:
            raise LookupError(f"block {number} is not whole")
        seqs = bytes(before.seqs)[: held * SEQ_BYTES] + seqs
        ids = bytes(before.ids)[: held * ID_BYTES] + ids
    blocks: list[dict[str, object]] = []
    for start in range(0, len(seqs) // SEQ_BYTES, WIDTH):
        own = seqs[start * SEQ_BYTES : (start + WIDTH) * SEQ_BYTES]
        blocks.append(
            {
                "number": number + start // WIDTH,
                "last_seq": int.from_bytes(own[-SEQ_BYTES:], signed=True),
                "seqs": own,
                "ids": ids[start * ID_BYTES : (start + WIDTH) * ID_BYTES],
            }
        )
    return blocks
