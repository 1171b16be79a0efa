"""The OpenAPI document: FastAPI's own, plus the hot path drawn from each model's columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, get_args

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from onrecord.http.idempotency import MAX_KEY_LENGTH
from onrecord.http.inference import is_inference_path
from onrecord.http.openapi_links import add_links
from onrecord.http.openapi_protocols import (
    INFERENCE_ERROR,
    JSON_LENGTH_PARAMETER,
    inference,
    invocation,
)
from onrecord.http.problems import STATUS
from onrecord.serving.artifact import Model
from onrecord.serving.explanations import Space
from onrecord.serving.forms import ARROW, CSV, PARQUET
from onrecord.serving.json_schema import body_json_schema
from onrecord.serving.served import ServedModel, ServedModels

__all__ = ["OpenApi", "openapi_document"]

_PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "RFC 9457 problem details.",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        "type": {"type": "string", "pattern": "^urn:onrecord:problem:[a-z_]+$"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "enum": sorted({error.code for error in STATUS})},
        "request_id": {"type": "string"},
        "violated-policies": {"type": "array", "items": {"type": "string"}},
        "gate": {"type": "object", "description": "What the gate found of a version."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["pointer", "code", "detail"],
                "properties": {
                    name: {"type": "string"}
                    for name in ("pointer", "code", "detail", "expected", "received")
                },
            },
        },
    },
}
_ANYWHERE = (
    "Every refusal is RFC 9457 problem details. Beyond what an operation lists, any address may "
    "answer 400 `malformed_request` to what is no HTTP, 404 `not_found`, 405 `method_not_allowed`, "
    "431 `head_too_large` and, where the server failed, 500 `model_failed`."
)
_OAUTH_ERROR: dict[str, Any] = {
    "type": "object",
    "description": "RFC 6749, section 5.2.",
    "required": ["error", "error_description"],
    "properties": {"error": {"type": "string"}, "error_description": {"type": "string"}},
}
_MEANING = {
    400: "The input does not fit; every bad field is named",
    401: "No valid token",
    403: "Not allowed; an API key may lack the scope that `WWW-Authenticate` names",
    404: "Not found",
    406: "The answer has no form that is accepted",
    408: "The body did not arrive in time",
    409: "It contradicts what is there: a name that is taken, a deleted user, the last admin, "
    "as many API keys as a user may have, a call that is not sealed yet, "
    "more calls than are erased at once, a version that may not or cannot be put in place, or a "
    "name that several versions have, a prediction of which no outcome can be told",
    413: "The body is too large",
    415: "The media type is not read here",
    422: "The model has no answer to this input, or no explanation, or the idempotency key came "
    "with another one",
    429: "A rate or a quota is used up; `violated-policies` names it",
    500: "The model or the server failed",
    503: "Not now: nothing was predicted; try again",
}
_LIMIT_HEADERS = {
    "RateLimit-Policy": {
        "schema": {"type": "string"},
        "description": 'What limits the caller, as `"rate";q=100;w=60`; only where anything does.',
    },
    "RateLimit": {
        "schema": {"type": "string"},
        "description": 'What the limits leave, as `"rate";r=12;t=30`.',
    },
}
_OAUTH = {"/token": "Not signed in", "/revoke": "Not a request that can be read"}
_TAGS = ("accounts", "prediction", "record", "models", "health")
_TEXTS = (CSV,)
_TEXT = {"schema": {"type": "string"}}
_FILES = (ARROW, PARQUET)
_FILE = {"schema": {"type": "string", "format": "binary"}}
_IDEMPOTENCY_KEY: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "A call that is sent again with its key gets the answer that it got before and "
    f"is not recorded again. Up to {MAX_KEY_LENGTH} characters, in quotes or bare: a new UUID for "
    'each call, such as "8e03978e-40d5-43dd-bc93-6894a57f9324".',
    # No example: the page fills it in, and the next call of whoever tries it would be refused.
    "schema": {"type": "string", "pattern": "^[ -~]+$"},
}
_EXPLAIN: dict[str, Any] = {
    "name": "explain",
    "in": "query",
    "description": "Whether the answer is to say what moved the model, for each feature; of JSON "
    "only, and of models that `GET /models` calls explainable.",
    "schema": {"type": "boolean", "default": False},
}
_VERSION: dict[str, Any] = {
    "name": "version",
    "in": "path",
    "required": True,
    "description": "An alias (`live`, `candidate`, `previous`), else the version's label, else its "
    "number, else the first eight or more digits of its SHA-256.",
    "schema": {"type": "string", "minLength": 1},
    "example": "live",
}
_REPLAYED: dict[str, Any] = {
    "Idempotent-Replayed": {
        "schema": {"const": "true"},
        "description": "There where an earlier call with the idempotency key got this answer.",
    }
}
_AS_ID = str.maketrans({"/": "_", "{": None, "}": None})
_REPLAYED_STATUSES = ("200", "400", "422", "500")
_PREDICT_STATUSES = (400, 401, 403, 404, 406, 408, 413, 415, 422, 429, 500, 503)


class OpenApi:
    """The document of an application, made anew where other versions have come to answer."""

    def __init__(self, app: FastAPI, served: ServedModels, *, max_rows: int) -> None:
        self._app = app
        self._served = served
        self._max_rows = max_rows
        self._models: Mapping[str, ServedModel] | None = None
        self._document: dict[str, Any] = {}

    def current(self) -> dict[str, Any]:
        """Return the document for the versions that answer now."""
        served = self._served
        if self._models is not served.models:
            models = [model.live.model for model in served.models.values()]
            self._document = openapi_document(
                self._app, models, served.default, max_rows=self._max_rows
            )
            self._models = served.models
        return self._document


def openapi_document(
    app: FastAPI, models: Iterable[Model], default_model: str, *, max_rows: int
) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of the application and its models."""
    document: dict[str, Any] = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    document["info"]["description"] += "\n\n" + _ANYWHERE
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Problem"] = _PROBLEM
    document["components"]["responses"] = {f"Problem{it}": _problem(it) for it in _MEANING}
    schemas["OAuthError"] = _OAUTH_ERROR
    schemas["InferenceError"] = INFERENCE_ERROR
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _document_refusals(path, method, operation)
            if is_inference_path(path):
                _document_inference_errors(operation)
    for model in models:
        addresses = [f"/models/{model.name}/predict"]
        if model.name == default_model:
            addresses.insert(0, "/predict")
        for address in addresses:
            document["paths"][address] = {"post": _predict_operation(model, address, max_rows)}
        pinned = f"/models/{model.name}/versions/{{version}}/predict"
        operation = _predict_operation(model, f"/models/{model.name}/versions/predict", max_rows)
        operation["summary"] = f"Predict with one version of {model.name}"
        operation["parameters"] = [_VERSION, *operation["parameters"]]
        document["paths"][pinned] = {"post": operation}
        document["paths"] |= _protocol_paths(model, default=model.name == default_model)
    add_links(document)
    document["tags"] = [{"name": name} for name in _TAGS]
    return document


