"""Erasing: payloads, or whole rows, go; what the tree needs of them stays, and who did it.

Only what is sealed is erased, so that each leaf was made from the payload, and a call is compared
with its leaf before. All is done in small transactions: each takes some calls' payloads and puts
the erasure that says so on record, so whatever is cut short has done a part, wholly, and the same
erasure asked for again does the rest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, delete, func, select, update

from onrecord.errors import SealError
from onrecord.record import outcomes, shadows
from onrecord.record.by import By
from onrecord.record.checkpoint import SigningKey
from onrecord.record.commit_order import draw_seq
from onrecord.record.database import Database
from onrecord.record.erasures import Erasure, What, put_on_record
from onrecord.record.heads_file import HeadsFile
from onrecord.record.ids import first_id_at, new_id
from onrecord.record.leaf import Row, commitments, leaf_of, read_rows
from onrecord.record.proof import leaf_indexes
from onrecord.record.seal import Sealer, newest_head
from onrecord.record.tables import requests, responses, utc_text
from onrecord.record.text import storable
from onrecord.record.tiles import Tiles

__all__ = ["Erased", "Eraser", "Selection"]

_CALLS_AT_ONCE = 500
"""How many calls one transaction erases: some tens of milliseconds for which writers wait."""

_SOUGHT_AT_ONCE = 10_000

Holds = Callable[[Row], bool]
"""Tells whether a call, which has its payload, is one of those that are meant."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which calls are meant; None does not restrict.

    `model` and `other_than` are names of models, `versions` keys of model versions; `before` bounds
    the time a call arrived, to the millisecond. `call` is the id of a single one. `subject` is the
    name of the column whose value `holds` looks for; the value itself is nowhere on record.
    """

    user_id: str | None = None
    model: str | None = None
    other_than: frozenset[str] = frozenset()
    versions: frozenset[int] | None = None
    before: datetime | None = None
    call: str | None = None
    subject: str | None = None
    holds: Holds | None = None

    def text(self) -> str:
        """Return it as a JSON object, as it goes on record."""
        told: dict[str, Any] = {
            "before": None if self.before is None else utc_text(self.before),
            "call": self.call,
            "model": self.model,
            "other_than": sorted(self.other_than) or None,
            "subject": self.subject,
            "user_id": self.user_id,
        }
        return json.dumps({k: v for k, v in told.items() if v is not None}, ensure_ascii=False)

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return what the database can judge of it."""
        conditions: list[ColumnElement[bool]] = []
        if self.user_id is not None:
            conditions.append(requests.c.user_id == self.user_id)
        if self.model is not None:
            conditions.append(requests.c.model == storable(self.model))
        if self.other_than:
            conditions.append(requests.c.model.not_in(map(storable, self.other_than)))
        if self.versions is not None:
            conditions.append(requests.c.model_version_id.in_(self.versions))
        if self.before is not None:
            conditions.append(requests.c.id < first_id_at(self.before))
        if self.call is not None:
            conditions.append(requests.c.id == self.call)
        return conditions


@dataclass(frozen=True, slots=True)
class Erased:
    """What was done: the erasure's id (None: no call was found), and how many calls it erased.

    `traces` is whether SQLite's log may still hold bytes of them, as somebody was reading it.
    """

    id: str | None
    calls: int
    traces: bool


@dataclass(frozen=True, slots=True)
class _Found:
    """A call that is to be erased: its row's keys, its leaf, and the commitments that stay."""

    seq: int
    id: str
    place: int
    input_commitment: bytes | None
    output_commitment: bytes | None


