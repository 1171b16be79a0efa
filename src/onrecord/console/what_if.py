"""What if one feature were another: the rows to ask, and the curve of what is answered to them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from onrecord.serving.columns import Column
from onrecord.serving.outputs import class_key

__all__ = ["Curve", "curve_of", "values_of"]

_STEPS = 40
_MOST_VALUES = 50
_WIDTH, _HEIGHT = 600.0, 160.0


@dataclass(frozen=True, slots=True)
class Curve:
    """What a model answers over one feature, everything else as it is.

    `points` are the feature's value, the score (a probability, 0 to 1, or the number predicted)
    and the place of both in a drawing of 600 by 160. `score` names the score; `low` and `high`
    are the least and greatest of the drawing. `now` is the place among them of the row itself,
    None where its value is none of a number line.
    """

    feature: str
    score: str
    points: list[dict[str, Any]]
    low: float
    high: float
    is_line: bool
    now: dict[str, Any] | None

    @property
    def title(self) -> str:
        """What the score is called where a sentence begins."""
        return self.score[0].upper() + self.score[1:]

    @property
    def path(self) -> str:
        """The points of the line, as SVG has them."""
        return " ".join(f"{it['x']:.1f},{it['y']:.1f}" for it in self.points)


def values_of(column: Column, value: Any) -> list[Any]:
    """Return which values of a column are tried, in their order; none of one that is text."""
    nothing = [None] if column.nullable else []
    if column.type == "boolean":
        return [False, True, *nothing]
    if column.type == "categorical":
        return [*column.categories[:_MOST_VALUES], *nothing]
    if column.type == "text":
        return []
    low, high = _range(column, value)
    steps = [low + (high - low) * i / _STEPS for i in range(_STEPS + 1)]
    if column.type == "integer":
        return sorted({min(max(round(it), math.ceil(low)), math.floor(high)) for it in steps})
    return [float(f"{it:.6g}") if low <= float(f"{it:.6g}") <= high else it for it in steps]


def _range(column: Column, value: Any) -> tuple[float, float]:
    """Return between which numbers a column is varied: its bounds, else as far as its value."""
    around = float(value) if isinstance(value, int | float) else 0.0
    reach = max(abs(around), 1.0)
    low = column.minimum if column.minimum is not None else max(around - reach, column.low)
    high = column.maximum if column.maximum is not None else min(around + reach, column.high)
    return float(low), float(high)


def curve_of(
    column: Column, value: Any, values: Sequence[Any], answers: Sequence[dict[str, Any]]
) -> Curve:
    """Return the curve of `answers`: the first is to the row as it is, the others to `values`."""
    score, scores = _scores(answers)
    is_line = column.type in {"numeric", "integer"}
    low, high = (0.0, 1.0) if score != "prediction" else (min(scores), max(scores))
    first, last = (values[0], values[-1]) if is_line else (0, 1)

    def point(value: Any, number: float) -> dict[str, Any]:
        along = (value - first) / (last - first) if is_line and last > first else 0.0
        up = (number - low) / (high - low) if high > low else 0.5
        shown = "missing" if value is None else class_key(value) if not is_line else f"{value:.6g}"
        return {
            "value": shown,
            "score": number,
            "share": up,
            "x": _WIDTH * along,
            "y": _HEIGHT * (1 - up),
        }

    on_line = is_line and isinstance(value, int | float) and first <= value <= last
    return Curve(
        column.name,
        score,
        [point(*pair) for pair in zip(values, scores[1:], strict=True)],
        low,
        high,
        is_line,
        point(value, scores[0]) if on_line else None,
    )


def _scores(answers: Sequence[dict[str, Any]]) -> tuple[str, list[float]]:
    """Return what is drawn: the number predicted, or how probable the class is of the first."""
    first = answers[0]["prediction"]
    if isinstance(first, float):
        return "prediction", [float(it["prediction"]) for it in answers]
    name = class_key(first)
    if "probabilities" in answers[0]:
        title = f"probability of {name}"
        return title, [float(it["probabilities"].get(name, 0.0)) for it in answers]
    return f"whether it is {name}", [float(it["prediction"] == first) for it in answers]
