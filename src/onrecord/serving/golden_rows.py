"""Golden rows: inputs whose right answers are known, which a model must give before it serves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from onrecord.errors import CallError, ModelDirectoryError
from onrecord.serving.input_schema import InputSchema
from onrecord.serving.outputs import class_key
from onrecord.serving.runtimes import Row, Runtime
from onrecord.serving.validation import Validator

__all__ = ["GOLDEN_FILE", "GoldenRow", "failures_of", "parse_golden_rows"]

GOLDEN_FILE = "golden.jsonl"

_MAX_ROWS = 10_000
_TOLERANCE = 1e-6
_FIELDS = {"input", "expected", "tolerance"}
_ANSWER_FIELDS = {"prediction", "probabilities"}


@dataclass(frozen=True, slots=True)
class GoldenRow:
    """A row, what it is to be answered, and how far a number may be from that."""

    line: int
    row: Row
    expected: dict[str, Any]
    tolerance: float


def parse_golden_rows(raw: bytes, schema: InputSchema) -> list[GoldenRow]:
    """Return the rows in the bytes of a `golden.jsonl`: one JSON object a line.

    Each has `input` (a row), `expected` (`prediction`, `probabilities` or both, as in an answer)
    and, if it likes, `tolerance`. Raises ModelDirectoryError, which names the line.
    """
    validator = Validator(schema, max_rows=1)
    lines = raw.decode("utf-8", errors="replace").splitlines()
    rows = [
        _parsed(number, line, validator)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if len(rows) > _MAX_ROWS:
        raise _error(_MAX_ROWS + 1, f"there are more than {_MAX_ROWS} rows")
    return rows


def failures_of(rows: list[GoldenRow], runtime: Runtime) -> list[str]:
    """Return, a sentence each, which rows are not answered as they are to be."""
    return [f"line {row.line}: {why}" for row in rows for why in _failures(row, runtime)]


def _failures(golden: GoldenRow, runtime: Runtime) -> Iterator[str]:
    try:
        answer = runtime.predict([golden.row]).row(0)
    except Exception as error:  # noqa: BLE001 - whatever a model raises, it is no answer
        yield f"the model has no answer ({type(error).__name__})"
        return
    for name, expected in golden.expected.items():
        if not _agree(expected, answer.get(name), golden.tolerance):
            yield f"{name} is {answer.get(name)}, and is to be {expected}"


def _agree(expected: Any, found: Any, tolerance: float) -> bool:
    if isinstance(expected, dict):
        return isinstance(found, dict) and all(
            name in found and _agree(value, found[name], tolerance)
            for name, value in expected.items()
        )
    if isinstance(found, float) and isinstance(expected, (int, float)):
        return abs(found - expected) <= tolerance
    return found is not None and class_key(found) == class_key(expected)


def _parsed(number: int, line: str, validator: Validator) -> GoldenRow:
    try:
        document = json.loads(line)
    except ValueError as error:
        raise _error(number, f"it is not JSON: {error}") from None
    if not isinstance(document, dict) or not document.keys() <= _FIELDS:
        raise _error(number, f"it is no object of {', '.join(sorted(_FIELDS))}")
    expected = document.get("expected")
    if not isinstance(expected, dict) or not expected or not expected.keys() <= _ANSWER_FIELDS:
        raise _error(number, "`expected` is no object of prediction, probabilities or both")
    tolerance = document.get("tolerance", _TOLERANCE)
    if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)) or tolerance < 0:
        raise _error(number, "`tolerance` is no number of 0 or more")
    try:
        rows = validator.validate(json.dumps(document.get("input")).encode()).values
    except CallError as error:
        fault = error.faults[0] if error.faults else None
        told = error.detail if fault is None else f"{fault.pointer}: {fault.detail}"
        raise _error(number, f"`input` does not fit the schema: {told}") from None
    return GoldenRow(number, rows[0], expected, float(tolerance))


def _error(line: int, problem: str) -> ModelDirectoryError:
    return ModelDirectoryError(
        GOLDEN_FILE,
        f"line {line}",
        problem,
        'Write {"input": {...}, "expected": {"prediction": ...}} on each line.',
    )