class Eraser:
    """Erases on one record, which it seals before and after."""

    def __init__(self, database: Database, key: SigningKey, heads: HeadsFile) -> None:
        self._database = database
        self._key = key
        self._sealer = Sealer(database, key, heads)

    def count(self, what: What, selection: Selection) -> int:
        """Return how many calls would be erased."""
        if selection.holds is not None:
            return sum(len(batch) for batch in self._seqs(what, selection, None))
        query = select(func.count()).select_from(requests).where(*_meant(what, selection))
        with self._database.read() as connection:
            return int(connection.execute(query).scalar_one())

    def erase(
        self,
        what: What,
        selection: Selection,
        by: By,
        advance: Callable[[int], object] = lambda _: None,
    ) -> Erased:
        """Erase the calls that are meant; `advance` is told of them as they go.

        Calls that arrive meanwhile are left. Raises SealError where the record cannot be sealed, or
        a call is not as it was sealed; what was erased until then is.
        """
        head = self._sealer.seal()
        if head is None:
            return Erased(None, 0, traces=False)
        with self._database.read() as connection:
            newest = newest_head(connection)
        last_seq = 0 if newest is None else newest.last_seq
        erasure_id, calls = new_id(), 0
        for seqs in self._seqs(what, selection, last_seq):
            self._erase_some(what, selection, by, erasure_id, seqs)
            calls += len(seqs)
            advance(len(seqs))
        if not calls:
            return Erased(None, 0, traces=False)
        self._sealer.seal()
        return Erased(erasure_id, calls, traces=not self._database.forget())

    def _seqs(self, what: What, selection: Selection, last_seq: int | None) -> Iterator[list[int]]:
        """Yield the rows that are meant, a few at a time, in the order of `seq`."""
        query = select(requests.c.seq).where(*_meant(what, selection)).order_by(requests.c.seq)
        if last_seq is not None:
            query = query.where(requests.c.seq <= last_seq)
        found: list[int] = []
        after: int | None = None
        while True:
            more = query if after is None else query.where(requests.c.seq > after)
            with self._database.read() as connection:
                seqs = connection.execute(more.limit(_SOUGHT_AT_ONCE)).scalars().all()
                found += _holding(connection, selection, seqs)
            while len(found) >= _CALLS_AT_ONCE or (found and not seqs):
                yield found[:_CALLS_AT_ONCE]
                del found[:_CALLS_AT_ONCE]
            if not seqs:
                return
            after = seqs[-1]

    def _erase_some(
        self, what: What, selection: Selection, by: By, erasure_id: str, seqs: list[int]
    ) -> None:
        with self._database.read() as connection:
            calls = list(_found(connection, seqs))
        with self._database.write() as connection:
            self._database.erase_securely(connection)
            _check_still_there(connection, what, seqs)
            erasure = Erasure(
                seq=draw_seq(connection),
                id=erasure_id,
                erased_at=datetime.now(UTC),
                by_user_id=by.user_id,
                operator=by.operator,
                reason=storable(by.reason),
                what=what,
                selection=selection.text(),
            )
            put_on_record(connection, erasure, [call.place for call in calls], self._key)
            ids = [call.id for call in calls]
            # What happened to somebody says as much of them as what was predicted.
            outcomes.delete_of(connection, ids)
            shadows.delete_of(connection, ids)
            if what == "payloads":
                _erase_payloads(connection, calls, erasure.seq)
            else:
                _erase_rows(connection, calls)


def _meant(what: What, selection: Selection) -> list[ColumnElement[bool]]:
    conditions = selection.conditions()
    if what == "payloads":
        conditions.append(requests.c.erasure_seq.is_(None))
    return conditions


def _holding(connection: Connection, selection: Selection, seqs: Sequence[int]) -> Iterable[int]:
    if selection.holds is None:
        return seqs
    return [row.seq for row in read_rows(connection, seqs) if selection.holds(row)]


def _found(connection: Connection, seqs: list[int]) -> Iterator[_Found]:
    """Yield the calls, which are as they were sealed; raises SealError where one is not."""
    tiles = Tiles(connection)
    places: dict[int, int] = {}
    try:
        for row in read_rows(connection, seqs):
            if row.seq not in places:
                places = leaf_indexes(connection, row.seq)
            place = places[row.seq]
            if sha256(b"\0" + leaf_of(row)).digest() != tiles.node(0, place):
                raise LookupError(f"call {row.id} is not what was sealed")
            erased = row.erasure_seq is not None
            kept = (row.input_commitment, row.output_commitment) if erased else commitments(row)
            yield _Found(row.seq, row.id, place, *kept)
    except (LookupError, TypeError) as error:
        raise SealError(
            f"nothing more is erased, as the record is not as it was sealed: {error}. "
            "Run `onrecord verify`"
        ) from error


def _check_still_there(connection: Connection, what: What, seqs: list[int]) -> None:
    query = select(requests.c.seq).where(requests.c.seq.in_(seqs)).with_for_update()
    if what == "payloads":
        query = query.where(requests.c.erasure_seq.is_(None))
    if len(connection.execute(query).all()) != len(seqs):
        raise SealError("another erasure takes some of the same calls; run this one again")


def _erase_payloads(connection: Connection, calls: list[_Found], erasure_seq: int) -> None:
    connection.execute(
        update(requests)
        .where(requests.c.seq == bindparam("key"))
        .values(
            input=None,
            salt=None,
            input_commitment=bindparam("commitment"),
            erasure_seq=erasure_seq,
        ),
        [{"key": call.seq, "commitment": call.input_commitment} for call in calls],
    )
    connection.execute(
        update(responses)
        .where(responses.c.request_id == bindparam("key"))
        .values(output=None, output_commitment=bindparam("commitment")),
        [{"key": call.id, "commitment": call.output_commitment} for call in calls],
    )


def _erase_rows(connection: Connection, calls: list[_Found]) -> None:
    ids = [call.id for call in calls]
    connection.execute(delete(responses).where(responses.c.request_id.in_(ids)))
    connection.execute(delete(requests).where(requests.c.id.in_(ids)))
