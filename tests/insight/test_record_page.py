from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from onrecord.insight.conditions import Condition
from onrecord.insight.record_page import Question, page
from onrecord.record import users
from onrecord.record.batch import committer
from onrecord.record.call import RecordedCall
from onrecord.record.database import Database
from onrecord.record.ids import new_request_id
from onrecord.record.reader import Filters

ROWS = [
    {"age": 30 + n, "smoker": n % 2 == 0, "ward": None if n == 3 else "south"} for n in range(6)
]


@pytest.fixture
def ids(database_url: str) -> Iterator[tuple[Database, list[str]]]:
    """Six calls of one row, whose ages are 30 and more and whose scores 0.1 times their number."""
    database = Database(database_url)
    database.upgrade()
    with database.write() as connection:
        user = users.add(connection, username="a", email=None, password_hash=None, role="user").id
    calls = []
    for n, row in enumerate(ROWS):
        answer = {"prediction": 1, "probabilities": {"0": 1 - n / 10, "1": n / 10}}
        calls.append(_call(user, json.dumps(row).encode(), json.dumps(answer).encode()))
    many = {"predictions": [{"prediction": "low"}, {"prediction": "high"}]}
    calls.append(_call(user, b'{"columns":{"ward":["east","north"]}}', json.dumps(many).encode()))
    calls.append(_call(user, b"no json at all", b'{"status":400}', status=400))
    with database.raw_connection() as raw:
        committer(raw.dbapi_connection, database.dialect)(calls)
    yield database, [call.id for call in calls]
    database.close()


def _call(user: str, given: bytes, output: bytes, status: int = 200) -> RecordedCall:
    now = datetime.now(UTC)
    return RecordedCall(
        id=new_request_id(),
        user_id=user,
        model="risk",
        model_version_id=None,
        x_request_id=None,
        content_type="application/json",
        input=given,
        received_at=now,
        status=status,
        output=output,
        error_code=None,
        error_fields=(),
        duration_us=42,
        responded_at=now,
    )


def test_calls_are_found_by_score_and_by_any_columns_value(
    ids: tuple[Database, list[str]],
) -> None:
    database, names = ids

    def found(*where: str, low: float | None = None, high: float | None = None) -> list[int]:
        question = Question(Filters(), low, high, tuple(map(Condition.parse, where)))
        with database.read() as connection:
            calls = page(connection, question, limit=10, before=None).calls
        return [names.index(call.line.id) for call in calls]

    assert found("age>=33") == [5, 4, 3]
    assert found("age>=33", "smoker=true") == [4]
    assert found("age!=33", low=0.25) == [5, 4]
    assert found("ward=south", high=0.1) == [1, 0]
    assert found("ward=north") == [6]
    assert found("age=30.0") == [0]
    assert found("age=thirty") == []
    assert found("ward=null", "age>0") == [3]
    assert found(low=0.2, high=0.3) == [3, 2]


def test_a_page_shows_the_first_answer_and_goes_on_from_its_last_call(
    ids: tuple[Database, list[str]],
) -> None:
    database, names = ids
    with database.read() as connection:
        first = page(connection, Question(Filters()), limit=3, before=None)
        rest = page(connection, Question(Filters()), limit=9, before=first.next)
        scored = page(connection, Question(Filters(), score_from=0.4), limit=1, before=None)

    assert (first.next, first.full, rest.next, rest.full) == (names[5], True, None, False)
    told = [(it.prediction, it.score, it.rows) for it in first.calls]
    assert told == [(None, None, None), ("low", None, 2), ("1", 0.5, 1)]
    assert [it.line.id for it in rest.calls] == names[4::-1]
    assert (scored.next, scored.full) == (names[5], True)


@pytest.mark.parametrize("text", ["age", "=3", "age>null", ""])
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"write COLUMN|null is neither"):
        Condition.parse(text)
