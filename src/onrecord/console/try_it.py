"""Try it: a form drawn from a model's schema, and what the model answers, on record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from onrecord.console.ask import ask as ask_model
from onrecord.console.form_rows import PREFIX as FIELD
from onrecord.console.form_rows import form_of, row_of
from onrecord.console.pages import PREFIX, PageRoute, code_of, fields_of, page
from onrecord.console.session import ChangeDep, PersonDep
from onrecord.console.snippets import predict_url, snippets
from onrecord.console.what_if import Curve, curve_of, values_of
from onrecord.errors import CallError, NotFound
from onrecord.http.services import Services, ServicesDep
from onrecord.serving.faults import pointer_to
from onrecord.serving.input_schema import InputSchema
from onrecord.serving.outputs import class_key, prediction_text, probabilities_by_class
from onrecord.serving.prediction import Predictor

__all__ = ["router", "version_of"]

_PATH = f"{PREFIX}/try"
_MOST_EXAMPLES = 5
_MOST_CONTRIBUTIONS = 20

router = APIRouter(prefix=PREFIX, include_in_schema=False, route_class=PageRoute)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a person filled in for a version of a model, and what came of it.

    `faults` are by column; `answer` is the answer to one row, `curve` what it is over a feature.
    """

    predictor: Predictor
    fields: Mapping[str, str]
    faults: Mapping[str, str]
    error: CallError | None = None
    answer: dict[str, Any] | None = None
    curve: Curve | None = None


@router.get("/try")
async def first(_: PersonDep, services: ServicesDep) -> Response:
    """Lead to the model that `/predict` answers by."""
    name = services.served.default or next(iter(services.served.models), "")
    return RedirectResponse(f"{_PATH}/{quote(name, safe='')}", 303)


@router.get("/try/{name}")
async def show_form(request: Request, name: str, _: PersonDep, services: ServicesDep) -> Response:
    """Show the form of a model, filled as the address says, or else with a typical row."""
    predictor = version_of(services, name, request.query_params.get("version"))
    schema = predictor.model.schema
    fields = _fields(request.query_params)
    if not fields or schema.sensitive:
        fields = form_of(schema.example_row())
    return _page(request, services, _Asked(predictor, fields, {}))


@router.post("/try/{name}")
async def ask(request: Request, name: str, _: ChangeDep, services: ServicesDep) -> Response:
    """Ask the model, as `POST /predict` does: for the row, and for the curve of a feature."""
    form = await fields_of(request)
    predictor = version_of(services, name, form.get("version"))
    schema, fields = predictor.model.schema, _fields(form)
    row = row_of(schema, fields)
    feature = form.get("feature", "") if form.get("ask") == "what if" else ""
    column = next((it for it in schema.columns if it.name == feature), None)
    values = [] if column is None else values_of(column, row.get(feature))
    if column is None or not values:
        explained = form.get("explain") == "yes"
        answer = await ask_model(request, services, predictor, _json(row), explained=explained)
    else:
        rows = [row, *({**row, feature: value} for value in values)]
        answer = await ask_model(request, services, predictor, _json({"rows": rows}))
    if answer.error is not None:
        faults = _faults(schema, answer.error)
        return _page(request, services, _Asked(predictor, fields, faults, answer.error))
    told = msgspec.json.decode(answer.body)
    curve = None
    if column is not None and values:
        found = told.pop("predictions")
        told |= found[0]
        curve = curve_of(column, row.get(feature), values, found)
    return _page(request, services, _Asked(predictor, fields, {}, None, told, curve))


def version_of(services: Services, name: str, version: str | None) -> Predictor:
    """Return a loaded version of a model, by default the live one; raises NotFound."""
    model = services.served.models.get(name)
    if model is None:
        raise NotFound(f"There is no model {name[:100]!r} here.")
    predictor = model.find(version) if version else model.live
    if predictor is None:
        raise NotFound(f"The model {name!r} has no version {str(version)[:100]!r} in use.")
    return predictor


