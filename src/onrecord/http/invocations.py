"""`POST /invocations`: calls as MLflow's scoring server and SageMaker's containers take them.

Sources: MLflow, "Deploy MLflow Model as a Local Inference Server"; Amazon SageMaker, "Custom
Inference Code with Hosting Services"; RFC 4180, section 3, for the `header` parameter of CSV.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import Any

import msgspec

from onrecord.errors import Fault, InvalidInput, NotAcceptable, UnsupportedMediaType
from onrecord.http.context import header
from onrecord.http.negotiate import best_of, given_kind
from onrecord.http.translation import (
    Asked,
    Headers,
    json_body,
    misshapen,
    object_in,
    predictions_in,
)
from onrecord.serving.bounds import Damaged
from onrecord.serving.csv_body import header_of
from onrecord.serving.faults import pointer_to
from onrecord.serving.forms import CONTENT_TYPES, CSV, Kind
from onrecord.serving.input_schema import InputSchema
from onrecord.serving.outputs import class_key
from onrecord.serving.prediction import Answer
from onrecord.serving.strict_json import shown

__all__ = ["Invocation"]

_OK = 200
_KINDS: tuple[Kind, ...] = ("json", "csv")


class Invocation:
    """One call to `/invocations`."""

    def __init__(self) -> None:
        self._wanted: Kind = "json"

    def read(self, body: bytes, headers: Headers, asked: Asked) -> tuple[bytes, str]:
        """Return the call's rows as `POST /predict` takes them."""
        raw_type = header(headers, b"content-type")
        content_type = None if raw_type is None else raw_type.decode("latin-1")
        wanted = best_of(_KINDS, header(headers, b"accept"))
        if wanted is None:
            raise NotAcceptable("Answers come as application/json or text/csv; accept one of them.")
        self._wanted = wanted
        kind = given_kind(content_type)
        if kind == "csv":
            return _csv_with_header(body, content_type or CSV, asked.schema), CSV
        if kind != "json":
            raise UnsupportedMediaType("Send the input as application/json or text/csv.")
        return json_body(_rows(object_in(body), asked.schema)), "application/json"

    def answer(self, answer: Answer) -> tuple[Answer, Headers]:
        """Return the predictions alone, in the order of the rows; a refusal stays as it is."""
        if answer.status != _OK:
            return answer, ()
        _, rows = predictions_in(answer.body)
        predictions = [row["prediction"] for row in rows]
        if self._wanted == "json":
            body = msgspec.json.encode({"predictions": predictions})
            return Answer(_OK, body, replayed=answer.replayed), ()
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        for prediction in predictions:
            cells = prediction.values() if isinstance(prediction, dict) else [prediction]
            writer.writerow(map(class_key, cells))
        body = out.getvalue().encode()
        content_type = CONTENT_TYPES["csv"]
        return Answer(_OK, body, content_type=content_type, replayed=answer.replayed), ()


def _csv_with_header(body: bytes, content_type: str, schema: InputSchema) -> bytes:
    """Return CSV that begins with a header.

    The content type tells whether the body has one, else its first row does: a header has the name
    of a column in it.
    """
    parameters = [part.strip().lower() for part in content_type.split(";")[1:]]
    if "header=present" in parameters:
        return body
    if "header=absent" not in parameters:
        try:
            first = header_of(body)
        except Damaged:
            return body  # whoever reads it says what is wrong
        if any(name in schema.names for name in first):
            return body
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(schema.names)
    return out.getvalue().encode() + body.removeprefix(b"\xef\xbb\xbf")


def _rows(document: dict[str, Any], schema: InputSchema) -> dict[str, Any]:
    """Return the rows of a body of MLflow's as `{"rows": [...]}` or `{"columns": {...}}`."""
    given = [key for key in document if key in _READERS]
    if len(given) != 1:
        found = f"It has {' and '.join(given)}." if given else "It has none of them."
        detail = f"A body has one of {', '.join(_READERS)}. {found}"
        raise misshapen("", detail, f"an object with one of {', '.join(_READERS)}")
    for key, value in document.items():
        if key != given[0] and (key != "params" or value):
            detail = f"Nothing may stand beside {given[0]}; models here take no parameters."
            fault = Fault(pointer_to("", key), "unknown_field", detail, None, shown(value))
            raise InvalidInput("The body is not as its protocol has it.", faults=(fault,))
    return _READERS[given[0]](document[given[0]], f"/{given[0]}", schema)


def _split(value: Any, place: str, _schema: InputSchema) -> dict[str, Any]:
    if not isinstance(value, dict):
        expected = "an object with columns and data"
        raise misshapen(place, "It must be a split data frame.", expected, shown(value))
    names = _list(value.get("columns"), f"{place}/columns", "the columns' names")
    seen: set[str] = set()
    for n, name in enumerate(names):
        if not isinstance(name, str) or name in seen:
            detail = "A column's name must be a string that stands once."
            raise misshapen(f"{place}/columns/{n}", detail, "a string", shown(name))
        seen.add(name)
    data = _list(value.get("data"), f"{place}/data", "a list of values a row")
    return _by_name(data, f"{place}/data", names)


def _records(value: Any, place: str, _schema: InputSchema) -> dict[str, Any]:
    return {"rows": _list(value, place, "an object a row")}


def _instances(value: Any, place: str, schema: InputSchema) -> dict[str, Any]:
    rows = _list(value, place, "an object or a list of values a row")
    if rows and isinstance(rows[0], list):
        return _by_name(rows, place, schema.names)
    return {"rows": rows}


def _inputs(value: Any, place: str, schema: InputSchema) -> dict[str, Any]:
    if isinstance(value, dict):
        return {"columns": value}
    return _instances(value, place, schema)


def _by_name(rows: list[Any], place: str, names: Any) -> dict[str, Any]:
    """Return rows whose values stand in the order of some names."""
    for n, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(names):
            count = f"It has {len(row)} values" if isinstance(row, list) else "It is no list"
            detail = f"{count}; a row is a list of as many values as there are columns."
            raise misshapen(f"{place}/{n}", detail, f"{len(names)} values", shown(row))
    return {"rows": [dict(zip(names, row, strict=True)) for row in rows]}


def _list(value: Any, place: str, what: str) -> list[Any]:
    if not isinstance(value, list):
        received = None if value is None else shown(value)
        raise misshapen(place, f"It must be a list: {what}.", "a list", received)
    return value


_READERS: dict[str, Callable[[Any, str, InputSchema], dict[str, Any]]] = {
    "dataframe_split": _split,
    "dataframe_records": _records,
    "instances": _instances,
    "inputs": _inputs,
}
