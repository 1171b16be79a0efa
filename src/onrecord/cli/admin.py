"""`onrecord users`, `keys`, `db` and `config`: what an operator does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from onrecord.accounts.caller import Role
from onrecord.accounts.keys import KeyRing
from onrecord.cli.terminal import cell
from onrecord.errors import NotFound, SettingsError
from onrecord.parts import Parts, build_accounts
from onrecord.record import users
from onrecord.record.database import Database
from onrecord.settings import load_settings

__all__ = [
    "DatabaseOption",
    "config",
    "db_app",
    "keys_app",
    "open_database",
    "user_id_of",
    "users_app",
    "with_parts",
]

users_app = typer.Typer(help="Make, list, enable, disable and delete users.", no_args_is_help=True)
keys_app = typer.Typer(help="The keys that sign tokens.", no_args_is_help=True)
db_app = typer.Typer(help="The record's database.", no_args_is_help=True)

DatabaseOption = Annotated[
    str | None,
    typer.Option("--database", help="sqlite:///FILE or postgresql://USER@HOST/DATABASE."),
]


@contextmanager
def open_database(url: str | None) -> Iterator[Database]:
    """Open the record's database, its tables brought to this version."""
    database = Database(load_settings(database=url).database_url)
    try:
        database.upgrade()
        yield database
    finally:
        database.close()


def with_parts(url: str | None, act: Callable[[Parts], Awaitable[Any]]) -> Any:
    """Return what `act` returns, given the accounts on the record's database."""
    with open_database(url) as database:
        parts = build_accounts(load_settings(database=url), database)

        async def run() -> Any:
            return await act(parts)

        try:
            return asyncio.run(run())
        finally:
            parts.passwords.close()


def user_id_of(url: str | None, name: str) -> str:
    """Return the id of the user with a name; raises NotFound where there is none."""
    with open_database(url) as database, database.read() as connection:
        user = users.by_username(connection, name)
    if user is None:
        raise NotFound(f"There is no user {name!r}.")
    return user.id


@users_app.command("create")
def create(
    username: str,
    email: Annotated[str | None, typer.Option(help="The user's e-mail address.")] = None,
    role: Annotated[Role, typer.Option(help="What the user may do.")] = "user",
    admin: Annotated[bool, typer.Option("--admin", help="The same as --role admin.")] = False,
    password: Annotated[
        str,
        typer.Option(
            prompt=True,
            hide_input=True,
            confirmation_prompt=True,
            envvar="ONRECORD_NEW_PASSWORD",
            help="Asked for when it is not given.",
        ),
    ] = "",
    database: DatabaseOption = None,
) -> None:
    """Make a user; an auditor reads everything and changes nothing."""
    role = "admin" if admin else role
    with_parts(database, lambda p: p.accounts.create(username, password, email, role))
    typer.echo(f"made {role} {username}")


@users_app.command("list")
def list_users(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    database: DatabaseOption = None,
) -> None:
    """List every user."""
    table = Table("id", "username", "email", "role", "state")
    with open_database(database) as opened, opened.read() as connection:
        after: str | None = None
        while found := users.page(connection, limit=500, after_id=after):
            after = found[-1].id
            for user in found:
                state = (
                    "deleted" if user.deleted_at else "disabled" if user.disabled_at else "enabled"
                )
                cells = (user.id, user.username, user.email or "", user.role, state)
                if as_json:
                    names = ("id", "username", "email", "role", "state")
                    typer.echo(json.dumps(dict(zip(names, cells, strict=True))))
                table.add_row(*map(cell, cells))
    if not as_json:
        Console().print(table)


@users_app.command("disable")
def disable(username: str, database: DatabaseOption = None) -> None:
    """Disable a user; its tokens stop working within a second."""
    user_id = user_id_of(database, username)
    with_parts(database, lambda p: p.accounts.set_disabled(user_id, disabled=True))
    typer.echo(f"disabled {username}")


@users_app.command("enable")
def enable(username: str, database: DatabaseOption = None) -> None:
    """Enable a user again; it needs a new token."""
    user_id = user_id_of(database, username)
    with_parts(database, lambda p: p.accounts.set_disabled(user_id, disabled=False))
    typer.echo(f"enabled {username}")


@users_app.command("delete")
def delete(username: str, database: DatabaseOption = None) -> None:
    """Delete a user; its rows on record stay under the same id and name."""
    user_id = user_id_of(database, username)
    with_parts(database, lambda p: p.accounts.delete(user_id))
    typer.echo(f"deleted {username}")


@users_app.command("set-role")
def set_role(username: str, role: Role, database: DatabaseOption = None) -> None:
    """Give a user another role: user, auditor or admin."""
    user_id = user_id_of(database, username)
    with_parts(database, lambda p: p.accounts.set_role(user_id, role))
    typer.echo(f"{username} is now {role}")


@users_app.command("set-password")
def set_password(
    username: str,
    password: Annotated[
        str,
        typer.Option(
            prompt=True,
            hide_input=True,
            confirmation_prompt=True,
            envvar="ONRECORD_NEW_PASSWORD",
        ),
    ] = "",
    database: DatabaseOption = None,
) -> None:
    """Give a user a new password; its tokens stop working."""
    user_id = user_id_of(database, username)
    with_parts(database, lambda p: p.accounts.set_password(user_id, password))
    typer.echo(f"changed the password of {username}")


@keys_app.command("rotate")
def rotate() -> None:
    """Sign new tokens with a new key; tokens of the previous key stay valid until they expire."""
    settings = load_settings()
    if settings.token_secrets is not None:
        raise SettingsError(
            "setting token_secrets: the keys are given in the settings; put the new KID:SECRET "
            "before the old one there and restart"
        )
    KeyRing.from_file(settings.token_file)
    typer.echo(f"new tokens are signed with key {KeyRing.rotate_file(settings.token_file)}")


@db_app.command("upgrade")
def upgrade(database: DatabaseOption = None) -> None:
    """Bring the tables to this version."""
    with open_database(database) as opened:
        typer.echo(f"{opened.url} is at this version")


@db_app.command("check")
def check(database: DatabaseOption = None) -> None:
    """Say whether the tables are those of this version; change nothing."""
    opened = Database(load_settings(database=database).database_url)
    try:
        opened.check()
    finally:
        opened.close()
    typer.echo(f"{opened.url} is at this version")


@db_app.command("vacuum")
def vacuum(database: DatabaseOption = None) -> None:
    """Write the database anew, without a trace of what was erased from it before.

    In SQLite calls wait meanwhile, and it takes as much room again; in PostgreSQL nobody waits.
    """
    with open_database(database) as opened:
        whole = opened.vacuum()
    typer.echo(f"{opened.url} is written anew")
    if not whole:
        typer.echo("its log could not be emptied, as it is being read: run this again", err=True)
        raise typer.Exit(1)


def config() -> None:
    """Print the effective settings, secrets masked, as JSON."""
    typer.echo(json.dumps(load_settings().shown(), indent=2))
