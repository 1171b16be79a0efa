"""What the routes are handed: the parts that `onrecord.app` built, and who is asking."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import OAuth2PasswordBearer
from starlette.types import Receive, Scope

from onrecord.accounts.api_keys import ApiKeys
from onrecord.accounts.caller import Caller
from onrecord.accounts.sessions import Sessions
from onrecord.accounts.set_up import SetUp
from onrecord.accounts.sign_in import Accounts
from onrecord.accounts.standing import Gate
from onrecord.errors import Forbidden
from onrecord.http.body import LargeBodies
from onrecord.insight.baselines import Drifts
from onrecord.insight.drift import DriftRules
from onrecord.insight.gate import GateRules
from onrecord.lifecycle.fleet import Fleet
from onrecord.lifecycle.versions import Gate as VersionGate
from onrecord.lifecycle.versions import Versions
from onrecord.record.database import Database
from onrecord.record.erase import Eraser
from onrecord.record.spool import Spool
from onrecord.record.writer import Writer
from onrecord.serving.prediction import Answer
from onrecord.serving.served import ServedModels

__all__ = [
    "AdminDep",
    "CallerDep",
    "KeyCallerDep",
    "OverseerDep",
    "ReaderDep",
    "Services",
    "ServicesDep",
    "address_of",
]


@dataclass(frozen=True)
class Services:
    """The parts of one server.

    `eraser` makes what erases, from the seal's key as it is then; it raises SealError. `gate_of`
    makes the gate of some rules, which examines in a process of its own. `reveal` decrypts recorded
    inputs. `predict` answers a call, as `PredictEndpoint.answer` does. `max_rows` and
    `max_body_bytes` are the most of a call. `settings` is each setting's
    `name`, `value` (secrets masked), `meaning` and whether it was `given`, for people to read.
    """

    database: Database
    writer: Writer
    spool: Spool | None
    accounts: Accounts
    sessions: Sessions
    api_keys: ApiKeys
    set_up: SetUp
    gate: Gate
    eraser: Callable[[], Eraser]
    served: ServedModels
    fleet: Fleet
    versions: Versions
    reveal: Callable[[bytes], bytes]
    large_bodies: LargeBodies
    gate_of: Callable[[GateRules], VersionGate]
    drifts: Drifts
    drift_rules: DriftRules
    predict: Callable[[str, str | None, Scope, Receive], Awaitable[Answer]]
    registration_open: bool
    token_seconds: int
    max_rows: int
    max_body_bytes: int
    settings: Sequence[Mapping[str, object]]

    def check_registration_open(self) -> None:
        """Raise Forbidden where a stranger may not register."""
        if not self.registration_open:
            raise Forbidden("Registration is closed; ask an admin for an account.")


def address_of(request: Request) -> str:
    """Return the client's address, by which failures to sign in are counted."""
    return request.client.host if request.client else "unknown"


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(_services)]

_bearer = OAuth2PasswordBearer(
    tokenUrl="token",
    auto_error=False,
    description="A token from POST /token or POST /users; to predict and to read, or an API key.",
)


async def _key_caller(
    request: Request, services: ServicesDep, _: Annotated[str | None, Depends(_bearer)]
) -> Caller:
    caller = await services.gate.authenticate(request.headers.get("authorization"))
    request.scope["onrecord.user"] = caller.username
    return caller


KeyCallerDep = Annotated[Caller, Depends(_key_caller)]
"""Whoever has a valid token, or a valid API key of whatever scope."""


async def _caller(caller: KeyCallerDep) -> Caller:
    caller.check_signed_in()
    return caller


CallerDep = Annotated[Caller, Depends(_caller)]
"""A signed-in user: what a route asks for that API keys have no business with."""


async def _reader(caller: KeyCallerDep) -> Caller:
    caller.check_scope("read")
    return caller


ReaderDep = Annotated[Caller, Depends(_reader)]
"""Whoever may read its own record: a signed-in user, or an API key with the scope `read`."""


async def _overseer(caller: CallerDep) -> Caller:
    caller.check_reads_all()
    return caller


OverseerDep = Annotated[Caller, Depends(_overseer)]
"""Who may see everything: an admin or an auditor."""


async def _admin(caller: CallerDep) -> Caller:
    caller.check_admin()
    return caller


AdminDep = Annotated[Caller, Depends(_admin)]
