"""`onrecord api-keys`: making, listing and revoking the API keys of users."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from onrecord.cli.admin import DatabaseOption, open_database, user_id_of, with_parts
from onrecord.cli.terminal import cell
from onrecord.record import api_keys
from onrecord.record.api_keys import ApiKey

__all__ = ["api_keys_app"]

api_keys_app = typer.Typer(
    help="The API keys that programs call with, in a user's name.", no_args_is_help=True
)

_PAGE = 500


@api_keys_app.command("create")
def create(
    username: Annotated[str, typer.Argument(help="In whose name the key calls.")],
    name: Annotated[str, typer.Argument(help="What the key is known by.")],
    scopes: Annotated[
        list[str] | None,
        typer.Option(
            "--scope",
            help="Predict or read; may be given again. By default predict.",
        ),
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option("--model", help="A model it is for; may be given again. By default every."),
    ] = None,
    expires: Annotated[
        datetime | None,
        typer.Option(help="Until when it is valid, in UTC; by default as long as one may be."),
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(
            help="How often it may predict, as 10/second; by default only its owner's limits count."
        ),
    ] = None,
    quota: Annotated[
        int | None,
        typer.Option(help="How many predictions a day (UTC); by default only its owner's."),
    ] = None,
    test: Annotated[
        bool, typer.Option("--test", help="A test key: its calls are kept apart from all others.")
    ] = False,
    database: DatabaseOption = None,
) -> None:
    """Make an API key and print it: it is not kept and cannot be shown again."""
    user_id = user_id_of(database, username)

    key, secret = with_parts(
        database,
        lambda p: p.api_keys.create(
            user_id,
            name=name,
            kind="test" if test else "live",
            scopes=scopes or ["predict"],
            models=models or None,
            expires_at=expires.replace(tzinfo=UTC) if expires else None,
            rate=rate,
            quota=quota,
        ),
    )
    typer.echo(secret)
    typer.echo(f"made API key {key.id}, valid until {key.expires_at:%Y-%m-%d %H:%M} UTC", err=True)


@api_keys_app.command("list")
def list_keys(
    user: Annotated[str | None, typer.Option("--user", help="Only this username's keys.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    database: DatabaseOption = None,
) -> None:
    """List API keys, revoked and expired ones included."""
    user_id = None if user is None else user_id_of(database, user)
    names = (
        "id", "user", "name", "prefix", "scopes", "models", "limits", "expires", "last used",
        "state",
    )  # fmt: skip
    table = Table(Column("id", no_wrap=True), *names[1:])
    with open_database(database) as opened, opened.read() as connection:
        after: str | None = None
        while found := api_keys.page(connection, user_id=user_id, limit=_PAGE, after_id=after):
            after = found[-1].id
            for key in found:
                cells = _cells(key)
                if as_json:
                    typer.echo(json.dumps(dict(zip(names, cells, strict=True))))
                table.add_row(*map(cell, cells))
    if not as_json:
        Console().print(table)


@api_keys_app.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The id that `list` shows.")],
    database: DatabaseOption = None,
) -> None:
    """Revoke an API key; every worker refuses it within a second."""
    with_parts(database, lambda p: p.api_keys.revoke(key_id, owner_id=None))
    typer.echo(f"revoked {key_id}")


def _cells(key: ApiKey) -> tuple[str, ...]:
    state = (
        "revoked"
        if key.revoked_at
        else "expired"
        if key.expires_at <= datetime.now(UTC)
        else "valid"
    )
    return (
        key.id,
        key.username,
        key.name,
        key.prefix,
        " ".join(key.scopes),
        "every" if key.models is None else " ".join(key.models),
        _limits(key),
        f"{key.expires_at:%Y-%m-%d %H:%M}",
        "never" if key.last_used_at is None else f"{key.last_used_at:%Y-%m-%d %H:%M}",
        state,
    )


def _limits(key: ApiKey) -> str:
    daily = None if key.quota is None else f"{key.quota}/day"
    return " ".join(limit for limit in (key.rate, daily) if limit is not None) or "none"
