"""The tree as the database keeps it: in tiles, of which a proof needs a handful.

A tile holds the hashes of 256 nodes that stand side by side, fewer at the tree's right edge. The
tile (level, number) holds nodes of the tree's level `8 * level`, the first of them `256 * number`;
so the root of each full tile is one hash in a tile of the level above (C2SP tlog-tiles).
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, select

from onrecord.record.merkle import parents
from onrecord.record.tables import tree_tiles
from onrecord.record.upsert import put

__all__ = ["HASH_BYTES", "WIDTH", "Tiles", "split", "tile_root"]

HASH_BYTES = 32
WIDTH = 256
"""The most hashes that a tile holds."""

_HEIGHT = 8


def tile_root(hashes: Sequence[bytes]) -> bytes:
    """Return the root over a number of nodes that is a power of two."""
    while len(hashes) > 1:
        hashes = parents(hashes)
    return hashes[0]


def split(hashes: bytes) -> list[bytes]:
    """Return each of the hashes that a tile holds."""
    return [hashes[start : start + HASH_BYTES] for start in range(0, len(hashes), HASH_BYTES)]


class Tiles:
    """The tiles of a record's tree, each read once."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._read: dict[tuple[int, int], bytes] = {}
        self._changed: dict[tuple[int, int], bytes] = {}

    def tile(self, level: int, number: int) -> bytes:
        """Return the hashes of a tile, none where there is no such tile."""
        found = self._changed.get((level, number), self._read.get((level, number)))
        if found is None:
            query = select(tree_tiles.c.hashes).where(
                tree_tiles.c.level == level, tree_tiles.c.number == number
            )
            found = bytes(self._connection.execute(query).scalar_one_or_none() or b"")
            self._read[level, number] = found
        return found

    def node(self, level: int, index: int) -> bytes:
        """Return the hash of a node by its level and index in the tree.

        Raises LookupError where the tiles lack it.
        """
        tile_level, above = divmod(level, _HEIGHT)
        number, first = divmod(index << above, WIDTH)
        hashes = split(self.tile(tile_level, number))[first : first + (1 << above)]
        if len(hashes) != 1 << above:
            raise LookupError(f"tile {number} of level {tile_level} is not whole")
        return tile_root(hashes)

    def grow(self, size: int, leaves: Sequence[bytes]) -> None:
        """Add leaves to a tree of `size` leaves; what changes is kept until `store`.

        Raises LookupError where the tiles of that tree are not whole.
        """
        level = 0
        added = list(leaves)
        while added:
            number, held = divmod(size >> _HEIGHT * level, WIDTH)
            row = split(self.tile(level, number)[: held * HASH_BYTES]) if held else []
            if len(row) != held:
                raise LookupError(f"tile {number} of level {level} is not whole")
            row += added
            added = []
            for start in range(0, len(row), WIDTH):
                tile = row[start : start + WIDTH]
                self._changed[level, number + start // WIDTH] = b"".join(tile)
                if len(tile) == WIDTH:
                    added.append(tile_root(tile))
            level += 1

    def store(self, connection: Connection) -> None:
        """Put what has changed in the database, in place of what was there."""
        rows = [
            {"level": level, "number": number, "hashes": hashes}
            for (level, number), hashes in self._changed.items()
        ]
        put(connection, tree_tiles, rows)
