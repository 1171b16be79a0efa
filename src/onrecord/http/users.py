"""`/users`: registering, and what an admin does with accounts."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field, StrictBool

from onrecord.accounts.caller import Role, role_of
from onrecord.accounts.passwords import MAX_PASSWORD, MIN_PASSWORD, USERNAME_PATTERN
from onrecord.accounts.sign_in import Accounts
from onrecord.errors import CallError, Fault, InvalidInput, NotFound
from onrecord.http.paging import PageCursor, PageLimit
from onrecord.http.services import AdminDep, CallerDep, OverseerDep, ServicesDep
from onrecord.http.tokens import Token
from onrecord.record import users
from onrecord.record.database import Database
from onrecord.record.ids import is_id

__all__ = ["router"]

router = APIRouter(tags=["accounts"])


class UserOut(BaseModel):
    """A user, as the API shows it."""

    id: str
    username: str
    email: str | None
    role: Role
    created_at: datetime
    disabled_at: datetime | None
    deleted_at: datetime | None
    issuer: str | None = Field(description="Where the user signs in; null is here.")
    subject: str | None = Field(description="Who the user is at that issuer.")


class Registration(BaseModel):
    """What a stranger sends to become a user."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "username": "ada",
                    "password": "correct horse battery staple",
                    "email": "ada@example.com",
                }
            ]
        },
    )

    # The accounts judge these, all at once and in their own words; this is how docs show the rules.
    username: str = Field(json_schema_extra={"pattern": USERNAME_PATTERN})
    password: str = Field(
        json_schema_extra={"minLength": MIN_PASSWORD, "maxLength": MAX_PASSWORD},
        description="Not the same as the username.",
    )
    email: str | None = Field(default=None, json_schema_extra={"format": "email"})


class Registered(Token):
    """A new user and its first tokens."""

    user: UserOut


class UserPage(BaseModel):
    """One page of users, oldest first."""

    users: list[UserOut]
    next: str | None = Field(description="Send it as `after` to get the next page.")


class UserChange(BaseModel):
    """What an admin may change of a user."""

    model_config = ConfigDict(extra="forbid")

    disabled: StrictBool | None = None
    role: Role | None = None


def _shown(user: users.User) -> UserOut:
    return UserOut(
        id=user.id,
        username=user.username,
        email=user.email,
        role=role_of(user.role),
        created_at=user.created_at,
        disabled_at=user.disabled_at,
        deleted_at=user.deleted_at,
        issuer=user.issuer,
        subject=user.subject,
    )


@router.post("/users", status_code=201, summary="Register")
async def register(body: Registration, services: ServicesDep, response: Response) -> Registered:
    """Make a user and hand out its first tokens."""
    services.check_registration_open()
    user = await services.accounts.register(body.username, body.password, body.email)
    issued = await services.sessions.begin(user)
    response.headers["cache-control"] = "no-store"
    response.headers["location"] = f"/users/{user.id}"
    return Registered(
        user=_shown(user),
        access_token=issued.access_token,
        refresh_token=issued.refresh_token,
        expires_in=services.token_seconds,
    )


@router.get("/users/me", summary="Who am I")
async def me(caller: CallerDep, services: ServicesDep) -> UserOut:
    """Show the user whose token this is."""
    return _shown(await _find(services.database, caller.user_id))


@router.get("/users", summary="List users")
async def list_users(
    _: OverseerDep,
    services: ServicesDep,
    limit: PageLimit = 100,
    after: PageCursor = None,
    search: Annotated[
        str | None,
        Query(
            min_length=1,
            max_length=256,
            description="What the username or e-mail address has in it, whatever the case.",
        ),
    ] = None,
) -> UserPage:
    """List every user, deleted ones included; admins and auditors only."""
    if after is not None and not is_id(after):
        raise InvalidInput(
            "The cursor is not one that this server gave.",
            faults=(Fault("/after", "wrong_form", "Send the `next` of the page before."),),
        )

    def read() -> list[users.User]:
        with services.database.read() as connection:
            return users.page(connection, limit=limit + 1, after_id=after, search=search)

    found = await services.database.run(read)
    return UserPage(
        users=[_shown(user) for user in found[:limit]],
        next=found[limit - 1].id if len(found) > limit else None,
    )


@router.get("/users/{user_id}", summary="Show a user")
async def show_user(user_id: str, caller: CallerDep, services: ServicesDep) -> UserOut:
    """Show a user: oneself, or anyone to an admin or auditor."""
    if not caller.reads_all and user_id != caller.user_id:
        raise _no_such_user()
    return _shown(await _find(services.database, user_id))


@router.patch("/users/{user_id}", summary="Enable, disable or change the role of a user")
async def change_user(
    user_id: str, change: UserChange, _: AdminDep, services: ServicesDep
) -> UserOut:
    """Change a user; admins only. A disabled user's tokens stop working within a second."""
    await _find(services.database, user_id)
    await _apply(services.accounts, user_id, change)
    return _shown(await _find(services.database, user_id))


async def _apply(accounts: Accounts, user_id: str, change: UserChange) -> None:
    if change.disabled is not None:
        await accounts.set_disabled(user_id, disabled=change.disabled)
    if change.role is not None:
        await accounts.set_role(user_id, change.role)


@router.delete("/users/{user_id}", status_code=204, summary="Delete a user")
async def delete_user(user_id: str, _: AdminDep, services: ServicesDep) -> None:
    """Delete a user; admins only.

    Its e-mail address and password go, its tokens stop working; its rows on record stay, under
    the same user id and name.
    """
    await _find(services.database, user_id)
    await services.accounts.delete(user_id)


async def _find(database: Database, user_id: str) -> users.User:
    def read() -> users.User | None:
        with database.read() as connection:
            return users.by_id(connection, user_id)

    user = await database.run(read) if is_id(user_id) else None
    if user is None:
        raise _no_such_user()
    return user


def _no_such_user() -> CallError:
    return NotFound("There is no such user.")
