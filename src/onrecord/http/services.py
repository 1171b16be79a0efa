"""What the routes are handed: the parts that `onrecord.app` built, and who is asking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import OAuth2PasswordBearer

from onrecord.accounts.caller import Caller
from onrecord.accounts.sign_in import Accounts
from onrecord.accounts.standing import Gate
from onrecord.errors import Forbidden
from onrecord.record.database import Database
from onrecord.record.writer import Writer
from onrecord.serving.prediction import Predictor

__all__ = ["AdminDep", "CallerDep", "Services", "ServicesDep"]


@dataclass(frozen=True)
class Services:
    """The parts of one server."""

    database: Database
    writer: Writer
    accounts: Accounts
    gate: Gate
    predictors: Mapping[str, Predictor]
    default_model: str
    registration_open: bool
    token_seconds: int


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(_services)]

_bearer = OAuth2PasswordBearer(
    tokenUrl="token", auto_error=False, description="A token from POST /token or POST /users."
)


async def _caller(
    request: Request, services: ServicesDep, _: Annotated[str | None, Depends(_bearer)]
) -> Caller:
    caller = await services.gate.authenticate(request.headers.get("authorization"))
    request.scope["onrecord.user"] = caller.username
    return caller


CallerDep = Annotated[Caller, Depends(_caller)]


async def _admin(caller: CallerDep) -> Caller:
    if caller.role != "admin":
        raise Forbidden("Only an admin may do this.")
    return caller


AdminDep = Annotated[Caller, Depends(_admin)]
