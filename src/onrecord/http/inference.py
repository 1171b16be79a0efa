"""Inference calls of the Open Inference Protocol V2 over REST, and its errors.

Source: https://github.com/kserve/open-inference-protocol (REST, "Inference Request JSON Object").
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from starlette.responses import Response

from onrecord.errors import CallError, IdempotencyKeyReused, NotAcceptable, UnsupportedMediaType
from onrecord.http.context import header
from onrecord.http.negotiate import best_of
from onrecord.http.problems import STATUS, problem_body, problem_headers
from onrecord.http.tensors import Output, binary_of, outputs_of, shape_of, values_of
from onrecord.http.translation import (
    Asked,
    Headers,
    json_body,
    misshapen,
    object_in,
    predictions_in,
)
from onrecord.serving.prediction import Answer
from onrecord.serving.strict_json import shown

__all__ = ["JSON_LENGTH", "InferenceCall", "error_response", "is_inference_path"]

JSON_LENGTH = b"inference-header-content-length"
"""The header that tells how many bytes of a body are JSON, where binary tensors follow them."""

_OK = 200
_JSON = "application/json"
_BINARY = "application/octet-stream"
_MATRIX = 2
_MOST_FAULTS = 20


class InferenceCall:
    """One call to `/v2/models/{name}/infer`."""

    def __init__(self) -> None:
        self._id: str | None = None
        self._outputs: list[tuple[Output, bool]] = []

    def read(self, body: bytes, headers: Headers, asked: Asked) -> tuple[bytes, str]:
        """Return the call's rows as `POST /predict` takes them."""
        _check_media_types(headers)
        size = _json_size(header(headers, JSON_LENGTH), len(body))
        document = object_in(body[:size])
        self._id = _optional(document, "id", str, "")
        self._outputs = _asked_outputs(document, outputs_of(asked.sample))
        tensors = _objects(document, "inputs")
        columns = _columns(tensors, memoryview(body)[size:], asked)
        return json_body({"columns": columns}), _JSON

    def answer(self, answer: Answer) -> tuple[Answer, Headers]:
        """Return the outputs that were asked for, or the refusal as the protocol has it."""
        if answer.status != _OK:
            body = _error_body(answer.body)
            refused = Answer(answer.status, body, answer.error, _JSON, answer.replayed)
            return refused, ()
        told, rows = predictions_in(answer.body)
        outputs = []
        binaries = []
        for output, binary in self._outputs:
            tensor: dict[str, Any] = {
                "name": output.name,
                "datatype": output.datatype,
                "shape": output.shape(len(rows)),
            }
            values = _values(output, rows)
            if binary:
                binaries.append(binary_of(output.datatype, values))
                tensor["parameters"] = {"binary_data_size": len(binaries[-1])}
            else:
                tensor["data"] = values
            outputs.append(tensor)
        model = told["model"]
        document = {
            "model_name": model["name"],
            "model_version": model["version"],
            "id": told["id"] if self._id is None else self._id,
            "parameters": {"prediction_id": told["id"], "sha256": model["sha256"]},
            "outputs": outputs,
        }
        encoded = msgspec.json.encode(document)
        if not binaries:
            return Answer(_OK, encoded, replayed=answer.replayed), ()
        whole = b"".join([encoded, *binaries])
        length = (JSON_LENGTH, str(len(encoded)).encode())
        return Answer(_OK, whole, content_type=_BINARY, replayed=answer.replayed), (length,)


