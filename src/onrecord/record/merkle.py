"""The Merkle tree of RFC 6962, section 2.1: its hashes, its root and its audit paths.

A tree is never held whole. A node is the root of a perfect subtree: level 0 are the leaves, and
node `index` of level `level` stands over the leaves from `index << level` on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from hashlib import sha256
from typing import Self

__all__ = ["EMPTY_ROOT", "Frontier", "audit_path", "leaf_hash", "node_hash", "parents", "root"]

EMPTY_ROOT = sha256(b"").digest()
"""The root of a tree without leaves."""

Node = Callable[[int, int], bytes]
"""What gives the hash of a node by its level and index."""


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of a node over two others."""
    return sha256(b"\x01" + left + right).digest()


def parents(hashes: Sequence[bytes]) -> list[bytes]:
    """Return the nodes over an even number of nodes that stand side by side."""
    pairs = zip(hashes[::2], hashes[1::2], strict=True)
    return [sha256(b"\x01" + left + right).digest() for left, right in pairs]


class Frontier:
    """The roots of the perfect subtrees that a tree consists of: all it takes to go on with it."""

    def __init__(self, size: int = 0, roots: Iterable[bytes] = ()) -> None:
        self.size = size
        self._roots = list(roots)

    def copy(self) -> Self:
        """Return a frontier that goes its own way from here."""
        return type(self)(self.size, self._roots)

    def add(self, node: bytes, level: int = 0) -> None:
        """Add a perfect subtree of `1 << level` leaves; `size` must be a multiple of these."""
        place = self.size >> level
        while place & 1:
            node = node_hash(self._roots.pop(), node)
            place >>= 1
        self._roots.append(node)
        self.size += 1 << level

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Add the hashes of leaves."""
        for leaf in leaves:
            self.add(leaf)

    def root(self) -> bytes:
        """Return the root of the tree."""
        return _join(self._roots) if self._roots else EMPTY_ROOT


def root(size: int, node: Node) -> bytes:
    """Return the root of a tree of `size` leaves."""
    return _root_from(0, size, node) if size else EMPTY_ROOT


def audit_path(index: int, size: int, node: Node) -> list[bytes]:
    """Return the audit path of the leaf `index` in a tree of `size` leaves (section 2.1.1).

    It is the hash beside the leaf, that beside the node over both, and so on up to the root.
    """
    path = []
    level = 0
    while last := (size - 1) >> level:
        beside = (index >> level) ^ 1
        if beside < last:
            path.append(node(level, beside))
        elif beside == last:
            path.append(_root_from(beside << level, size, node))
        level += 1
    return path


def _root_from(start: int, end: int, node: Node) -> bytes:
    """Return the root over the leaves from `start` to `end`, a subtree at the tree's right edge."""
    roots = []
    while start < end:
        level = (end - start).bit_length() - 1
        roots.append(node(level, start >> level))
        start += 1 << level
    return _join(roots)


def _join(roots: Sequence[bytes]) -> bytes:
    return reduce(lambda right, left: node_hash(left, right), reversed(roots))
