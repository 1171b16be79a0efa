"""Trying a model with a file: its rows are one call, and come back with what was answered."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from onrecord.console.ask import ask
from onrecord.console.pages import PREFIX, PageRoute, code_of, page, whole_number
from onrecord.console.session import PersonDep, check_form, check_origin
from onrecord.console.try_it import version_of
from onrecord.errors import CallError, Fault, InvalidInput, MalformedRequest, UnsupportedMediaType
from onrecord.http.negotiate import given_kind
from onrecord.http.services import Services, ServicesDep
from onrecord.serving.forms import CONTENT_TYPES
from onrecord.serving.prediction import Predictor
from onrecord.serving.uploads import kind_of_upload, open_upload

__all__ = ["is_path", "router"]

_PATH = f"{PREFIX}/try"
_END = "/file"
_COLUMN = "c."
"""What the name of a feature's field begins with, lest a feature have the name of another field."""

_MOST_FAULTS = 200
_MOST_FIELDS = 5000
_ROW_DIGITS = 12
_FORM_BYTES = 64 * 1024
"""What the fields of the form take beside the file, with which it must fit in a body."""

_ROW = re.compile(r"/rows/(\d+)(?:/(.*))?", re.DOTALL)
_NOT_PLAIN = re.compile(r"[^\w.-]+", re.ASCII)
_NOT_LETTERS = re.compile(r"[\W_]+")

router = APIRouter(prefix=PREFIX, include_in_schema=False, route_class=PageRoute)


@dataclass(frozen=True, slots=True)
class _Tried:
    """What a person sent for a model: `columns` are by feature, `names` those of the file.

    `first` is how many rows of the file came before these, where it comes in parts.
    """

    predictor: Predictor
    columns: Mapping[str, str]
    names: tuple[str, ...] = ()
    first: int = 0
    error: CallError | None = None


@dataclass(frozen=True, slots=True)
class _Sent:
    """The form that came; `name` is the file's without its ending, fit for a header."""

    fields: Mapping[str, str]
    name: str
    content: bytes


def is_path(path: str) -> bool:
    """Tell whether a path is one of these, whose bodies may be large."""
    return path.startswith(f"{_PATH}/") and path.endswith(_END)


@router.get("/try/{name}/file")
async def show_form(request: Request, name: str, _: PersonDep, services: ServicesDep) -> Response:
    """Show the form by which a file is sent."""
    predictor = version_of(services, name, request.query_params.get("version"))
    names = predictor.model.schema.names
    return _page(request, services, _Tried(predictor, dict(zip(names, names, strict=True))))


@router.post("/try/{name}/file")
async def score(request: Request, name: str, _: PersonDep, services: ServicesDep) -> Response:
    """Ask the model for the rows of a file, as `POST /predict` does; give it back with answers."""
    check_origin(request)
    async with services.large_bodies.read(request.scope, request.receive) as body:
        sent = await _form(request, body)
        check_form(request, sent.fields)
        predictor = version_of(services, name, sent.fields.get("version"))
        return await _scored(request, services, predictor, sent)


async def _scored(
    request: Request, services: Services, predictor: Predictor, sent: _Sent
) -> Response:
    """Return the file with its answers, or the page that says why there are none."""
    names = predictor.model.schema.names
    columns = {it: sent.fields.get(_COLUMN + it, "").strip() or it for it in names}
    first = whole_number(sent.fields.get("first", ""), _ROW_DIGITS) or 0
    tried = _Tried(predictor, columns, first=first)
    try:
        if not sent.content:
            fault = Fault("/file", "missing", "Choose a CSV or Parquet file that is not empty.")
            raise InvalidInput("The file is missing.", faults=(fault,))
        kind = CONTENT_TYPES[given_kind(CONTENT_TYPES[kind_of_upload(sent.content)])]
        most = services.max_rows
        upload = await asyncio.to_thread(open_upload, sent.content, max_rows=most)
        tried = replace(tried, names=upload.names)
        asked = await asyncio.to_thread(upload.body_for, columns)
        answer = await ask(request, services, predictor, asked, content_type=kind)
        if answer.error is not None:
            raise answer.error
    except CallError as error:
        return _page(request, services, replace(tried, error=error))
    scored = await asyncio.to_thread(upload.scored, answer.body, header=not tried.first)
    suffix = "parquet" if upload.kind == "parquet" else "csv"
    headers = {
        "cache-control": "no-store",
        "content-disposition": f'attachment; filename="{sent.name}-scored.{suffix}"',
    }
    return Response(scored, media_type=kind, headers=headers)


async def _form(request: Request, body: bytes) -> _Sent:
    """Return what a multipart body holds; raises MalformedRequest, UnsupportedMediaType."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise UnsupportedMediaType("Send the file by the form of its page.")

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(request.headers, stream(), max_files=1, max_fields=_MOST_FIELDS)
    # The file may hold what must not lie on a disk.
    parser.spool_max_size = len(body) + 1
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise MalformedRequest(f"The form cannot be read: {error.message}") from None
    fields = {name: value for name, value in form.items() if isinstance(value, str)}
    file = form.get("file")
    content, name = b"", ""
    if isinstance(file, UploadFile):
        content, name = await file.read(), _NOT_PLAIN.sub("-", PurePath(file.filename or "").stem)
    await form.close()
    return _Sent(fields, name.strip("-.")[:100] or "file", content)


def _page(request: Request, services: Services, tried: _Tried) -> Response:
    predictor, error = tried.predictor, tried.error
    model = predictor.model
    served = services.served.models[model.name]
    faults = [_told(fault, tried) for fault in (error.faults if error else ())]
    return page(
        request,
        "try_file.html",
        code=code_of(error),
        title=f"Score a file by {model.name}",
        path=f"{_PATH}/{quote(model.name, safe='')}",
        models=sorted(services.served.models),
        model=model,
        number=predictor.number,
        live=predictor is served.live,
        versions=list(reversed(served.versions)) if len(served.versions) > 1 else [],
        field=_COLUMN,
        columns={
            feature: _guess(feature, column, tried.names)
            for feature, column in tried.columns.items()
        },
        names=tried.names,
        error=error,
        faults=faults[:_MOST_FAULTS],
        more=max(0, len(faults) - _MOST_FAULTS),
        unmapped=any(not it["row"] and it["feature"] in tried.columns for it in faults),
        max_rows=services.max_rows,
        max_bytes=services.max_body_bytes - _FORM_BYTES,
    )


def _told(fault: Fault, tried: _Tried) -> dict[str, Any]:
    """Return what is wrong by the file's row, from 1 on, and by its column's name."""
    found = _ROW.fullmatch(fault.pointer)
    rest = fault.pointer.lstrip("/") if found is None else found[2] or ""
    feature = rest.replace("~1", "/").replace("~0", "~")
    detail = fault.detail
    if fault.code == "wrong_type" and fault.expected is not None:
        # What the API says of a type is about JSON.
        detail = f"It must be {fault.expected.removesuffix(' or null')}."
    return {
        "row": None if found is None else tried.first + int(found[1]) + 1,
        "feature": feature,
        "column": tried.columns.get(feature, feature),
        "detail": detail,
        "received": fault.received,
    }


def _guess(feature: str, column: str, names: tuple[str, ...]) -> str:
    """Return the one column of a file that is called nearly as a feature, else what was said."""
    if not names or column in names:
        return column
    alike = [name for name in names if _letters(name) == _letters(feature)]
    return alike[0] if len(alike) == 1 else column


def _letters(name: str) -> str:
    return _NOT_LETTERS.sub("", name).casefold()
