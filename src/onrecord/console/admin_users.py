"""Users in the console: an admin finds, makes, changes and deletes them; an auditor looks."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response

from onrecord.accounts.caller import Caller, Role
from onrecord.accounts.passwords import MIN_PASSWORD
from onrecord.console.pages import PREFIX, PageRoute, code_of, faults_of, fields_of, page
from onrecord.console.session import ChangeDep, PersonDep
from onrecord.errors import CallError, Conflict, Fault, InvalidInput
from onrecord.http import users
from onrecord.http.services import Services, ServicesDep
from onrecord.http.users import UserOut

__all__ = ["router"]

_PATH = f"{PREFIX}/admin/users"
_PAGE = 50
_LONGEST_SEARCH = 256
_ROLES: dict[str, Role] = {"user": "user", "auditor": "auditor", "admin": "admin"}

router = APIRouter(prefix=_PATH, include_in_schema=False, route_class=PageRoute)


@router.get("")
async def list_users(request: Request, person: PersonDep, services: ServicesDep) -> Response:
    """Show the users, oldest first, or those whose name or e-mail address is searched for."""
    return await _list(request, person, services)


@router.post("")
async def make_user(request: Request, person: ChangeDep, services: ServicesDep) -> Response:
    """Make a user of any role, as `onrecord users create` does."""
    person.check_admin()
    sent = await fields_of(request)
    try:
        user = await services.accounts.create(
            sent.get("username", ""),
            sent.get("password", ""),
            sent.get("email", "").strip() or None,
            _role(sent),
        )
    except (Conflict, InvalidInput) as error:
        return await _list(request, person, services, sent=sent, error=error)
    said = f"{user.username} was made, as {user.role}."
    return await _list(request, person, services, said=said)


@router.get("/{user_id}")
async def show_user(
    user_id: str, request: Request, person: PersonDep, services: ServicesDep
) -> Response:
    """Show one user, and to an admin what can be done."""
    person.check_reads_all()
    return await _user(request, person, services, user_id)


@router.post("/{user_id}")
async def change_user(
    user_id: str, request: Request, person: ChangeDep, services: ServicesDep
) -> Response:
    """Do to a user what the form says in `do`, and say what was done."""
    person.check_admin()
    sent = await fields_of(request)
    user = await users.show_user(user_id, person, services)
    do = sent.get("do", "")
    try:
        act = _ACTS.get(do)
        if act is None:
            raise InvalidInput("The form does not say what to do.")
        said = await act(services, user, sent)
    except (Conflict, InvalidInput) as error:
        return await _user(request, person, services, user_id, form=do, error=error)
    return await _user(request, person, services, user_id, said=said)


async def _disable(services: Services, user: UserOut, _: Mapping[str, str]) -> str:
    await services.accounts.set_disabled(user.id, disabled=True)
    return f"{user.username} is disabled: its tokens and API keys stop working within a second."


async def _enable(services: Services, user: UserOut, _: Mapping[str, str]) -> str:
    await services.accounts.set_disabled(user.id, disabled=False)
    return f"{user.username} is enabled, and has to sign in anew."


async def _set_role(services: Services, user: UserOut, sent: Mapping[str, str]) -> str:
    role = _role(sent)
    await services.accounts.set_role(user.id, role)
    return f"The role of {user.username} is {role} now."


async def _set_password(services: Services, user: UserOut, sent: Mapping[str, str]) -> str:
    await services.accounts.set_password(user.id, sent.get("password", ""))
    return f"{user.username} has another password, and its sessions have ended. API keys stay."


async def _end_sessions(services: Services, user: UserOut, _: Mapping[str, str]) -> str:
    await services.accounts.sign_out_everywhere(user.id)
    return f"All sessions of {user.username} have ended. API keys stay."


async def _delete(services: Services, user: UserOut, sent: Mapping[str, str]) -> str:
    if sent.get("sure") != "yes":
        raise InvalidInput("Say that you are sure.")
    await services.accounts.delete(user.id)
    return f"{user.username} is deleted. Its calls stay on record under its name."


_Act = Callable[[Services, UserOut, Mapping[str, str]], Coroutine[Any, Any, str]]
_ACTS: Mapping[str, _Act] = {
    "disable": _disable,
    "enable": _enable,
    "role": _set_role,
    "password": _set_password,
    "sessions": _end_sessions,
    "delete": _delete,
}


def _role(sent: Mapping[str, str]) -> Role:
    role = _ROLES.get(sent.get("role", ""))
    if role is None:
        fault = Fault("/role", "unknown_role", f"The role is one of: {', '.join(_ROLES)}.")
        raise InvalidInput("There is no such role.", faults=(fault,))
    return role


async def _list(  # noqa: PLR0913 - what the page shows beyond the users
    request: Request,
    person: Caller,
    services: Services,
    *,
    sent: Mapping[str, str] | None = None,
    error: CallError | None = None,
    said: str | None = None,
) -> Response:
    person.check_reads_all()
    search = request.query_params.get("search", "").strip()[:_LONGEST_SEARCH]
    after = request.query_params.get("after") or None
    found = await users.list_users(person, services, _PAGE, after, search or None)
    query = {"search": search, "after": found.next}
    return page(
        request,
        "users.html",
        code=code_of(error),
        title="Users",
        path=_PATH,
        search=search,
        after=after,
        users=found.users,
        more=found.next and f"{_PATH}?{urlencode({k: v for k, v in query.items() if v})}",
        roles=list(_ROLES),
        sent=sent or {},
        error=error,
        faults=faults_of(error),
        said=said,
        least=MIN_PASSWORD,
    )


async def _user(  # noqa: PLR0913 - what the page shows beyond the user
    request: Request,
    person: Caller,
    services: Services,
    user_id: str,
    *,
    form: str = "",
    error: CallError | None = None,
    said: str | None = None,
) -> Response:
    user = await users.show_user(user_id, person, services)
    limits = {it["name"]: it["value"] for it in services.settings}
    return page(
        request,
        "user.html",
        code=code_of(error),
        title=user.username,
        path=_PATH,
        user=user,
        roles=list(_ROLES),
        rate=limits["call_rate"],
        quota=limits["call_quota"],
        form=form,
        error=error,
        faults=faults_of(error),
        said=said,
        least=MIN_PASSWORD,
    )
