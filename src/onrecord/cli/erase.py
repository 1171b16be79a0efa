"""`onrecord erase`: a user's payloads, or those that hold a subject's value, go."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated

import typer

from onrecord.cli.admin import DatabaseOption, open_database
from onrecord.cli.progress import rows_progress
from onrecord.errors import NotFound, SettingsError
from onrecord.parts import build_eraser, operator
from onrecord.record import model_versions, users
from onrecord.record.by import By
from onrecord.record.database import Database
from onrecord.record.erase import Erased, Eraser, Selection
from onrecord.record.erasures import Act, What
from onrecord.record.payload_key import PayloadKey
from onrecord.record.tables import utc_text
from onrecord.serving.input_schema import parse_input_schema
from onrecord.serving.subjects import Subject
from onrecord.settings import load_settings

__all__ = ["erase", "erase_with_progress", "told"]


def erase(
    reason: Annotated[str, typer.Option(help="Why, as it goes on record: name no person in it.")],
    user: Annotated[str | None, typer.Option(help="The payloads of this user's calls.")] = None,
    subject: Annotated[
        str | None,
        typer.Option(
            help="The payloads of calls with a row about this subject, COLUMN=VALUE; the model's "
            "schema marks the column."
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Only this model's calls.")] = None,
    before: Annotated[datetime | None, typer.Option(help="Received before, in UTC.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count the calls.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    database: DatabaseOption = None,
) -> None:
    """Erase input and output of calls for ever; that it was done, and by whom, goes on record.

    The rows stay, with their proofs. Cut short, the same command does the rest.
    """
    if user is None and subject is None:
        raise SettingsError("say --user NAME or --subject COLUMN=VALUE, whose payloads are erased")
    settings = load_settings(database=database)
    with open_database(database) as opened:
        selection = Selection(
            user_id=None if user is None else _user_id(opened, user),
            model=model,
            before=None if before is None else before.replace(tzinfo=UTC),
        )
        if subject is not None:
            key = PayloadKey.from_file(settings.payload_key_file)
            selection = _about(opened, selection, subject, key)
        eraser = build_eraser(settings, opened)
        count = eraser.count("payloads", selection)
        if dry_run or not count:
            typer.echo(f"{count} calls have a payload to erase")
            return
        if not yes:
            typer.confirm(f"Erase the payloads of {count} calls for ever?", abort=True)
        by = By(reason, operator=operator())
        done = erase_with_progress(eraser, "payloads", selection, by, count)
    typer.echo(f"erased the payloads of {done.calls} calls: erasure {done.id}")


def erase_with_progress(
    eraser: Eraser, what: What, selection: Selection, by: By, total: int
) -> Erased:
    """Erase, with a bar on a terminal, and say where the log could not be emptied."""
    with rows_progress() as progress:
        bar = progress.add_task("calls", total=total)
        done = eraser.erase(what, selection, by, lambda calls: progress.advance(bar, calls))
    if done.traces:
        typer.echo(
            "SQLite's log could not be emptied, as it is being read; it may still hold what was "
            "erased. Run `onrecord db vacuum` later",
            err=True,
        )
    return done


def told(act: Act) -> str:
    """Return an erasure in a line: what, when, by whom and why."""
    who = act.operator if act.by_user_id is None else f"user {act.by_user_id}"
    taken = "the payloads" if act.what == "payloads" else "the rows"
    return (
        f"{taken} of {act.calls} calls at {utc_text(act.erased_at)} by {who}: {act.reason!r}, "
        f"for {act.selection} (erasure {act.id})"
    )


def _about(database: Database, selection: Selection, subject: str, key: PayloadKey) -> Selection:
    """Return a selection of those calls only that hold COLUMN=VALUE.

    Sought are the versions that have the column of models of which any version marks it.
    """
    column, equals, value = subject.partition("=")
    if not (column and equals and value):
        raise SettingsError("--subject: write COLUMN=VALUE")
    with database.read() as connection:
        schemas = model_versions.input_schemas(connection)
    having: dict[int, str] = {}
    marking: set[str] = set()
    for version, name, content in schemas:
        for found in parse_input_schema(content, "input_schema.json").columns:
            if found.name == column:
                having[version] = name
                if found.subject:
                    marking.add(name)
    if not marking:
        raise NotFound(f'No model on record marks a column {column!r} with "subject": true.')
    sought = Subject(column, value)
    return replace(
        selection,
        versions=frozenset(version for version, name in having.items() if name in marking),
        subject=column,
        holds=lambda row: (
            row.input is not None and sought.is_in(key.reveal(row.input), row.content_type)
        ),
    )


def _user_id(database: Database, name: str) -> str:
    with database.read() as connection:
        user = users.by_username(connection, name)
    if user is None:
        raise NotFound(f"There is no user {name!r}.")
    return user.id
