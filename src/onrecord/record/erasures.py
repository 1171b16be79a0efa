"""Erasures on record: what was erased, when, by whom and why, each a leaf of the tree.

An erasure names the calls by their leaves and is signed with the record's key, which is not in the
database: who has the database alone can destroy a payload, but not make that look like an erasure.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from operator import attrgetter
from typing import Any, Literal, TypeAlias

import msgspec
from sqlalchemy import Connection, Row, insert, select

from onrecord.record.checkpoint import PublicKey, SigningKey
from onrecord.record.tables import erasures, utc_text

__all__ = [
    "Act",
    "Erasure",
    "What",
    "acts_of",
    "erasures_between",
    "over",
    "page",
    "put_on_record",
]

What: TypeAlias = Literal["payloads", "rows"]
"""What an erasure takes of its calls: input, output and salt, or their rows."""

_KIND = b"onrecord erasure\n"
_LEAF_BYTES = 8
_LAST_SEQ = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Erasure:
    """One transaction that erased: a large erasure has several, of one `id`.

    `by_user_id` is the admin who asked for it over HTTP; `operator` is the account that ran a
    command. `selection` is a JSON object that says which calls were meant, `leaves` where those
    that were found stand in the tree, from 0 and ascending.
    """

    seq: int
    id: str
    erased_at: datetime
    by_user_id: str | None
    operator: str | None
    reason: str
    what: str
    selection: str
    calls: int = 0
    leaves: bytes = b""
    signature: bytes = b""

    @classmethod
    def of(cls, row: Row[Any]) -> Erasure:
        """Return the erasure that a row of the table holds."""
        values = row._asdict()
        return cls(
            **values | {name: bytes(values[name]) for name in ("leaves", "signature")},
        )

    def leaf(self) -> bytes:
        """Return its leaf in the tree, in the form that a call's has (RFC 8785)."""
        return _canonical(self._signed() | {"signature": base64.b64encode(self.signature).decode()})

    def message(self, origin: str) -> bytes:
        """Return what the key of the record `origin` signs; it can be read as no tree head."""
        return _KIND + f"{origin}\n".encode() + _canonical(self._signed())

    def is_signed_by(self, key: PublicKey) -> bool:
        """Tell whether the record's key has signed it."""
        return key.has_signed(self.message(key.name), self.signature)

    def places(self) -> tuple[int, ...]:
        """Return the leaves of the calls that it erased, from 0 and ascending."""
        return struct.unpack(f">{len(self.leaves) // _LEAF_BYTES}q", self.leaves)

    def _signed(self) -> dict[str, Any]:
        return {
            "by_user_id": self.by_user_id,
            "calls": self.calls,
            "erased_at": utc_text(self.erased_at),
            "id": self.id,
            "kind": "erasure",
            "leaves_sha256": sha256(self.leaves).hexdigest(),
            "operator": self.operator,
            "reason": self.reason,
            "selection": self.selection,
            "seq": self.seq,
            "what": self.what,
        }


@dataclass(frozen=True, slots=True)
class Act:
    """An erasure as a whole: what was asked for once, and how many calls it took in all.

    `erased_at` is when it began; the other fields are those of `Erasure`.
    """

    id: str
    erased_at: datetime
    by_user_id: str | None
    operator: str | None
    reason: str
    what: str
    selection: str
    calls: int


_COLUMNS = [erasures.c[name] for name in Erasure.__dataclass_fields__]


def put_on_record(
    connection: Connection, erasure: Erasure, places: Sequence[int], key: SigningKey
) -> None:
    """Put an erasure of the calls at these leaves, ascending, on record, signed."""
    whole = replace(erasure, calls=len(places), leaves=struct.pack(f">{len(places)}q", *places))
    signed = replace(whole, signature=key.signature(whole.message(key.public.name)))
    values = {name: getattr(signed, name) for name in Erasure.__dataclass_fields__}
    connection.execute(
        insert(erasures).values(values | {"first_leaf": places[0], "last_leaf": places[-1]})
    )


def over(connection: Connection, start: int, count: int) -> list[Erasure]:
    """Return the erasures that may have erased any of `count` calls from the leaf `start` on."""
    query = (
        select(*_COLUMNS)
        .where(erasures.c.last_leaf >= start, erasures.c.first_leaf < start + count)
        .order_by(erasures.c.seq)
    )
    return [Erasure.of(row) for row in connection.execute(query)]


def acts_of(parts: Iterable[Any]) -> list[Act]:
    """Return the acts that erasures in their order are the parts of, by their first part."""
    acts: dict[str, Act] = {}
    for part in parts:
        before = acts.get(part.id)
        values = {name: getattr(before or part, name) for name in Act.__dataclass_fields__}
        values["calls"] = part.calls + (0 if before is None else before.calls)
        acts[part.id] = Act(**values)
    return list(acts.values())


def page(
    connection: Connection, *, limit: int, before: str | None = None, only: str | None = None
) -> list[Act]:
    """Return at most `limit` acts, newest first: older than the id `before`; or `only` that one."""
    ids = select(erasures.c.id).distinct().order_by(erasures.c.id.desc()).limit(limit)
    if before is not None:
        ids = ids.where(erasures.c.id < before)
    if only is not None:
        ids = ids.where(erasures.c.id == only)
    shown = [erasures.c[name] for name in Act.__dataclass_fields__]
    query = select(*shown).where(erasures.c.id.in_(ids)).order_by(erasures.c.seq)
    return sorted(acts_of(connection.execute(query)), key=attrgetter("id"), reverse=True)


def erasures_between(
    connection: Connection,
    *,
    after: int | None,
    up_to: int = _LAST_SEQ,
    limit: int | None = None,
) -> list[Erasure]:
    """Return at most `limit` erasures after the seq `after` up to `up_to`, in their order."""
    query = select(*_COLUMNS).where(erasures.c.seq <= up_to).order_by(erasures.c.seq).limit(limit)
    if after is not None:
        query = query.where(erasures.c.seq > after)
    return [Erasure.of(row) for row in connection.execute(query)]


def _canonical(values: dict[str, Any]) -> bytes:
    return msgspec.json.encode(values, order="sorted")
