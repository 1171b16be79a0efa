"""Answers on record beside a model's answers to the same rows: which differ, and by how much."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onrecord.insight.recorded_calls import RecordedAnswer
from onrecord.serving.outputs import Outputs, TargetOutput

__all__ = ["Compared", "compared", "is_finite", "outputs_of"]

_Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Compared:
    """One array [rows] each: whether the answer changed, whether its scores moved, and how far.

    `differences` are the greatest of a row's scores or of its numbers; 1 where a class without
    scores is another one.
    """

    changed: _Array
    moved: _Array
    differences: _Array


def is_finite(target: TargetOutput) -> bool:
    """Tell whether all numbers of a target's answers are finite."""
    values = np.asarray(target.values)
    numbers = [values] if values.dtype.kind == "f" else []
    if target.probabilities is not None:
        numbers.append(np.asarray(target.probabilities))
    return all(bool(np.isfinite(array).all()) for array in numbers)


def compared(answers: Sequence[RecordedAnswer], outputs: Outputs, tolerance: float) -> Compared:
    """Compare what rows were answered with a model's finite answers to them.

    A class has changed where it is another one, a number where it differs by more than `tolerance`;
    of several targets a row has changed where any has.
    """
    parts = [_of_target(answers, target, tolerance) for target in outputs.targets]
    if len(parts) == 1:
        return parts[0]
    return Compared(
        np.any([part.changed for part in parts], axis=0),
        np.any([part.moved for part in parts], axis=0),
        np.max([part.differences for part in parts], axis=0),
    )


def outputs_of(answers: Sequence[RecordedAnswer]) -> Outputs:
    """Return answers of one version, of which there is at least one, as a model gives them."""
    first = answers[0].prediction
    names: list[str | None] = [*first] if isinstance(first, dict) else [None]
    return Outputs([_target(answers, name) for name in names])


def _target(answers: Sequence[RecordedAnswer], name: str | None) -> TargetOutput:
    values, scores = _parts(answers, name)
    if None in scores:
        return TargetOutput(name, values)
    classes = tuple(scores[0])
    return TargetOutput(name, values, classes, _scores(scores, classes))


def _of_target(
    answers: Sequence[RecordedAnswer], target: TargetOutput, tolerance: float
) -> Compared:
    values, scores = _parts(answers, target.name)
    now = np.asarray(target.values)
    if now.dtype.kind == "f" and all(type(value) in {float, int} for value in values):
        distance = np.abs(np.array(values, dtype=np.float64) - now)
        far = distance > tolerance
        return Compared(far, far, distance)
    labels = now.tolist() if isinstance(target.values, np.ndarray) else target.values
    changed = np.fromiter(map(operator.ne, values, labels), dtype=np.bool_, count=len(values))
    if target.probabilities is None or target.classes is None or None in scores:
        return Compared(changed, changed, changed.astype(np.float64))
    distance = np.abs(_scores(scores, target.classes) - np.asarray(target.probabilities))
    differences = distance.max(axis=1)
    return Compared(changed, changed | (differences > tolerance), differences)


def _parts(answers: Sequence[RecordedAnswer], name: str | None) -> tuple[list[Any], list[Any]]:
    """Return what rows were answered of a target: the values, and the probabilities or None."""
    if name is None:
        return [it.prediction for it in answers], [it.probabilities for it in answers]
    return (
        [_part(it.prediction, name) for it in answers],
        [_part(it.probabilities, name) for it in answers],
    )


def _part(answer: Any, name: str) -> Any:
    return answer.get(name) if isinstance(answer, dict) else None


def _scores(scores: Sequence[Any], classes: tuple[str, ...]) -> _Array:
    """Return recorded scores as an array [rows, classes]; a class that was not known had none."""
    order = list(classes)
    rows = [
        list(row.values()) if list(row) == order else [row.get(name, 0.0) for name in order]
        for row in scores
    ]
    return np.array(rows, dtype=np.float64)
