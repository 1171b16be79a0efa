"""Reading back what was asked and answered: the calls of a model, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Column, Connection, Select, Text, bindparam, cast, func, select

from onrecord.record.database import Database
from onrecord.record.ids import first_id_at, prediction_id
from onrecord.record.tables import api_keys, requests, responses
from onrecord.record.text import storable

__all__ = [
    "Meant",
    "Place",
    "RecordedAnswer",
    "RecordedCall",
    "answered_calls",
    "answers_of",
    "answers_together",
    "calls_meant",
    "calls_of",
    "count_calls",
    "decoded_answers",
    "places_of",
    "recorded_calls",
    "row_id",
]

_CALLS_AT_ONCE = 4000
_ANSWERED = 200
_BEFORE_ALL_IDS = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True)
class Meant:
    """Which answered calls of a model are meant; None does not restrict.

    `since` (included) and `until` (left out) bound when a call arrived, `after_seq` (left out) and
    `up_to_seq` its `seq`. `versions` are keys in `model_versions`, `other_than` is one that is not
    meant. `newest` is at most how many calls, the newest of them. `user_id` is whose they are.
    Calls of test keys are left out; with `test` they alone are meant.
    """

    model: str
    since: datetime | None = None
    until: datetime | None = None
    versions: frozenset[int] | None = None
    newest: int | None = None
    other_than: int | None = None
    after_seq: int | None = None
    up_to_seq: int | None = None
    user_id: str | None = None
    test: bool = False


class RecordedCall(msgspec.Struct, frozen=True, gc=False):
    """One answered call: its input and answer as the bytes that came and went.

    `input` and `output` are None where they were erased. `duration_us` is in microseconds.
    """

    seq: int
    id: str
    model_version_id: int
    content_type: str | None
    input: bytes | None
    output: bytes | None
    output_content_type: str | None
    duration_us: int

    @property
    def is_plain(self) -> bool:
        """Whether input and answer are there and JSON, as those of nearly all calls are."""
        return (
            self.input is not None
            and self.output is not None
            and self.output_content_type is None
            and (self.content_type is None or "json" in self.content_type)
        )


class RecordedAnswer(msgspec.Struct, gc=False):
    """What one row was answered, as JSON has it; `predictions` where the call had many rows."""

    prediction: Any = None
    probabilities: dict[str, Any] | None = None
    predictions: list[RecordedAnswer] | None = None


_COLUMNS = [
    requests.c.seq,
    # PostgreSQL's driver would make an object of it.
    cast(requests.c.id, Text),
    requests.c.model_version_id,
    requests.c.content_type,
    requests.c.input,
    responses.c.output,
    responses.c.content_type.label("output_content_type"),
    responses.c.duration_us,
]

_decode = msgspec.json.Decoder(RecordedAnswer).decode
_decode_all = msgspec.json.Decoder(list[RecordedAnswer]).decode


def answers_of(call: RecordedCall) -> list[RecordedAnswer] | None:
    """Return the answers to the rows of a call; None where they are not there, or no JSON."""
    return None if call.output is None else decoded_answers(call.output, call.output_content_type)


def decoded_answers(output: bytes, content_type: str | None) -> list[RecordedAnswer] | None:
    """Return the answers that an answer's bytes hold, None where they are no JSON."""
    if content_type is not None:
        return None
    answer = _decode(output)
    return [answer] if answer.predictions is None else answer.predictions


def answers_together(calls: Sequence[RecordedCall]) -> list[RecordedAnswer]:
    """Return the answer of each of several plain calls."""
    return _decode_all(b"[" + b",".join([call.output or b"" for call in calls]) + b"]")


def count_calls(database: Database, meant: Meant) -> int:
    """Return how many calls are meant."""
    with database.read() as connection:
        query = answered_calls(select(func.count()), meant)
        found = int(connection.execute(query).scalar_one())
    return found if meant.newest is None else min(found, meant.newest)


def recorded_calls(
    database: Database, meant: Meant, reveal: Callable[[bytes], bytes] = lambda raw: raw
) -> Iterator[list[RecordedCall]]:
    """Yield the calls that are meant in the order in which they came onto the record.

    Those of one user come in the order of their ids, by which an index has them. They are read a
    few thousand at a time, each time in a transaction of its own. `reveal` decrypts the inputs of
    models with sensitive columns.
    """
    after: Any = None
    place = 0 if _key(meant) is requests.c.seq else 1
    if meant.newest is not None:
        with database.read() as connection:
            after = _before_newest(connection, meant)
    if after is None:
        after = _BEFORE_ALL_IDS if place else 0
    if place == 0 and meant.after_seq is not None:
        # Of two bounds from below SQLite seeks one, and goes through what lies between them.
        after, meant = max(after, meant.after_seq), replace(meant, after_seq=None)
    # Made once: SQLAlchemy takes as long to make it as SQLite to find a thousand calls.
    query = answered_calls(select(*_COLUMNS), meant, ordered=True)
    query = query.where(_key(meant) > bindparam("after"))
    query = query.order_by(_key(meant)).limit(_CALLS_AT_ONCE)
    while True:
        with database.read() as connection:
            rows = _some(connection, query, after)
        if not rows:
            return
        yield [_call(row, reveal) for row in rows]
        after = rows[-1][place]


