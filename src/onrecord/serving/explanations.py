"""Explanations: how much each feature of a row moved the model's answer.

Contributions and base add up to the model's own number before it is made a probability: the margin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from onrecord.errors import NotExplainable
from onrecord.serving.outputs import class_key
from onrecord.serving.runtimes import Row, Runtime

__all__ = ["MOST_ROWS", "Explanations", "Space", "explain", "of_trees"]

MOST_ROWS = 1000
"""How many rows of a call are explained at most: it takes far longer than to answer them."""

Space = Literal["log-odds", "margin", "prediction"]


@dataclass(frozen=True, slots=True)
class Explanations:
    """The explanations of some rows.

    `contributions` [rows, outputs, columns] are in the order of the schema, `base` is [rows,
    outputs]. `space` is what they add up to: the `log-odds` of the second of two classes, the
    `prediction` itself, or else a `margin`. `classes` names the outputs of a model of more than two
    classes; others have one.
    """

    space: Space
    base: np.ndarray[Any, Any]
    contributions: np.ndarray[Any, Any]
    classes: Sequence[str] | None = None

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


@runtime_checkable
class _Explaining(Protocol):
    def explain(self, rows: Sequence[Row]) -> Explanations: ...


def explain(runtime: Runtime, rows: Sequence[Row]) -> Explanations:
    """Return the explanations of rows, of which there is at least one.

    Raises NotExplainable where the model has none.
    """
    if not isinstance(runtime, _Explaining):
        raise NotExplainable(f"A model of {runtime.name} does not tell what moved it.")
    found = runtime.explain(rows)
    if not (np.isfinite(found.base).all() and np.isfinite(found.contributions).all()):
        raise NotExplainable("The model's contributions to this input are no finite numbers.")
    return found


def of_trees(
    values: Any, columns: int, labels: Sequence[Any] | None, *, identity: bool
) -> Explanations:
    """Return what boosters give: [rows, columns + 1] or [rows, classes * (columns + 1)], base last.

    `identity` is whether a regression's sum of trees is its prediction.
    """
    outputs = np.asarray(values, dtype=np.float64).reshape(len(values), -1, columns + 1)
    space: Space = "prediction" if identity else "margin"
    many = labels is not None and outputs.shape[1] > 1
    if labels is not None:
        space = "margin" if many else "log-odds"
    classes = [class_key(label) for label in labels or ()] if many else None
    return Explanations(space, outputs[:, :, -1], outputs[:, :, :-1], classes)
