"""A page of the record for people: the calls that fit what was asked, and what they were answered.

What an index or a thousand rows decide is `record/listing.py`'s. Here are the questions that
need input or answer to be read: which score, and which value in a column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import Connection

from onrecord.insight.conditions import Condition
from onrecord.insight.recorded_calls import RecordedAnswer, decoded_answers
from onrecord.record import listing
from onrecord.record.listing import Line
from onrecord.record.reader import Filters
from onrecord.serving.forms import kind_of
from onrecord.serving.outputs import prediction_text
from onrecord.serving.subjects import values_in_json

__all__ = ["WINDOW", "Page", "Question", "Shown", "page", "score_of"]

WINDOW = 1000
"""How many calls are looked at for one page, of those that an index leads to."""

_TWO_CLASSES = 2


@dataclass(frozen=True, slots=True)
class Question:
    """Which calls are meant: what `filters` says, and what input and answer must have.

    `score_from` and `score_to` (both included) bound the score of some row, and each of `where`
    must hold for some row. They are judged on JSON of up to 64 KiB; an input with sensitive
    columns, which is encrypted, fits none of `where`.
    """

    filters: Filters
    score_from: float | None = None
    score_to: float | None = None
    where: tuple[Condition, ...] = ()

    @property
    def reads_payloads(self) -> bool:
        """Whether input or answer must be read to judge a call."""
        return bool(self.where) or self.score_from is not None or self.score_to is not None


@dataclass(frozen=True, slots=True)
class Shown:
    """One call of a page: `prediction` and `score` are of its first row, of `rows`.

    All three are None where the call was refused, its answer is no JSON, was erased or is long.
    """

    line: Line
    prediction: str | None
    score: float | None
    rows: int | None


@dataclass(frozen=True, slots=True)
class Page:
    """Some calls, newest first.

    `next` is the id before which to go on, None where nothing older can fit. Where the page is not
    `full`, that is the end of what was looked at.
    """

    calls: list[Shown]
    next: str | None
    full: bool


def page(connection: Connection, question: Question, *, limit: int, before: str | None) -> Page:
    """Return at most `limit` calls that fit, of a window of those before an id."""
    filters = question.filters
    if question.reads_payloads:
        rows = listing.payloads(connection, filters, before=before, window=WINDOW)
        fitting = (row[0] for row in rows if _fits(question, *row[1:]))
        ids = list(islice(fitting, limit + 1))
    else:
        ids = listing.fitting(connection, filters, before=before, limit=limit + 1, window=WINDOW)
    calls = [_shown(line) for line in listing.lines(connection, ids[:limit])]
    if len(ids) > limit:
        return Page(calls, ids[limit - 1], full=True)
    return Page(calls, listing.end_of_window(connection, filters, before, WINDOW), full=False)


def score_of(answer: RecordedAnswer) -> float | None:
    """Return the one number that tells most of an answer, None where it has none.

    That is the number that was predicted, the probability of the second of two classes, or of the
    most probable of more; of several targets there is none.
    """
    chances = answer.probabilities
    if isinstance(answer.prediction, dict):
        return None
    if not chances:
        value = answer.prediction
        return value if isinstance(value, float) else None
    values = [it for it in chances.values() if isinstance(it, int | float)]
    if len(values) == _TWO_CLASSES:
        return float(values[1])
    return float(max(values, default=0.0))


def _fits(
    question: Question,
    content_type: str | None,
    given: bytes | None,
    output_content_type: str | None,
    output: bytes | None,
) -> bool:
    if question.score_from is not None or question.score_to is not None:
        scores = map(score_of, _answers(output, output_content_type))
        if not any(_is_between(question, score) for score in scores):
            return False
    if not question.where:
        return True
    if given is None or kind_of(content_type or "application/json") != "json":
        return False
    return all(any(map(it.holds, _values(bytes(given), it.column))) for it in question.where)


def _is_between(question: Question, score: float | None) -> bool:
    if score is None:
        return False
    low, high = question.score_from, question.score_to
    return (low is None or score >= low) and (high is None or score <= high)


def _answers(output: bytes | None, content_type: str | None) -> Sequence[RecordedAnswer]:
    """Return the answers to a call's rows, of which a refused one has none."""
    if output is None:
        return []
    answers = decoded_answers(bytes(output), content_type) or []
    return [it for it in answers if it.prediction is not None]


def _values(given: bytes, column: str) -> Sequence[Any]:
    try:
        return values_in_json(given, column)
    except (ValueError, TypeError, AttributeError):
        return []


def _shown(line: Line) -> Shown:
    answers = _answers(line.output, line.output_content_type)
    if not answers:
        return Shown(line, None, None, None)
    told = prediction_text(answers[0].prediction)
    return Shown(line, told, score_of(answers[0]), len(answers))
