"""Whether an outcome can be one of the prediction it is said of."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

from onrecord.errors import Fault, InvalidInput
from onrecord.insight.recorded_calls import RecordedAnswer
from onrecord.serving.outputs import class_key

__all__ = ["checked_outcome"]

_MAX_TEXT = 1000
_TOO_LARGE = 1 << 63


def checked_outcome(value: Any, answer: RecordedAnswer) -> Any:
    """Return an outcome as the model says such a thing: a class as it names it, or a float.

    A class is one of those that the answer has probabilities for, where it has any. Raises
    InvalidInput where the value is none that could have been predicted.
    """
    if not isinstance(answer.prediction, dict):
        return _checked(value, answer.prediction, answer.probabilities, "/outcome")
    targets = answer.prediction
    if not isinstance(value, dict) or value.keys() != targets.keys():
        names = ", ".join(sorted(targets))
        raise _invalid("/outcome", f"Send an object with the targets {names}.")
    chances = answer.probabilities or {}
    return {
        name: _checked(value[name], predicted, chances.get(name), f"/outcome/{name}")
        for name, predicted in targets.items()
    }


def _checked(value: Any, predicted: Any, chances: Any, pointer: str) -> Any:
    if isinstance(predicted, float):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _invalid(pointer, "Send a number: what the model predicts is one.")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise _invalid(pointer, "Send a finite number.")
        return number
    if not isinstance(value, (str, int, bool)) or len(str(value)) > _MAX_TEXT:
        raise _invalid(pointer, "Send a class, as the model names it.")
    if not isinstance(chances, dict):
        return _like(value, predicted, pointer)
    known = {class_key(name): name for name in chances}
    if class_key(value) not in known:
        raise _invalid(pointer, f"Send one of the model's classes: {_listed(known)}.")
    return _like(value, predicted, pointer)


def _like(value: Any, predicted: Any, pointer: str) -> Any:
    """Return a class in the type in which the model answers it."""
    text = class_key(value)
    # Half a surrogate pair cannot be stored, nor an integer that no reader of JSON takes whole.
    with contextlib.suppress(ValueError):
        if isinstance(predicted, str):
            return text.encode().decode()
        if isinstance(predicted, bool) and text in {"true", "false", "1", "0"}:
            return text in {"true", "1"}
        if abs(number := int(text)) < _TOO_LARGE:
            return number
    raise _invalid(pointer, f"Send a class such as {predicted!r}.")


def _listed(names: dict[str, Any]) -> str:
    def some() -> Iterator[str]:
        yield from list(names)[:20]
        if len(names) > 20:  # noqa: PLR2004
            yield "..."

    return ", ".join(some())


def _invalid(pointer: str, sentence: str) -> InvalidInput:
    return InvalidInput("The outcome does not fit.", faults=(Fault(pointer, "wrong", sentence),))
