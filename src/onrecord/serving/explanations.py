"""Explanations: how much each feature of a row moved the model's answer.

Contributions and base add up to a number of which the answer comes. That is checked of every
explanation: a library that is wrong about a model is never believed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import structlog

from onrecord.errors import CallError, NotExplainable
from onrecord.serving.outputs import TargetOutput, class_key
from onrecord.serving.runtimes import Row, Runtime, first_line

__all__ = ["MOST_ROWS", "Explanations", "Space", "explain", "of_trees", "why_not_explained"]

MOST_ROWS = 1000
"""How many rows of a call are explained at most: it takes far longer than to answer them."""

Space = Literal["log-odds", "log-prediction", "margin", "prediction", "probability"]

_DOUBLES = 1e-6
_SINGLES = 1e-4
"""What sums of numbers of 64 and of 32 bits may be wrong by, of their size."""


@dataclass(frozen=True, slots=True)
class Explanations:
    """The explanations of some rows.

    `contributions` [rows, outputs, columns] are in the order of the schema, `base` is [rows,
    outputs]. `space` is what they add up to: the `prediction` itself or its logarithm, a
    `probability` or its log-odds, or a `margin`, of which softmax makes the probabilities.
    `classes` names the outputs where there is one for each class; else there is one output, which
    for a classifier is about the second of two classes. `tolerance` is how far the sum may be off.
    """

    space: Space
    base: np.ndarray[Any, Any]
    contributions: np.ndarray[Any, Any]
    classes: Sequence[str] | None = None
    tolerance: float = _DOUBLES

    @staticmethod
    def join(parts: Sequence[Explanations]) -> Explanations:
        """Return the explanations of all the rows that the parts are of, in their order."""
        first = parts[0]
        return Explanations(
            first.space,
            np.concatenate([part.base for part in parts]),
            np.concatenate([part.contributions for part in parts]),
            first.classes,
            first.tolerance,
        )

    def row(self, place: int, names: Sequence[str]) -> dict[str, Any]:
        """Return the explanation of one row as it goes into the answer."""
        parts = [
            {"base": base, "contributions": dict(zip(names, values, strict=True))}
            for base, values in zip(
                self.base[place].tolist(), self.contributions[place].tolist(), strict=True
            )
        ]
        if self.classes is None:
            return {"space": self.space, **parts[0]}
        return {"space": self.space, "classes": dict(zip(self.classes, parts, strict=True))}

    def add_up_to(self, answers: TargetOutput) -> bool:
        """Tell whether these are the explanations of a model's answers to the same rows."""
        expected = self._expected(answers)
        sums = self.base + self.contributions.sum(axis=2)
        if expected is None or expected.shape != sums.shape:
            return False
        told = _answers_of(self.space, sums)
        # An answer is as exact as the numbers are large that it was added up from.
        size = np.abs(self.base) + np.abs(self.contributions).sum(axis=2)
        if self.space == "log-prediction":
            size = (1 + size) * np.abs(told)
        elif self.space != "prediction":
            size = 1 + size
        return bool((np.abs(told - expected) <= self.tolerance * size).all())

    def _expected(self, answers: TargetOutput) -> np.ndarray[Any, Any] | None:
        """Return the numbers [rows, outputs] that these are to explain, None where there are none.

        A probability is that of the second class where there is one output only.
        """
        if answers.probabilities is None:
            numbers = np.asarray(answers.values)
            is_number = self.classes is None and numbers.dtype.kind == "f"
            return numbers[:, None] if is_number else None
        chances = np.asarray(answers.probabilities, dtype=np.float64)
        if self.classes is None:
            return chances[:, 1:]
        return chances if tuple(self.classes) == answers.classes else None


def _answers_of(space: Space, sums: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the predictions or probabilities that come of sums [rows, outputs]."""
    found: np.ndarray[Any, Any]
    with np.errstate(over="ignore"):
        match space:
            case "log-odds":
                found = 1 / (1 + np.exp(-sums))
            case "log-prediction":
                found = np.exp(sums)
            case "margin":
                raised = np.exp(sums - sums.max(axis=1, keepdims=True))
                found = raised / raised.sum(axis=1, keepdims=True)
            case _:
                found = sums
    return found


@runtime_checkable
class _Explaining(Protocol):
    def explain(self, rows: Sequence[Row]) -> Explanations: ...


@runtime_checkable
class _Standing(Protocol):
    """A runtime that stands for another one, which explains its answers."""

    def original(self) -> Runtime: ...


def explain(runtime: Runtime, rows: Sequence[Row]) -> Explanations:
    """Return the explanations of rows, of which there is at least one.

    Raises NotExplainable where the model has none, or none that adds up to its own answers.
    """
    while isinstance(runtime, _Standing):
        runtime = runtime.original()
    if not isinstance(runtime, _Explaining):
        raise NotExplainable(f"A model of {runtime.name} does not tell what moved it.")
    targets = runtime.predict(rows).targets
    if len(targets) > 1:
        raise NotExplainable("Contributions to several targets at once are not told.")
    found = runtime.explain(rows)
    if not (np.isfinite(found.base).all() and np.isfinite(found.contributions).all()):
        raise NotExplainable("The model's contributions to this input are no finite numbers.")
    if not found.add_up_to(targets[0]):
        raise NotExplainable(
            "The model's contributions do not add up to its answer, so they do not tell what moved "
            "it."
        )
    return found


def why_not_explained(runtime: Runtime, row: Row) -> str:
    """Return why a model's answers cannot be explained, "" where they can be.

    It is found out by explaining `row`, which also loads whatever explaining takes.
    """
    try:
        explain(runtime, [row])
    except NotExplainable as error:
        return str(error)
    except (CallError, Exception) as error:  # noqa: BLE001 - a model's library may raise anything
        structlog.get_logger("onrecord").warning("no explanations", error=first_line(error))
        return f"The model's library cannot explain a row that fits ({type(error).__name__})."
    return ""


def of_trees(
    values: Any,
    columns: int,
    labels: Sequence[Any] | None,
    space: Space | None,
) -> Explanations:
    """Return what boosters give: [rows, columns + 1] or [rows, classes * (columns + 1)], base last.

    Raises NotExplainable where it is not known what the sums of trees are, which is `space`.
    """
    if space is None:
        raise NotExplainable("How the answer comes of the sum of the model's trees is not told.")
    outputs = np.asarray(values, dtype=np.float64).reshape(len(values), -1, columns + 1)
    many = labels is not None and outputs.shape[1] > 1
    classes = [class_key(label) for label in labels or ()] if many else None
    return Explanations(space, outputs[:, :, -1], outputs[:, :, :-1], classes, _SINGLES)