def _document_refusals(path: str, method: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    taking_input = responses.pop("422", None) is not None or "requestBody" in operation
    secured = bool(operation.get("security"))
    statuses = {
        400: taking_input and path not in _OAUTH,
        401: secured,
        403: secured or (method == "post" and path == "/users"),
        404: "{" in path or (path == "/erasures" and method == "post"),
        408: "requestBody" in operation,
        409: (path.startswith("/users") and method in {"post", "patch", "delete"})
        or (path in {"/keys", "/erasures"} and method == "post")
        or path.endswith(("/proof", "/outcome", "/drift"))
        or (path.startswith("/models") and "/versions" in path and method == "get")
        or (path.startswith("/models") and method == "post"),
        413: "requestBody" in operation,
        415: path.endswith("/outcomes") and method == "post",
        429: path == "/token",
        503: path not in {"/healthz", "/v2/health/live"},
    }
    for status, applies in statuses.items():
        if applies:
            there = {"$ref": f"#/components/responses/Problem{status}"}
            responses.setdefault(str(status), there)
    if path in _OAUTH:
        responses["400"] = {
            "description": _OAUTH[path],
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/OAuthError"}}
            },
        }


def _codes(status: int) -> list[str]:
    return sorted({error.code for error, given in STATUS.items() if given == status})


def _problem(status: int) -> dict[str, Any]:
    schema = {
        "allOf": [
            {"$ref": "#/components/schemas/Problem"},
            {"properties": {"status": {"const": status}, "code": {"enum": _codes(status)}}},
        ]
    }
    answer: dict[str, Any] = {
        "description": _MEANING[status],
        "content": {"application/problem+json": {"schema": schema}},
    }
    if status in (429, 503):
        answer["headers"] = {
            "Retry-After": {"schema": {"type": "integer"}, "description": "Seconds to wait."}
        }
    return answer


def _call_responses(content: dict[str, Any]) -> dict[str, Any]:
    """Return the responses of a call whose good answers are of that content."""
    responses: dict[str, Any] = {
        "200": {"description": "The prediction, already on record", "content": content}
    }
    responses |= {str(status): _problem(status) for status in _PREDICT_STATUSES}
    for code in _REPLAYED_STATUSES:
        responses[code]["headers"] = _REPLAYED
    for status, response in responses.items():
        if status != "401":
            response["headers"] = {**response.get("headers", {}), **_LIMIT_HEADERS}
    return responses


