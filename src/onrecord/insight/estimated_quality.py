"""Which quality of a version is to be expected while the outcomes of a time are to come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from onrecord.insight.estimate import calibration, estimated
from onrecord.insight.quality import told_rows
from onrecord.insight.recorded_calls import Meant, RecordedAnswer, answers_of, recorded_calls
from onrecord.record.database import Database
from onrecord.serving.outputs import class_key

__all__ = ["estimated_quality"]

_MOST_CALLS = 10_000
_CLASSES = 2

_Scored = tuple[float, bool, RecordedAnswer]


def estimated_quality(database: Database, meant: Meant) -> dict[str, Any] | None:
    """Return what `estimated` says of the answers that are meant, the newest 10,000 calls at most.

    What the scores mean is read off all outcomes that are known of the same versions. None where
    the answers have not the probabilities of two classes.
    """
    calls = recorded_calls(database, replace(meant, newest=_MOST_CALLS))
    answers = (it for batch in calls for call in batch for it in answers_of(call) or ())
    scored = list(_scored(answers))
    if not scored:
        return None
    with database.read() as connection:
        told = list(told_rows(connection, replace(meant, since=None, until=None)))
    known = [
        (score, class_key(it.actual) == list(answer.probabilities or {})[1])
        for it in told
        for score, _, answer in _scored([it.answer])
    ]
    curve = None
    if known:
        curve = calibration(np.array([it[0] for it in known]), np.array([it[1] for it in known]))
    scores = np.array([score for score, _, _ in scored])
    return estimated(scores, [positive for _, positive, _ in scored], curve)


def _scored(answers: Iterable[RecordedAnswer]) -> Iterator[_Scored]:
    """Yield the probability of the second of two classes, and whether that was the answer."""
    for answer in answers:
        chances = answer.probabilities
        if chances is None or len(chances) != _CLASSES:
            continue
        name, score = list(chances.items())[1]
        if isinstance(score, float):
            yield score, class_key(answer.prediction) == name, answer