@dataclass(frozen=True, slots=True)
class Place:
    """Where an answered call is on record, and how many bytes came with it."""

    seq: int
    id: str
    size: int


def places_of(connection: Connection, meant: Meant, most: int) -> list[Place]:
    """Return the first calls that are meant and whose inputs were not erased, `most` of them."""
    columns = (requests.c.seq, requests.c.id, func.octet_length(requests.c.input))
    query = answered_calls(select(*columns), meant).where(requests.c.input.is_not(None))
    rows = connection.execute(query.order_by(requests.c.seq).limit(most))
    return [Place(seq, name, size) for seq, name, size in rows]


def calls_of(
    connection: Connection, seqs: Sequence[int], reveal: Callable[[bytes], bytes]
) -> list[RecordedCall]:
    """Return some calls, by their `seq` and in its order; `reveal` is as in `recorded_calls`."""
    query = select(*_COLUMNS).join(responses, responses.c.request_id == requests.c.id)
    query = query.where(requests.c.seq.in_(seqs)).order_by(requests.c.seq)
    return [_call(row, reveal) for row in connection.execute(query)]


def row_id(call: RecordedCall, row: int) -> str:
    """Return the prediction id of one row of a call."""
    return prediction_id(call.id, row)


def _call(row: Any, reveal: Callable[[bytes], bytes]) -> RecordedCall:
    seq, name, key, kind, given, output, output_kind, duration_us = row
    body = None if given is None else reveal(given)
    return RecordedCall(seq, name, key, kind, body, output, output_kind, duration_us)


def _key(meant: Meant) -> Column[Any]:
    """Return what calls are read in the order of."""
    return requests.c.seq if meant.user_id is None else requests.c.id


def _some(connection: Connection, query: Select[Any], after: Any) -> Sequence[Any]:
    """Return rows as the driver has them: making SQLAlchemy's of them takes longer than reading."""
    with connection.execute(query, {"after": after}) as found:
        rows: Sequence[Any] = found.cursor.fetchall()
    return rows


def _before_newest(connection: Connection, meant: Meant) -> Any:
    """Return the key of the newest call that is too old to be meant, None where there is none."""
    key = _key(meant)
    query = answered_calls(select(key), meant).order_by(key.desc())
    return connection.execute(query.offset(meant.newest).limit(1)).scalar_one_or_none()


def answered_calls(query: Select[Any], meant: Meant, *, ordered: bool = False) -> Select[Any]:
    """Return a query restricted to the requests, and their responses, that are meant.

    One that is `ordered` is to be read a part at a time: no index is to find the calls of a
    version, since all of them would be sorted for each part.
    """
    query = calls_meant(query, meant, ordered=ordered)
    return query.where(responses.c.status == _ANSWERED)


def calls_meant(query: Select[Any], meant: Meant, *, ordered: bool = False) -> Select[Any]:
    """Return a query restricted as by `answered_calls`, but to refused calls of versions, too."""
    by_test_key = select(api_keys.c.id).where(api_keys.c.kind == "test")
    key = requests.c.api_key_id
    query = (
        query.select_from(requests.join(responses, responses.c.request_id == requests.c.id))
        .where(requests.c.model == storable(meant.model))
        .where(requests.c.model_version_id.is_not(None))
        .where(key.in_(by_test_key) if meant.test else key.is_(None) | key.not_in(by_test_key))
    )
    if meant.user_id is not None:
        query = query.where(requests.c.user_id == meant.user_id)
    if meant.versions is not None:
        version = requests.c.model_version_id
        query = query.where((version + 0 if ordered else version).in_(meant.versions))
    if meant.other_than is not None:
        query = query.where(requests.c.model_version_id != meant.other_than)
    if meant.since is not None:
        query = query.where(requests.c.id >= first_id_at(meant.since))
    if meant.until is not None:
        query = query.where(requests.c.id < first_id_at(meant.until))
    if meant.after_seq is not None:
        query = query.where(requests.c.seq > meant.after_seq)
    if meant.up_to_seq is not None:
        query = query.where(requests.c.seq <= meant.up_to_seq)
    return query
