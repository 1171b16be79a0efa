"""`onrecord log` and `onrecord export`: reading the record from the command line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TimeElapsedColumn
from rich.table import Column, Table

from onrecord.cli.admin import DatabaseOption, open_database
from onrecord.cli.terminal import cell
from onrecord.errors import NotFound
from onrecord.record import reader, users
from onrecord.record.database import Database
from onrecord.record.export import export
from onrecord.record.payload_key import PayloadKey
from onrecord.serving.forms import kind_of
from onrecord.settings import load_settings

__all__ = ["export_record", "log"]

UserOption = Annotated[str | None, typer.Option("--user", help="Only this username's calls.")]
ModelOption = Annotated[str | None, typer.Option("--model", help="Only this model's calls.")]
StatusOption = Annotated[int | None, typer.Option("--status", help="Only this status.")]
SinceOption = Annotated[datetime | None, typer.Option("--since", help="Received since, in UTC.")]
TestOption = Annotated[
    bool, typer.Option("--test", help="The calls of test keys, which are left out otherwise.")
]
UntilOption = Annotated[datetime | None, typer.Option("--until", help="Received before, in UTC.")]


def _filters(
    database: Database,
    user: str | None,
    model: str | None,
    status: int | None,
    since: datetime | None,
    until: datetime | None,
    test: bool,
) -> reader.Filters:
    user_id = None
    if user is not None:
        with database.read() as connection:
            found = users.by_username(connection, user)
        if found is None:
            raise NotFound(f"There is no user {user!r}.")
        user_id = found.id
    return reader.Filters(
        user_id=user_id,
        model=model,
        status=status,
        since=since.replace(tzinfo=UTC) if since else None,
        until=until.replace(tzinfo=UTC) if until else None,
        test=test,
    )


RevealOption = Annotated[
    bool,
    typer.Option("--reveal", help="Decrypt inputs with sensitive columns, by payload.key."),
]


def _shown(entries: Iterator[reader.Entry], *, reveal: bool) -> Iterator[reader.Entry]:
    """Yield the entries as they are, or with their inputs decrypted; raises SealError."""
    if not reveal:
        yield from entries
        return
    key = PayloadKey.from_file(load_settings().payload_key_file)
    for entry in entries:
        given = None if entry.input is None else key.reveal(entry.input)
        yield replace(entry, input=given)


def log(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many calls.")] = 20,
    user: UserOption = None,
    model: ModelOption = None,
    status: StatusOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    test: TestOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    reveal: RevealOption = False,
    database: DatabaseOption = None,
) -> None:
    """Show the newest calls on record."""
    with open_database(database) as opened:
        filters = _filters(opened, user, model, status, since, until, test)
        with opened.read() as connection:
            found = reader.page(connection, filters, limit=limit, before=None)
    entries = list(_shown(iter(found), reveal=reveal))
    if as_json:
        export(iter(entries), sys.stdout.buffer, "jsonl")
        return
    id_column = Column("id", no_wrap=True)
    table = Table("received (UTC)", id_column, "user", "model", "status", "input", "output")
    for entry in entries:
        cells = (
            f"{entry.received_at:%Y-%m-%d %H:%M:%S}",
            entry.id,
            entry.username,
            f"{entry.model} {entry.model_version or ''}",
            str(entry.status),
            _body(entry.input, entry.content_type),
            _body(entry.output, entry.output_content_type),
        )
        table.add_row(*(cell(_cut(text)) for text in cells))
    Console().print(table)


def _body(content: bytes | None, content_type: str | None) -> str:
    if content is None:
        return ""
    if content_type is not None and kind_of(content_type) in {"arrow", "parquet"}:
        return f"{len(content)} bytes of {content_type}"
    return content.decode(errors="replace")


def _cut(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."  # noqa: PLR2004 - a cell's width


def export_record(
    format: Annotated[  # noqa: A002 - it is the option's name
        Literal["csv", "jsonl", "parquet"], typer.Option(help="The file's format.")
    ] = "jsonl",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file; standard output by default.")
    ] = None,
    user: UserOption = None,
    model: ModelOption = None,
    status: StatusOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    test: TestOption = False,
    reveal: RevealOption = False,
    database: DatabaseOption = None,
) -> None:
    """Write the record, oldest first, as CSV, JSON lines or Parquet."""
    with open_database(database) as opened:
        filters = _filters(opened, user, model, status, since, until, test)
        if output is None:
            written = _write(opened, filters, sys.stdout.buffer, format, reveal=reveal)
        else:
            partial = output.with_name(output.name + ".partial")
            with partial.open("wb") as out:
                written = _write(opened, filters, out, format, reveal=reveal)
            partial.replace(output)
    typer.echo(f"exported {written} calls", err=True)


def _write(
    database: Database,
    filters: reader.Filters,
    out: BinaryIO,
    form: Literal["csv", "jsonl", "parquet"],
    *,
    reveal: bool,
) -> int:
    columns = (SpinnerColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with database.read() as connection:
        total = reader.count(connection, filters)
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            task = progress.add_task("export", total=total)

            def shown() -> Iterator[reader.Entry]:
                for entry in _shown(reader.stream(connection, filters), reveal=reveal):
                    progress.advance(task)
                    yield entry

            return export(shown(), out, form)