def _fields(given: Mapping[str, str]) -> dict[str, str]:
    return {key.removeprefix(FIELD): text for key, text in given.items() if key.startswith(FIELD)}


def _json(body: dict[str, Any]) -> bytes:
    return json.dumps(body).encode()


def _faults(schema: InputSchema, error: CallError) -> dict[str, str]:
    """Return what is wrong with each column of the row, or of the first of several."""
    found: dict[str, str] = {}
    for fault in error.faults:
        for column in schema.columns:
            if fault.pointer in {pointer_to("", column.name), pointer_to("/rows/0", column.name)}:
                # What the API says of a type is about JSON.
                of_type = f"Write {column.expected.removesuffix(' or null')}."
                told = of_type if fault.code == "wrong_type" else fault.detail
                found.setdefault(column.name, told)
    return found


def _page(request: Request, services: Services, asked: _Asked) -> Response:
    predictor, model = asked.predictor, asked.predictor.model
    served = services.served.models[model.name]
    path = f"{_PATH}/{quote(model.name, safe='')}"
    link = None
    if not model.schema.sensitive:
        link = f"{path}?{urlencode([(FIELD + name, text) for name, text in asked.fields.items()])}"
    error = asked.error
    return page(
        request,
        "try.html",
        code=code_of(error),
        title=f"Try {model.name}",
        path=path,
        field=FIELD,
        models=sorted(services.served.models),
        model=model,
        number=predictor.number,
        versions=list(reversed(served.versions)) if len(served.versions) > 1 else [],
        live=predictor is served.live,
        columns=model.schema.columns,
        fields=asked.fields,
        faults=asked.faults,
        error=error,
        answer=asked.answer and _shown(asked.answer),
        explanation=_explanation(asked.answer or {}),
        explainable=not predictor.not_explained,
        curve=asked.curve,
        varied=[it.name for it in model.schema.columns if it.type != "text"],
        examples=_examples(predictor, path),
        link=link,
        snippets=snippets(predict_url(request, model.name), row_of(model.schema, asked.fields)),
    )


def _examples(predictor: Predictor, path: str) -> list[dict[str, str]]:
    """Return links that fill the form: the typical row, and rows whose answers are known."""
    schema = predictor.model.schema
    rows = [("a typical row", schema.example_row())]
    for golden in [] if schema.sensitive else predictor.model.golden_rows[:_MOST_EXAMPLES]:
        expected = golden.expected.get("prediction", f"line {golden.line}")
        values = dict(zip(schema.names, golden.row, strict=True))
        rows.append((f"a golden row: {expected}", values))
    return [
        {
            "title": title,
            "href": f"{path}?{urlencode([(FIELD + k, v) for k, v in form_of(values).items()])}",
        }
        for title, values in rows
    ]


def _shown(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer as it is shown: the prediction as text, the likeliest class first."""
    prediction = answer["prediction"]
    pairs = probabilities_by_class(prediction, answer.get("probabilities"))
    if not isinstance(prediction, dict):
        pairs.sort(key=lambda it: -it[1])
    is_number = isinstance(prediction, float)
    text = f"{prediction:.6g}" if is_number else prediction_text(prediction)
    return {"id": answer["id"], "prediction": text, "probabilities": pairs}


def _explanation(answer: dict[str, Any]) -> dict[str, Any] | None:
    """Return what moved the model, greatest first, as parts of the greatest."""
    told = answer.get("explanation")
    if told is None:
        return None
    part = told["classes"][class_key(answer["prediction"])] if "classes" in told else told
    parts = sorted(part["contributions"].items(), key=lambda it: -abs(it[1]))
    most = max((abs(value) for _, value in parts), default=0.0) or 1.0
    return {
        "space": told["space"],
        "base": part["base"],
        "parts": [(name, value, value / most) for name, value in parts[:_MOST_CONTRIBUTIONS]],
        "others": sum(value for _, value in parts[_MOST_CONTRIBUTIONS:]),
    }
