"""The tree of RFC 6962 against the vectors of the Certificate Transparency reference tests."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onrecord.record.merkle import (
    EMPTY_ROOT,
    Frontier,
    audit_path,
    leaf_hash,
    node_hash,
    parents,
    root,
)

# certificate-transparency, merkletree/merkle_tree_test.cc: the leaves, the roots of the trees of
# the first 1 to 8 of them, and the paths as (leaf from 1, size, path).
LEAVES = [
    bytes.fromhex(leaf)
    for leaf in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
PATHS: list[tuple[int, int, list[str]]] = [
    (1, 1, []),
    (
        1,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        6,
        8,
        [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (3, 3, ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
    (
        2,
        5,
        [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]


class Whole:
    """A tree held whole: every level of its perfect subtrees."""

    def __init__(self, leaves: list[bytes]) -> None:
        self.levels = [[leaf_hash(leaf) for leaf in leaves]]
        while len(self.levels[-1]) > 1:
            row = self.levels[-1]
            self.levels.append(parents(row[: len(row) // 2 * 2]))

    def node(self, level: int, index: int) -> bytes:
        return self.levels[level][index]


def by_definition(leaves: list[bytes]) -> bytes:
    """Return MTH(D[n]) as RFC 6962 writes it down."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaf_hash(leaves[0])
    half = 1 << (len(leaves) - 1).bit_length() - 1
    return node_hash(by_definition(leaves[:half]), by_definition(leaves[half:]))


def path_by_definition(index: int, leaves: list[bytes]) -> list[bytes]:
    """Return PATH(m, D[n]) as RFC 6962 writes it down."""
    if len(leaves) == 1:
        return []
    half = 1 << (len(leaves) - 1).bit_length() - 1
    if index < half:
        return [*path_by_definition(index, leaves[:half]), by_definition(leaves[half:])]
    return [*path_by_definition(index - half, leaves[half:]), by_definition(leaves[:half])]


def test_the_tree_without_leaves_has_the_hash_of_nothing() -> None:
    assert (
        EMPTY_ROOT.hex()
        == Frontier().root().hex()
        == root(0, Whole([]).node).hex()
        == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )


@pytest.mark.parametrize("size", range(1, 9))
def test_roots_are_those_of_the_reference(size: int) -> None:
    frontier = Frontier()
    frontier.extend(map(leaf_hash, LEAVES[:size]))

    assert frontier.root().hex() == ROOTS[size - 1]
    assert root(size, Whole(LEAVES).node).hex() == ROOTS[size - 1]


@pytest.mark.parametrize(("leaf", "size", "path"), PATHS)
def test_audit_paths_are_those_of_the_reference(leaf: int, size: int, path: list[str]) -> None:
    found = audit_path(leaf - 1, size, Whole(LEAVES[:size]).node)

    assert [node.hex() for node in found] == path


@given(st.integers(1, 80), st.data())
def test_roots_and_paths_are_those_of_the_definition(size: int, data: st.DataObject) -> None:
    leaves = [bytes([number]) for number in range(80)]
    index = data.draw(st.integers(0, size - 1))

    assert root(size, Whole(leaves).node) == by_definition(leaves[:size])
    assert audit_path(index, size, Whole(leaves).node) == path_by_definition(index, leaves[:size])


@given(st.lists(st.integers(0, 5), max_size=12))
def test_a_frontier_takes_subtrees_of_any_size_that_stands_there(levels: list[int]) -> None:
    leaves = [number.to_bytes(2) for number in range(12 * 32)]
    whole = Whole(leaves)
    frontier = Frontier()
    for level in levels:
        fits = next(n for n in range(level, -1, -1) if frontier.size % (1 << n) == 0)
        frontier.add(whole.node(fits, frontier.size >> fits), fits)

    other = frontier.copy()
    other.add(leaf_hash(b"more"))

    assert frontier.root() == by_definition(leaves[: frontier.size])
    assert other.root() == by_definition([*leaves[: frontier.size], b"more"])