def _values(output: Output, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    try:
        return output.values(rows)
    except (KeyError, TypeError, ValueError):
        raise IdempotencyKeyReused(
            "The answer of this Idempotency-Key is by another version of the model, with other "
            "outputs; send a new key."
        ) from None


def is_inference_path(path: str) -> bool:
    """Tell whether errors at a path are to be as the protocol has them."""
    return path == "/v2" or path.startswith("/v2/")


def error_response(error: CallError, request_id: str) -> Response:
    """Return an error as the protocol has it."""
    return Response(
        _error_body(problem_body(error, request_id)),
        status_code=STATUS[type(error)],
        headers=problem_headers(error),
        media_type=_JSON,
    )


def _error_body(problem: bytes) -> bytes:
    """Return a problem document with what it says, fault by fault, as the text `error` in it."""
    told = msgspec.json.decode(problem)
    faults = [f"{it['pointer'] or '/'}: {it['detail']}" for it in told.get("errors", ())]
    text = " ".join([told["detail"], *faults[:_MOST_FAULTS]])
    return msgspec.json.encode({"error": text, **told})


def _check_media_types(headers: Headers) -> None:
    content_type = (header(headers, b"content-type") or b"").decode("latin-1")
    essence = content_type.split(";", 1)[0].strip().lower()
    if essence not in {"", _JSON, _BINARY}:
        raise UnsupportedMediaType(f"Send the request as {_JSON}, or as {_BINARY} with tensors.")
    accept = header(headers, b"accept")
    if best_of(("json",), accept) is None and _BINARY not in (accept or b"").decode("latin-1"):
        raise NotAcceptable(f"Answers come as {_JSON} or {_BINARY}; accept one of them.")


def _json_size(told: bytes | None, size: int) -> int:
    if told is None:
        return size
    if not told.isdigit() or len(told) > len(str(size)) or int(told) > size:
        detail = "Inference-Header-Content-Length is no number of bytes that the body has."
        raise misshapen("", detail, f"0 to {size}", told.decode("latin-1")[:20])
    return int(told)


def _optional(document: Mapping[str, Any], key: str, kind: type, place: str) -> Any:
    value = document.get(key)
    if value is not None and not isinstance(value, kind):
        names = {str: "a string", dict: "an object", list: "a list", bool: "true or false"}
        raise misshapen(f"{place}/{key}", f"It must be {names[kind]}.", names[kind], shown(value))
    return value


def _objects(document: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """Return a list of tensors, each an object with a name that stands once."""
    listed = _optional(document, key, list, "")
    if not listed:
        raise misshapen(f"/{key}", "It must list at least one tensor.", "a list of tensors")
    seen: set[str] = set()
    for n, tensor in enumerate(listed):
        place = f"/{key}/{n}"
        if not isinstance(tensor, dict):
            raise misshapen(place, "A tensor must be an object.", "an object", shown(tensor))
        name = tensor.get("name")
        if not isinstance(name, str) or name in seen:
            detail = "A tensor's name must be a string that stands once."
            raise misshapen(f"{place}/name", detail, "a string", shown(name))
        seen.add(name)
    return list(listed)


def _asked_outputs(
    document: Mapping[str, Any], outputs: Sequence[Output]
) -> list[tuple[Output, bool]]:
    """Return the outputs that are asked for, by default all, and which of them as bytes."""
    parameters = _optional(document, "parameters", dict, "") or {}
    binary = bool(_optional(parameters, "binary_data_output", bool, "/parameters"))
    if not document.get("outputs"):
        _optional(document, "outputs", list, "")
        return [(output, binary) for output in outputs]
    known = {output.name: output for output in outputs}
    asked = []
    for n, tensor in enumerate(_objects(document, "outputs")):
        place = f"/outputs/{n}"
        output = known.get(tensor["name"])
        if output is None:
            expected = f"one of {', '.join(known)}"
            detail = "The model has no such output."
            raise misshapen(f"{place}/name", detail, expected, shown(tensor["name"]))
        own = _optional(tensor, "parameters", dict, place) or {}
        if "classification" in own:
            detail = "It is not taken here; ask for probabilities."
            raise misshapen(f"{place}/parameters/classification", detail)
        told = _optional(own, "binary_data", bool, f"{place}/parameters")
        asked.append((output, binary if told is None else told))
    return asked


def _columns(
    tensors: Sequence[Mapping[str, Any]], binary: memoryview, asked: Asked
) -> dict[str, list[Any]]:
    """Return the values of the input tensors by column: one tensor a column, or one matrix."""
    columns: dict[str, list[Any]] = {}
    names = asked.schema.names
    room = asked.max_rows * len(names)
    for n, tensor in enumerate(tensors):
        place = f"/inputs/{n}"
        shape = shape_of(tensor, place)
        room -= math.prod(shape)
        if room < 0:
            detail = "The tensors have more values than there may be rows."
            raise misshapen(f"{place}/shape", detail, f"at most {asked.max_rows} rows")
        raw, binary = _own_bytes(tensor, binary, place)
        values = values_of(tensor, shape, raw, place)
        wide = len(shape) == _MATRIX and (shape[1] != 1 or tensor["name"] not in names)
        if not wide:
            columns[tensor["name"]] = values
        elif len(tensors) == 1 and shape[1] == len(names):
            width = shape[1]
            columns = {name: values[at::width] for at, name in enumerate(names)}
        else:
            expected = f"[rows, 1] a column, or one tensor of [rows, {len(names)}]"
            detail = "A matrix has all columns in the order of the schema, and comes alone."
            raise misshapen(f"{place}/shape", detail, expected, shown(shape))
    if len(binary):
        detail = f"{len(binary)} bytes follow the last tensor that has any."
        raise misshapen("/inputs", detail)
    nullable = {column.name for column in asked.schema.columns if column.nullable}
    return {
        name: [None if value != value else value for value in values]  # noqa: PLR0124 - NaN
        if name in nullable
        else values
        for name, values in columns.items()
    }


def _own_bytes(
    tensor: Mapping[str, Any], binary: memoryview, place: str
) -> tuple[memoryview | None, memoryview]:
    """Return the bytes of a tensor, None where its values stand in the JSON; and what follows."""
    parameters = _optional(tensor, "parameters", dict, place) or {}
    if "binary_data_size" not in parameters:
        return None, binary
    size = parameters["binary_data_size"]
    if type(size) is not int or not 0 <= size <= len(binary) or "data" in tensor:
        detail = "It must be how many of the bytes that follow the JSON are the tensor's."
        place = f"{place}/parameters/binary_data_size"
        raise misshapen(place, detail, f"0 to {len(binary)}, without data", shown(size))
    return binary[:size], binary[size:]