def _protocol_paths(model: Model, *, default: bool) -> dict[str, Any]:
    """Return the paths of a model's calls in foreign protocols."""
    paths = {}
    for begin, end in (("", "/invocations"), ("/v2", "/infer")):
        named = f"{begin}/models/{model.name}"
        alone = [end] if default and not begin else []
        for address in (*alone, f"{named}{end}", f"{named}/versions/{{version}}{end}"):
            describe, whose = (inference, "V2 asks") if begin else (invocation, "MLflow asks")
            asked, answered = describe(model.schema)
            parameters = [_VERSION] if "{" in address else []
            operation: dict[str, Any] = {
                "tags": ["prediction"],
                "summary": f"Predict with {model.name}, as {whose}",
                "operationId": address.translate(_AS_ID).strip("_"),
                "security": [{"OAuth2PasswordBearer": []}],
                "parameters": [*parameters, _IDEMPOTENCY_KEY],
                "requestBody": {"required": True, "content": asked},
                "responses": _call_responses(answered),
            }
            if begin:
                operation["parameters"].append(JSON_LENGTH_PARAMETER)
                _document_inference_errors(operation)
            paths[address] = {"post": operation}
    return paths


def _document_inference_errors(operation: dict[str, Any]) -> None:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/InferenceError"}}}
    responses = operation["responses"]
    for status, response in responses.items():
        own = _problem(int(status)) if "$ref" in response else response
        if "application/problem+json" in own.get("content", {}):
            responses[status] = {**own, "content": error}


def _predict_operation(model: Model, address: str, max_rows: int) -> dict[str, Any]:
    example = model.schema.example_row()
    responses = _call_responses(
        {
            "application/json": {"schema": _answer_schema()},
            **dict.fromkeys(_TEXTS, _TEXT),
            **dict.fromkeys(_FILES, _FILE),
        }
    )
    where = " (the default model)" if address == "/predict" else ""
    return {
        "tags": ["prediction"],
        "summary": f"Predict with {model.name}{where}",
        "description": 'One row as an object, or many: as `{"rows": [...]}`, as '
        '`{"columns": {...}}`, as CSV with a header row, as an Arrow stream or as a Parquet file. '
        "`Accept` chooses among the same forms for the answer. "
        "The answer leaves after it is committed to the record.",
        "operationId": "predict" + address.replace("/", "_").removesuffix("_predict"),
        "security": [{"OAuth2PasswordBearer": []}],
        "parameters": [_EXPLAIN, _IDEMPOTENCY_KEY],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": body_json_schema(model.schema, max_rows),
                    "examples": {
                        "one row": {"value": example},
                        "many rows": {"value": {"rows": [example, example]}},
                        "columns": {"value": {"columns": {k: [v, v] for k, v in example.items()}}},
                    },
                },
                **dict.fromkeys(_TEXTS, _TEXT),
                **dict.fromkeys(_FILES, _FILE),
            },
        },
        "responses": responses,
    }


def _answer_schema() -> Mapping[str, Any]:
    prediction = {"description": "The predicted class or value."}
    probabilities = {"type": "object", "description": "The probability of each class."}
    told = {
        "base": {"type": "number"},
        "contributions": {"type": "object", "additionalProperties": {"type": "number"}},
    }
    classes = {"type": "object", "additionalProperties": {"type": "object", "properties": told}}
    explanation = {
        "type": "object",
        "required": ["space"],
        "description": "With explain=true: `base` and `contributions` add up to what `space` says; "
        "of more than two classes, for each in `classes`.",
        "properties": {
            "space": {"type": "string", "enum": list(get_args(Space))},
            **told,
            "classes": classes,
        },
    }
    row = {
        "type": "object",
        "required": ["id", "prediction"],
        "properties": {
            "id": {"type": "string", "format": "uuid"},
            "prediction": prediction,
            "probabilities": probabilities,
            "explanation": explanation,
        },
    }
    return {
        "type": "object",
        "required": ["id", "model"],
        "properties": {
            "id": {"type": "string", "format": "uuid"},
            "model": {
                "type": "object",
                "required": ["name", "version", "sha256"],
                "properties": {n: {"type": "string"} for n in ("name", "version", "sha256")},
            },
            "prediction": prediction,
            "probabilities": probabilities,
            "explanation": explanation,
            "predictions": {"type": "array", "items": row},
        },
    }
