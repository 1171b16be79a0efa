"""How a page is made: its template, its headers, and what is shown where there is an error."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from onrecord.console.session import renew
from onrecord.errors import CallError, Unauthenticated
from onrecord.http.own_files import own_file
from onrecord.http.problems import STATUS, problem_headers

__all__ = [
    "PREFIX",
    "PageRoute",
    "code_of",
    "faults_of",
    "fields_of",
    "page",
    "router",
    "whole_number",
]

PREFIX = "/console"
"""The path under which every page is."""

_UPLOT = "vendor/uplot-1.6.32"
_FILES = {
    "console.css": "text/css",
    "console.js": "text/javascript",
    "charts.js": "text/javascript",
    "try.js": "text/javascript",
    "upload.js": "text/javascript",
    f"{_UPLOT}/uPlot.iife.min.js": "text/javascript",
    f"{_UPLOT}/uPlot.min.css": "text/css",
}
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}
_CODE = re.compile(r"`([^`]+)`")
_SECOND_US = 1e6
_MILLISECOND_US = 1e3

router = APIRouter(prefix=f"{PREFIX}/static", include_in_schema=False)


@router.get("/{path:path}")
async def static(path: str) -> Response:
    """Serve one of the pages' own files."""
    return own_file("onrecord.console", _FILES, path)


def page(request: Request, template: str, *, code: int = 200, **values: Any) -> Response:
    """Return a template filled as a page; all that came from callers or a model is escaped."""
    body = _templates.get_template(template).render(
        here=request.url.path,
        person=request.scope.get("onrecord.console.person"),
        csrf=request.scope.get("onrecord.console.csrf", ""),
        prefix=PREFIX,
        uplot=_UPLOT,
        **values,
    )
    return HTMLResponse(body, status_code=code, headers=_HEADERS)


async def fields_of(request: Request) -> dict[str, str]:
    """Return what a form holds; of several fields of one name the last."""
    return {name: str(value) for name, value in (await request.form()).items()}


def faults_of(error: CallError | None) -> dict[str, str]:
    """Return what is wrong with each field of a form."""
    return {fault.pointer.lstrip("/"): fault.detail for fault in (error.faults if error else ())}


def code_of(error: CallError | None) -> int:
    """Return the status of a page that shows an error, where there is one."""
    return 200 if error is None else STATUS[type(error)]


def whole_number(text: str, most_digits: int) -> int | None:
    """Return the number that a field holds in plain digits; None where it holds none."""
    plain = text.isascii() and text.isdigit() and len(text) <= most_digits
    return int(text) if plain else None


class PageRoute(APIRoute):
    """A route of a page: it shows an error as a page, and leads who is not signed in to do so.

    Where data is asked for (`.json`, `.csv`) errors stay those of the API.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request, errors included."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            response = await _shown(handle, request)
            await renew(request, response)
            return response

        return answer


async def _shown(
    handle: Callable[[Request], Coroutine[Any, Any, Response]], request: Request
) -> Response:
    if request.url.path.endswith((".json", ".csv")):
        return await handle(request)
    try:
        return await handle(request)
    except Unauthenticated:
        back = quote(request.url.path + ("?" + request.url.query) * bool(request.url.query))
        return RedirectResponse(f"{PREFIX}/sign-in?next={back}", 303, headers=_HEADERS)
    except CallError as error:
        response = page(
            request, "error.html", code=STATUS[type(error)], error=error, title=error.title
        )
        response.headers.update(problem_headers(error))
        return response


def _time(moment: datetime) -> str:
    """Return a moment as people read it, in UTC and to the second."""
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def _duration(microseconds: float | None) -> str:
    """Return a duration with the unit that suits it."""
    if microseconds is None:
        return "none"
    if microseconds >= _SECOND_US:
        return f"{microseconds / _SECOND_US:.3g} s"
    if microseconds >= _MILLISECOND_US:
        return f"{microseconds / _MILLISECOND_US:.3g} ms"
    return f"{microseconds:.0f} \u00b5s"


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def _share(value: float | None) -> str:
    return "none" if value is None else f"{100 * value:.1f} %"


def _count(value: int) -> str:
    return f"{value:,}"


def _with_code(text: str) -> Markup:
    """Return a sentence in which what stands between backticks is shown as code."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped before


_templates = Environment(
    # Reports look the same here as in the files that commands write.
    loader=ChoiceLoader([PackageLoader("onrecord.console"), PackageLoader("onrecord.insight")]),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters |= {
    "count": _count,
    "duration": _duration,
    "figure": _figure,
    "share": _share,
    "time": _time,
    "with_code": _with_code,
}
