"""What a model said about some rows: in plain Python values, or in arrays for a table of rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onrecord.errors import Unanswerable

__all__ = ["Outputs", "TargetOutput", "class_key", "prediction_text", "probabilities_by_class"]


def class_key(label: Any) -> str:
    """Return a class label as the text that is its key among the probabilities."""
    if isinstance(label, bool):
        return "true" if label else "false"
    return str(label)


def prediction_text(prediction: Any) -> str:
    """Return an answer's prediction as people read it: a class, a number, or those of targets."""
    if isinstance(prediction, dict):
        return ", ".join(f"{name}: {class_key(value)}" for name, value in prediction.items())
    return class_key(prediction)


def probabilities_by_class(prediction: Any, probabilities: Any) -> list[tuple[str, Any]]:
    """Return an answer's probabilities by class, and by target where there are several."""
    chances = probabilities or {}
    if not isinstance(prediction, dict):
        return list(chances.items())
    return [(f"{target}: {name}", it) for target, of in chances.items() for name, it in of.items()]


@dataclass(slots=True)
class TargetOutput:
    """One target's answers, one for each row.

    `name` is None where the model has one target only. `values` holds class labels (int, str or
    bool) or, for a regression, floats. `probabilities` has one list a row in the order of
    `classes` (text keys); both are None where the model gives none.

    The answers to a `Table` may be arrays: `values` [rows] of int64, bool, float64 or objects, and
    `probabilities` [rows, classes] of float64. `Outputs.in_lists` makes lists of them.
    """

    name: str | None
    values: list[Any] | np.ndarray[Any, Any]
    classes: tuple[str, ...] | None = None
    probabilities: list[list[float]] | np.ndarray[Any, Any] | None = None

    def take(self, places: Sequence[int]) -> TargetOutput:
        """Return the answers to the rows at some places."""
        values, chances = self.values, self.probabilities
        return TargetOutput(
            self.name,
            values[list(places)]
            if isinstance(values, np.ndarray)
            else [values[place] for place in places],
            self.classes,
            chances[list(places)]
            if isinstance(chances, np.ndarray)
            else None
            if chances is None
            else [chances[place] for place in places],
        )


class Outputs:
    """The answers to the rows of one batch."""

    __slots__ = ("targets",)

    def __init__(self, targets: Sequence[TargetOutput]) -> None:
        self.targets = tuple(targets)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.targets[0].values)

    def row(self, i: int) -> dict[str, Any]:
        """Return the answer to row `i` as it goes into the response; the answers must be lists.

        Raises Unanswerable where the model's number is not finite.
        """
        first = self.targets[0]
        if len(self.targets) == 1 and first.name is None:
            answer: dict[str, Any] = {"prediction": _value(first, i)}
            if first.probabilities is not None:
                answer["probabilities"] = _probabilities(first, i)
            return answer
        answer = {"prediction": {str(target.name): _value(target, i) for target in self.targets}}
        chances = {
            str(target.name): _probabilities(target, i)
            for target in self.targets
            if target.probabilities is not None
        }
        if chances:
            answer["probabilities"] = chances
        return answer

    def in_lists(self) -> Outputs:
        """Return the same answers as lists of Python values."""
        return Outputs([_listed(target) for target in self.targets])

    @classmethod
    def join(cls, parts: Sequence[Outputs]) -> Outputs:
        """Return the answers of several batches of one model, one after the other."""
        targets = []
        for pieces in zip(*(part.targets for part in parts), strict=True):
            chances = [row for piece in pieces for row in piece.probabilities or ()]
            targets.append(
                TargetOutput(
                    pieces[0].name,
                    [value for piece in pieces for value in piece.values],
                    pieces[0].classes,
                    chances if pieces[0].probabilities is not None else None,
                )
            )
        return cls(targets)

    def split(self, sizes: Sequence[int]) -> list[Outputs]:
        """Return the batch cut into consecutive parts of `sizes` rows."""
        parts: list[Outputs] = []
        start = 0
        for size in sizes:
            end = start + size
            parts.append(Outputs([_slice(target, start, end) for target in self.targets]))
            start = end
        return parts


def _listed(target: TargetOutput) -> TargetOutput:
    values, chances = target.values, target.probabilities
    return TargetOutput(
        target.name,
        values.tolist() if isinstance(values, np.ndarray) else values,
        target.classes,
        chances.tolist() if isinstance(chances, np.ndarray) else chances,
    )


def _slice(target: TargetOutput, start: int, end: int) -> TargetOutput:
    chances = target.probabilities
    return TargetOutput(
        target.name,
        target.values[start:end],
        target.classes,
        None if chances is None else chances[start:end],
    )


def _value(target: TargetOutput, i: int) -> Any:
    value = target.values[i]
    if isinstance(value, float) and not math.isfinite(value):
        raise Unanswerable("The model's answer is not a finite number.")
    return value


def _probabilities(target: TargetOutput, i: int) -> dict[str, float]:
    if target.probabilities is None or target.classes is None:
        raise ValueError("the target has no probabilities")
    chances = target.probabilities[i]
    if not all(map(math.isfinite, chances)):
        raise Unanswerable("The model's probabilities are not finite numbers.")
    return dict(zip(target.classes, chances, strict=True))
