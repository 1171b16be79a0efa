"""`/keys`: API keys, made and revoked by whoever is signed in."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from fastapi import APIRouter, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StrictInt

from onrecord.accounts.caller import Scope
from onrecord.errors import Fault, InvalidInput
from onrecord.http.paging import OfUser, PageCursor, PageLimit
from onrecord.http.services import CallerDep, ServicesDep
from onrecord.record.api_keys import ApiKey
from onrecord.record.ids import is_id

__all__ = ["router"]

router = APIRouter(prefix="/keys", tags=["accounts"])


class ApiKeyOut(BaseModel):
    """An API key, as the API shows it."""

    id: str
    user_id: str
    username: str
    name: str
    kind: Literal["live", "test"]
    prefix: str = Field(description="The first characters of the key, to tell it from others.")
    scopes: list[str]
    models: list[str] | None = Field(description="The models it is for; null is every model.")
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="To about a minute.")
    rate: str | None = Field(description="How often it may be used to predict, beside its owner's.")
    quota: int | None = Field(description="How many predictions it may ask for on a day (UTC).")


class NewApiKey(BaseModel):
    """What is asked for to make an API key."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"name": "nightly batch", "scopes": ["predict"]}]},
    )

    name: str = Field(description="1 to 100 printable characters.")
    kind: Literal["live", "test"] = Field(
        default="live", description="The calls of a test key are kept apart from all others."
    )
    scopes: list[Scope] = Field(
        default=["predict"],
        description="What it is for: to predict, to read one's own record, to tell outcomes.",
    )
    models: list[str] | None = Field(
        default=None, description="The models it is for; null is every model."
    )
    expires_at: AwareDatetime | None = Field(
        default=None, description="By default as late as setting `api_key_days` allows."
    )
    rate: str | None = Field(
        default=None,
        description="How many predictions it may ask for, as `100/second`; null is as many as its "
        "owner.",
    )
    quota: StrictInt | None = Field(
        default=None,
        description="How many predictions it may ask for on a day (UTC); null is as many as its "
        "owner.",
    )


class ApiKeyMade(ApiKeyOut):
    """A new API key with its secret."""

    key: str = Field(description="The key itself; it is not kept and not shown again.")


class ApiKeyPage(BaseModel):
    """One page of API keys, oldest first."""

    keys: list[ApiKeyOut]
    next: str | None = Field(description="Send it as `after` to get the next page.")


def _shown(key: ApiKey) -> ApiKeyOut:
    return ApiKeyOut.model_validate(key, from_attributes=True)


@router.post("", status_code=201, summary="Make an API key")
async def make_key(
    body: NewApiKey, caller: CallerDep, services: ServicesDep, response: Response
) -> ApiKeyMade:
    """Make an API key for oneself, to be sent as a token is.

    It has no more rights than its scopes, its models and its owner, and none over users or keys.
    """
    key, secret = await services.api_keys.create(
        caller.user_id,
        name=body.name,
        kind=body.kind,
        scopes=body.scopes,
        models=body.models,
        expires_at=body.expires_at,
        rate=body.rate,
        quota=body.quota,
    )
    response.headers["cache-control"] = "no-store"
    return ApiKeyMade(**_shown(key).model_dump(), key=secret)


@router.get("", summary="List API keys")
async def list_keys(
    caller: CallerDep,
    services: ServicesDep,
    limit: PageLimit = 100,
    after: PageCursor = None,
    user: OfUser = None,
) -> ApiKeyPage:
    """List API keys, revoked ones included: one's own; to an admin or auditor everyone's."""
    faults = tuple(
        Fault(f"/{name}", "wrong_form", sentence)
        for name, value, sentence in (
            ("after", after, "Send the `next` of the page before."),
            ("user", user, "A user is named by its id."),
        )
        if value is not None and not is_id(value)
    )
    if faults:
        raise InvalidInput("The query does not fit.", faults=faults)
    if not caller.reads_all:
        if user is not None and user != caller.user_id:
            return ApiKeyPage(keys=[], next=None)
        user = caller.user_id
    found = await services.api_keys.page(user, limit=limit + 1, after_id=after)
    return ApiKeyPage(
        keys=[_shown(key) for key in found[:limit]],
        next=found[limit - 1].id if len(found) > limit else None,
    )


@router.delete("/{key_id}", status_code=204, summary="Revoke an API key")
async def revoke_key(key_id: str, caller: CallerDep, services: ServicesDep) -> None:
    """Revoke an API key: one's own, or to an admin anyone's. It stops within a second."""
    owner_id = None if caller.role == "admin" else caller.user_id
    await services.api_keys.revoke(key_id, owner_id=owner_id)
