"""One recorded call beside what another version says to it, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from onrecord.insight.comparison import compared, outputs_of
from onrecord.insight.recorded_calls import RecordedAnswer

__all__ = ["beside"]

_MOST_ROWS = 100


def beside(
    answers: Sequence[RecordedAnswer], now: Sequence[dict[str, Any]], tolerance: float = 1e-6
) -> dict[str, Any]:
    """Return what differs between the answers to a call's rows and those of another version.

    `changed` counts the rows with another class, or a number that differs by more than `tolerance`,
    and `rows` has the first hundred, each with its `difference`: the greatest of its scores or of
    its numbers. There is at least one row, and as many on both sides.
    """
    again = [msgspec.convert(row, RecordedAnswer) for row in now]
    found = compared(answers, outputs_of(again), tolerance)
    changed, differences = found.changed.tolist(), found.differences.tolist()
    return {
        "changed": sum(changed),
        "tolerance": tolerance,
        "rows": [
            {
                "row": n,
                "before": _told(before),
                "after": _told(after),
                "changed": changed[n],
                "difference": differences[n],
            }
            for n, (before, after) in enumerate(zip(answers, again, strict=True))
            if n < _MOST_ROWS
        ],
    }


def _told(answer: RecordedAnswer) -> dict[str, Any]:
    return {"prediction": answer.prediction, "probabilities": answer.probabilities}
