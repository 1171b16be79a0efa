"""What a foreign protocol is to a prediction call: other bytes in, other bytes out.

A `Translation` turns the body of a call into one that `POST /predict` takes, before it is validated
and recorded, and the recorded answer into the one that leaves. Whatever lies between is the same
for all protocols, and so is what the record holds.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from onrecord.errors import Fault, InvalidInput, MalformedJson
from onrecord.serving.input_schema import InputSchema
from onrecord.serving.outputs import Outputs
from onrecord.serving.prediction import Answer
from onrecord.serving.strict_json import read_strictly, shown

__all__ = [
    "Asked",
    "Headers",
    "Translation",
    "json_body",
    "misshapen",
    "object_in",
    "predictions_in",
]

Headers = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be known of the model of a call.

    `sample` is an answer of it, whose targets and classes any answer has; `max_rows` is the most
    rows that a call may have.
    """

    schema: InputSchema
    sample: Outputs
    max_rows: int


class Translation(Protocol):
    """One call of a foreign protocol, from its body to its answer."""

    def read(self, body: bytes, headers: Headers, asked: Asked) -> tuple[bytes, str]:
        """Return a body of `POST /predict` with the same rows, and its content type.

        Raises CallError where the body does not fit the protocol; whether its rows fit the schema
        is not judged here.
        """
        ...

    def answer(self, answer: Answer) -> tuple[Answer, Headers]:
        """Return what leaves for an answer of `POST /predict`, and headers that go with it.

        Raises IdempotencyKeyReused where that is an earlier answer, and not one to this call.
        """
        ...


def object_in(body: bytes) -> dict[str, Any]:
    """Return the JSON object that a body holds; raises MalformedJson and InvalidInput."""
    document = read_strictly(body)
    if not isinstance(document, dict):
        raise misshapen("", "The body must be a JSON object.", "an object", shown(document))
    return document


def json_body(document: dict[str, Any]) -> bytes:
    """Return a document of values that `read_strictly` gave, as JSON that it reads as the same."""
    try:
        try:
            return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
        except UnicodeEncodeError:
            return json.dumps(document, separators=(",", ":")).encode()
    except RecursionError as error:
        raise MalformedJson("The body is nested too deeply.") from error


def misshapen(
    pointer: str, detail: str, expected: str | None = None, received: str | None = None
) -> InvalidInput:
    """Return what a caller is told whose body is not as its protocol has it."""
    faults = (Fault(pointer, "wrong_shape", detail, expected, received),)
    return InvalidInput("The body is not as its protocol has it.", faults=faults)


def predictions_in(body: bytes) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a good answer of `POST /predict` in JSON, and the answers to its rows."""
    answer: dict[str, Any] = msgspec.json.decode(body)
    return answer, answer.get("predictions", [answer])
