"""Administration in the console: API keys, changes of models, the settings, and health."""

from __future__ import annotations

import os
import platform
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

import onrecord
from onrecord.accounts.caller import Caller
from onrecord.console.pages import PREFIX, PageRoute, code_of, fields_of, page, whole_number
from onrecord.console.session import ChangeDep, PersonDep
from onrecord.errors import InvalidInput, NotFound
from onrecord.http import api_keys, health
from onrecord.http.api_keys import ApiKeyPage
from onrecord.http.model_versions import shown_change
from onrecord.http.services import Services, ServicesDep
from onrecord.record import model_changes, users
from onrecord.record.deployments import all_deployments
from onrecord.record.ids import is_id
from onrecord.record.model_versions import versions_of

__all__ = ["router"]

_PATH = f"{PREFIX}/admin"
_PAGE = 50
_SEQ_DIGITS = 18

router = APIRouter(prefix=_PATH, include_in_schema=False, route_class=PageRoute)


@router.get("")
async def lead(_: PersonDep) -> Response:
    """Lead to the users."""
    return RedirectResponse(f"{_PATH}/users", 303)


@router.get("/keys")
async def show_keys(request: Request, person: PersonDep, services: ServicesDep) -> Response:
    """Show everyone's API keys, or those of the user whose name is asked for."""
    return await _keys(request, person, services)


@router.post("/keys")
async def revoke_key(request: Request, person: ChangeDep, services: ServicesDep) -> Response:
    """Revoke the API key that the form names, anyone's, as `DELETE /keys/{id}` does."""
    person.check_admin()
    await api_keys.revoke_key((await fields_of(request)).get("key", ""), person, services)
    return await _keys(request, person, services, said="The API key is revoked.")


@router.get("/models")
async def show_models(request: Request, person: PersonDep, services: ServicesDep) -> Response:
    """Show which version of each model answers, and who changed that, when and why."""
    person.check_reads_all()
    before = _seq(request.query_params.get("before", ""))
    models, changes = await services.database.run(_read_models, services, before)
    shown = changes[:_PAGE]
    return page(
        request,
        "admin_models.html",
        title="Models",
        models=models,
        changes=shown,
        before=before,
        older=f"{_PATH}/models?before={shown[-1]['seq']}" if len(changes) > _PAGE else None,
    )


@router.get("/settings")
async def show_settings(request: Request, person: PersonDep, services: ServicesDep) -> Response:
    """Show the settings that the server runs with, secrets masked; admins only."""
    person.check_admin()
    return page(request, "settings.html", title="Settings", settings=services.settings)


@router.get("/health")
async def show_health(request: Request, person: PersonDep, services: ServicesDep) -> Response:
    """Show what `/readyz` says, for people."""
    person.check_reads_all()
    settings = {it["name"]: it["value"] for it in services.settings}
    return page(
        request,
        "health.html",
        title="Health",
        health=await health.readiness(services),
        models=services.served.models.values(),
        facts={
            "onrecord": onrecord.__version__,
            "Python": platform.python_version(),
            "Database": services.database.url,
            "Worker processes": settings["workers"],
            "This page by process": os.getpid(),
        },
        seal_seconds=settings["seal_seconds"],
    )


async def _keys(
    request: Request, person: Caller, services: Services, *, said: str | None = None
) -> Response:
    person.check_reads_all()
    name = request.query_params.get("user", "").strip()
    after = request.query_params.get("after") or None
    fault = None
    try:
        found = await _found_keys(person, services, name, after)
    except NotFound as error:
        found, fault = ApiKeyPage(keys=[], next=None), error
    query = {"user": name, "after": found.next}
    return page(
        request,
        "admin_keys.html",
        code=code_of(fault),
        title="API keys",
        path=f"{_PATH}/keys",
        user=name,
        after=after,
        fault=fault and fault.detail,
        keys=found.keys,
        more=found.next and f"{_PATH}/keys?{urlencode({k: v for k, v in query.items() if v})}",
        said=said,
    )


async def _found_keys(
    person: Caller, services: Services, name: str, after: str | None
) -> ApiKeyPage:
    user_id = name or None
    if name and not is_id(name):

        def find() -> str | None:
            with services.database.read() as connection:
                user = users.by_username(connection, name)
            return None if user is None else user.id

        user_id = await services.database.run(find)
        if user_id is None:
            raise NotFound(f"There is no user {name[:100]!r}.")
    return await api_keys.list_keys(person, services, _PAGE, after, user_id)


def _read_models(
    services: Services, before: int | None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return each model with its versions, and a page of changes and one more, newest first."""
    with services.database.read() as connection:
        models = []
        for deployment in all_deployments(connection):
            versions = versions_of(connection, deployment.name)
            by_alias = {deployment.alias_of(it.id): it for it in versions}
            models.append(
                {
                    "name": deployment.name,
                    "versions": len(versions),
                    "retired": sum(it.retired_at is not None for it in versions),
                    **{name: by_alias.get(name) for name in ("live", "candidate", "previous")},
                }
            )
        found = model_changes.page(connection, limit=_PAGE + 1, before=before)
        names = {
            user_id: user.username
            for user_id in {it.by_user_id for it in found if it.by_user_id}
            if (user := users.by_id(connection, user_id))
        }
    changes = [
        {**shown_change(it).model_dump(), "username": names.get(it.by_user_id or "")}
        for it in found
    ]
    return models, changes


def _seq(text: str) -> int | None:
    seq = whole_number(text, _SEQ_DIGITS)
    if seq is not None or not text:
        return seq
    raise InvalidInput("Follow a link of the page to get here.")
